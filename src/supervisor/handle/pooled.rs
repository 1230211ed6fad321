//! Hidden states for embeddings: runs on the model's ordinary worker, between those of HTTP requests
//! and under the same placement. Only one row an input leaves the worker.

use tokio::sync::{mpsc, oneshot};

use super::RunEvent;
use super::actor::next_run;
use super::exchange::{Closing, Done, End, Exchange, Reader};
use crate::generation::{GenerationError, ModelId};
use crate::ipc::{Command, RawRunSpec};
use crate::library_calls::{
    InferMode, InferParam, Input, LibraryError, PooledRows, Pooling, RowSelection, Tensor,
};
use crate::supervisor::event_loop::Turn;
use crate::supervisor::lease::{Lease, WorkerAfter};
use crate::supervisor::{Supervisor, runtime_lines};

/// Workers that one request may lose.
const MOST_FAULTS: u32 = 2;
/// Results of a run that wait for us; more than a run for hidden states gives.
const RESULTS: usize = 64;

pub(in crate::supervisor) async fn pooled_hidden_states(
    supervisor: &Supervisor,
    model: ModelId,
    inputs: Vec<Input>,
    pooling: Pooling,
) -> Result<PooledRows, LibraryError> {
    let (mut reply, answer) = oneshot::channel();
    let supervisor = supervisor.clone();
    // A task of its own, so that who gives up waiting aborts a run and does not kill a worker.
    tokio::spawn(async move {
        let rows = all(&supervisor, &model, &inputs, pooling, &mut reply).await;
        let _ = reply.send(rows);
    });
    let gone = |_| LibraryError::Internal("the task of a run has ended".to_owned());
    answer.await.map_err(gone)?
}

type Reply = oneshot::Sender<Result<PooledRows, LibraryError>>;

async fn all(
    supervisor: &Supervisor,
    model: &ModelId,
    inputs: &[Input],
    pooling: Pooling,
    reply: &mut Reply,
) -> Result<PooledRows, LibraryError> {
    inputs
        .iter()
        .try_for_each(|input| input.payload().map(|_| ()))?;
    let mut pooled = PooledRows {
        rows: Vec::with_capacity(inputs.len()),
        prompt_tokens: Some(0),
    };
    let mut turn = Turn::Last;
    let mut faults = 0;
    while let Some(input) = inputs.get(pooled.rows.len()) {
        // One lease an input: others get their turn between two of them.
        let lease = supervisor.lease(model.clone(), turn);
        let limit = supervisor.handles.queue_deadline();
        let lease = tokio::select! {
            lease = tokio::time::timeout(limit, lease) => lease,
            () = reply.closed() => return Err(LibraryError::Closed),
        };
        let mut lease = match lease {
            Ok(lease) => lease?,
            Err(_) => {
                let (model, waited) = (model.to_string(), limit);
                return Err(GenerationError::QueueDeadline { model, waited }.into());
            }
        };
        match pooled_row(supervisor, &mut lease, input, pooling, reply.closed()).await {
            Ok(Some(tensor)) => {
                let tokens = u32::try_from(tensor.num_tokens).ok();
                pooled.prompt_tokens = pooled
                    .prompt_tokens
                    .zip(tokens)
                    .and_then(|(sum, tokens)| sum.checked_add(tokens));
                pooled.rows.push(tensor.data);
                turn = Turn::Last;
            }
            Ok(None) => {
                let reason = "the library gave no hidden states".to_owned();
                return Err(LibraryError::Internal(reason));
            }
            Err(RowFailure::Answered(error)) => return Err(error),
            Err(RowFailure::WorkerLost { error, .. }) => {
                drop(lease);
                faults += 1;
                if faults >= MOST_FAULTS {
                    return Err(error);
                }
                supervisor.handles.metrics.run_repeated(model);
                turn = Turn::First;
            }
        }
    }
    Ok(pooled)
}

/// Why there is no row.
#[derive(Debug)]
pub enum RowFailure {
    Answered(LibraryError),
    /// The lease, when dropped, ends the worker.
    WorkerLost {
        error: LibraryError,
        /// Whether the input may be to blame.
        is_fault: bool,
    },
}

/// One input's row on a leased worker; `None`: the library gave no hidden states. The run is aborted
/// when `stop` ends. The lease can be used for another input while it `may_go_on`.
pub async fn pooled_row(
    supervisor: &Supervisor,
    lease: &mut Lease,
    input: &Input,
    pooling: Pooling,
    stop: impl Future<Output = ()>,
) -> Result<Option<Tensor>, RowFailure> {
    tokio::pin!(stop);
    let services = &supervisor.handles;
    let Some(worker) = lease.begin_run() else {
        let error = LibraryError::Internal("a lease without a worker".to_owned());
        return Err(RowFailure::Answered(error));
    };
    worker.process.set_activity(Some("rkllm_run"), None);
    let deadlines = worker.deadlines;
    let setting = deadlines.worker.prefill_per_token;
    let per_token = worker.measured.prefill_per_token(setting);
    let spec = RawRunSpec {
        run: next_run(),
        inputs: vec![input.clone()],
        infer: InferParam {
            mode: InferMode::GetLastHiddenLayer,
            ..InferParam::default()
        },
        rows: match pooling {
            Pooling::Last => RowSelection::Last,
            Pooling::Mean => RowSelection::Mean,
        },
        generate_after_logits: false,
        // Only rows that are not in the cache would be computed.
        clear_kv_cache: true,
        prefill_per_token: per_token,
        tensor_limit_bytes: services.tensor_limit_bytes,
    };
    let limit = deadlines
        .worker
        .prefill(per_token, input.weight_bytes(), None);
    let (events, mut results) = mpsc::channel(RESULTS);
    let (_nobody_asks, mut urgent) = mpsc::channel(1);
    let mut closing = Closing::default();
    let mut started = None;
    let reader = Reader {
        run: spec.run,
        events: &events,
        started: &mut started,
        tensor_limit_bytes: services.tensor_limit_bytes,
        awaits_tensor: true,
        is_told: false,
    };
    let mut exchange = Exchange::new(
        "rkllm_run",
        (&deadlines, &services.metrics),
        (&mut urgent, &mut closing),
        Some(reader),
    );
    let command = Command::RawRun(Box::new(spec));
    let mut found = None;
    let mut take = |event| {
        if let RunEvent::Result(result) = event {
            let first = result.results.into_iter().next();
            if let Some(tensor) = first.and_then(|slot| slot.last_hidden_layer) {
                found = Some(tensor);
            }
        }
    };
    let end = {
        let exchanged = exchange.perform(worker, command, ("prefill", limit));
        tokio::pin!(exchanged);
        loop {
            tokio::select! {
                end = &mut exchanged => break end,
                Some(event) = results.recv() => take(event),
                // The exchange sees it and aborts the run.
                () = &mut stop, if !results.is_closed() => results.close(),
            }
        }
    };
    while let Ok(event) = results.try_recv() {
        take(event);
    }
    let (done, tainted) = match end {
        End::Lost(lost) => {
            lease.blame(lost.reason);
            return Err(RowFailure::WorkerLost {
                error: lost.error,
                is_fault: lost.is_fault,
            });
        }
        End::Done { done, tainted } => (done, tainted),
    };
    let failure = match done {
        Done::RunEnded(Ok(())) => None,
        Done::RunEnded(Err(failure)) | Done::Called(Err(failure)) => Some(failure),
        Done::Called(Ok(other)) => {
            tracing::warn!(?other, "the worker answered something else");
            None
        }
    };
    let result = match failure {
        None => Ok(found),
        Some(failure) => {
            let lines = worker.lines.take().await;
            let reason = match runtime_lines::prompt_too_long(&lines) {
                Some(long) => {
                    lease.run_ended(WorkerAfter::Unproven);
                    return Err(RowFailure::Answered(
                        GenerationError::ContextLengthExceeded {
                            prompt_tokens: long.prompt_tokens,
                            limit_tokens: long.limit_tokens,
                        }
                        .into(),
                    ));
                }
                // It may hold a user's text.
                None => None,
            };
            Err(failure.into_error(reason))
        }
    };
    lease.run_ended(match (tainted, &result) {
        (true, _) => WorkerAfter::Tainted,
        (false, Ok(_)) => WorkerAfter::Answered,
        (false, Err(_)) => WorkerAfter::Unproven,
    });
    result.map_err(RowFailure::Answered)
}
