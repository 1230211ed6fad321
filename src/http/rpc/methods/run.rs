//! Runs. Both methods run `rkllm_run` on the handle's own worker; the vendor's asynchronous path is
//! never entered. A run ends with what waits for it: its request, its connection or its handle.

mod taker;

use std::sync::Arc;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::counts::CountedRun;
use super::inputs::Inputs;
use super::result::{EndedNotification, RunResult};
use super::tensor::TensorForm;
use super::{Method, Scope, failure};
use crate::generation::ModelId;
use crate::http::request::access::Caller;
use crate::http::request::id;
use crate::http::request::live_run::{LiveRun, RunOf};
use crate::http::rpc::protocol::{ErrorKind, RpcError};
use crate::http::rpc::session::Session;
use crate::http::rpc::{CutOff, Rpc};
use crate::library_calls::{CallbackResult, InferParam, RowSelection, RunRequest};
use crate::supervisor::{HandleReset, RunEvent, RunStream};
use taker::{Collected, Taker};

/// Parameters are at most so many times their text: a float is two characters at the least.
const VALUE_TIMES: usize = 2;

const RUN_ERRORS: &[ErrorKind] = &[
    ErrorKind::UnknownHandle,
    ErrorKind::ModelNotAllowed,
    ErrorKind::CallFailed,
    ErrorKind::NotInRuntime,
    ErrorKind::DeadlinePassed,
    ErrorKind::WorkerDied,
    ErrorKind::ModelUnavailable,
    ErrorKind::TooLarge,
    ErrorKind::LimitReached,
    ErrorKind::SlowReader,
    ErrorKind::NeedsNotifications,
    ErrorKind::HandleClosed,
    ErrorKind::PromptCacheBroken,
    ErrorKind::AbortedByAdministrator,
];

pub(crate) struct Run;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunParams {
    /// From `rkllm.init`.
    handle: String,
    rkllm_input: Inputs,
    #[serde(default)]
    rkllm_infer_params: Option<InferParam>,
    /// Rows of hidden states and logits that are sent.
    #[serde(default)]
    rows: RowSelection,
    /// How tensors are written.
    #[serde(default)]
    tensors: TensorForm,
    /// The library generates on after the first logits, up to `max_new_tokens`; it is aborted after
    /// them unless this is true.
    #[serde(default)]
    generate_after_logits: bool,
    /// Whether each callback is sent as a notification `rkllm.result`. Absent: only in an event
    /// stream. Tensors are in a notification or in the result, not in both.
    #[serde(default)]
    stream: Option<bool>,
}

impl Method for Run {
    const NAME: &'static str = "rkllm.run";
    const SUMMARY: &'static str = "Runs the model and answers when it has ended.";
    const ERRORS: &'static [ErrorKind] = RUN_ERRORS;
    type Params = RunParams;
    type Result = RunResult;

    fn size(result: &RunResult) -> usize {
        result.size()
    }

    async fn call(scope: Scope<'_>, params: RunParams) -> Result<RunResult, RpcError> {
        let session = scope.session;
        session.runs_a_model();
        let notifications = match params.stream.unwrap_or(session.streams_by_default()) {
            true => Some(session.notifications()?),
            false => None,
        };
        let handle = session.handle(&params.handle)?;
        let form = params.tensors;
        let started = handle.run(params.into_request(), session.tensors()).await;
        let (permit, stream) = started.map_err(|error| failure::of(error, &session.caller))?;
        let run = session.rpc.run_number();
        let run_of = run_of(session, handle.model(), Self::NAME);
        let mut running = Running::new(stream, &session.rpc, &session.caller, run_of);
        let mut taker = Taker {
            handle: handle.name(),
            run,
            form,
            notifications,
            collected: Some(Collected {
                result: RunResult::new(run, session.rpc.settings.result_limit_bytes),
                charge: scope.charge,
            }),
        };
        let return_code = running.hand_to(&mut taker).await?;
        let mut result = taker.collected.map(|it| it.result).unwrap_or_default();
        result.return_code = return_code;
        result.handle_reset = running.reset.take().map(Into::into);
        scope.afterwards.push(Box::pin(async move { drop(permit) }));
        Ok(result)
    }
}

pub(crate) struct RunAsync;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunAsyncParams {
    /// From `rkllm.init`.
    handle: String,
    rkllm_input: Inputs,
    #[serde(default)]
    rkllm_infer_params: Option<InferParam>,
    /// Rows of hidden states and logits that are sent.
    #[serde(default)]
    rows: RowSelection,
    /// How tensors are written.
    #[serde(default)]
    tensors: TensorForm,
    /// As with `rkllm.run`.
    #[serde(default)]
    generate_after_logits: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RunStarted {
    return_code: i32,
    /// Names the run in its notifications.
    run: u64,
}

impl Method for RunAsync {
    const NAME: &'static str = "rkllm.run_async";
    const SUMMARY: &'static str = "Answers at once. Each callback then comes as a notification \
        rkllm.result, and last rkllm.ended.";
    const ERRORS: &'static [ErrorKind] = RUN_ERRORS;
    type Params = RunAsyncParams;
    type Result = RunStarted;

    async fn call(scope: Scope<'_>, params: RunAsyncParams) -> Result<RunStarted, RpcError> {
        let session = scope.session;
        session.runs_a_model();
        let notifications = session.notifications()?;
        session.one_more_in_background()?;
        let held = session.hold(scope.bytes);
        let charge = session.account.charge(VALUE_TIMES * scope.bytes);
        let charge = charge.map_err(RpcError::of_budget)?;
        let handle = session.handle(&params.handle)?;
        let form = params.tensors;
        let request = request(
            params.rkllm_input,
            params.rkllm_infer_params,
            params.rows,
            params.generate_after_logits,
        );
        // It is on its way to the handle, or has its place behind a run, before it is answered.
        let mut starting = Box::pin(handle.run(request, session.tensors()));
        let caller = session.caller.clone();
        let started = match (&mut starting).now_or_never() {
            Some(started) => Some(started.map_err(|error| failure::of(error, &caller))?),
            None => None,
        };
        let run = session.rpc.run_number();
        let rpc = Arc::clone(&session.rpc);
        let run_of = run_of(session, handle.model(), Self::NAME);
        scope.afterwards.push(Box::pin(async move {
            let started = match started {
                Some(started) => Ok(started),
                None => starting.await.map_err(|error| failure::of(error, &caller)),
            };
            let mut ended = EndedNotification {
                handle: handle.name(),
                run,
                return_code: None,
                handle_reset: None,
                error: None,
            };
            let (result, permit) = match started {
                Err(error) => (Err(error), None),
                Ok((permit, stream)) => {
                    let mut taker = Taker {
                        handle: handle.name(),
                        run,
                        form,
                        notifications: Some(notifications.clone()),
                        collected: None,
                    };
                    // A run that failed here is aborted now, not when its reader has read why.
                    let mut running = Running::new(stream, &rpc, &caller, run_of);
                    let result = running.hand_to(&mut taker).await;
                    ended.handle_reset = running.reset.take().map(Into::into);
                    (result, permit)
                }
            };
            match result {
                Ok(code) => ended.return_code = Some(code),
                Err(error) => ended.error = Some(error),
            }
            drop((held, charge));
            notifications.send_last("rkllm.ended", &ended).await;
            drop(permit);
        }));
        Ok(RunStarted {
            return_code: 0,
            run,
        })
    }
}

impl RunParams {
    fn into_request(self) -> RunRequest {
        request(
            self.rkllm_input,
            self.rkllm_infer_params,
            self.rows,
            self.generate_after_logits,
        )
    }
}

fn request(
    inputs: Inputs,
    infer: Option<InferParam>,
    rows: RowSelection,
    generate_after_logits: bool,
) -> RunRequest {
    RunRequest {
        inputs: inputs.0,
        infer: infer.unwrap_or_default(),
        rows,
        generate_after_logits,
    }
}

/// How administrators see a run, or a load.
pub(super) fn run_of(session: &Session, model: &ModelId, method: &'static str) -> RunOf {
    RunOf {
        id: id::for_run(),
        key: session.caller.key().map(|key| key.name.to_string()),
        client: session.account.client().name().to_owned(),
        method,
        model: ModelId::clone(model),
    }
}

/// A run in progress. Dropping it aborts the run.
struct Running {
    stream: RunStream,
    /// Who is told why it failed.
    caller: Caller,
    reset: Option<HandleReset>,
    cut_off: CutOff,
    counted: CountedRun,
    live: Arc<LiveRun>,
}

enum Step {
    Callback(CallbackResult),
    Ended { code: i32 },
}

impl Running {
    fn new(stream: RunStream, rpc: &Rpc, caller: &Caller, run_of: RunOf) -> Self {
        let metrics = rpc.engine.metrics();
        Self {
            stream,
            caller: caller.clone(),
            reset: None,
            cut_off: rpc.cut_off(),
            counted: CountedRun::new(metrics, &run_of.model, run_of.method),
            live: LiveRun::begin(run_of, &rpc.live, metrics.changes()),
        }
    }

    async fn next(&mut self) -> Result<Step, RpcError> {
        while !self.cut_off.is_due() {
            let event = tokio::select! {
                // A stream that always has the next event is asked about the time above.
                biased;
                event = self.stream.next() => event,
                () = self.cut_off.wait() => break,
            };
            let Some(event) = event else {
                return Err(RpcError::new(
                    ErrorKind::HandleClosed,
                    "the handle was closed during the run",
                ));
            };
            match event {
                RunEvent::Started { handle_reset } => {
                    self.live.runs();
                    self.reset = handle_reset;
                }
                RunEvent::Result(callback) => return Ok(Step::Callback(callback)),
                RunEvent::Ended { code, .. } => return Ok(Step::Ended { code }),
                RunEvent::Failed(error) => return Err(failure::of(error, &self.caller)),
            }
        }
        Err(RpcError::new(
            ErrorKind::ShuttingDown,
            "the daemon is shutting down, so the run was aborted",
        ))
    }

    /// Hands over each callback until the run ends or is aborted; gives what `rkllm_run` returned.
    async fn hand_to(&mut self, taker: &mut Taker<'_>) -> Result<i32, RpcError> {
        let live = Arc::clone(&self.live);
        let ended = tokio::select! {
            // Also while its client does not read.
            biased;
            () = live.abort.wanted() => Err(RpcError::new(
                ErrorKind::AbortedByAdministrator,
                "an administrator has ended the run",
            )),
            ended = self.hand_all_to(taker) => ended,
        };
        self.counted.ended(&ended);
        if !ended.as_ref().is_err_and(RpcError::is_cancelled) {
            self.live.ended(ended.as_ref().err().map(RpcError::name));
        }
        ended
    }

    async fn hand_all_to(&mut self, taker: &mut Taker<'_>) -> Result<i32, RpcError> {
        loop {
            match self.next().await? {
                Step::Callback(callback) => {
                    self.counted.add(&callback);
                    taker.take(callback).await?;
                }
                Step::Ended { code } => return Ok(code),
            }
        }
    }
}
