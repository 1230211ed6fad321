//! Hidden states for embeddings, and logits for judgements: runs on the model's ordinary worker, between
//! those of HTTP requests and under the same placement. Only one row an input leaves the worker.

use std::pin::Pin;

use super::actor::next_run;
use super::result_sink::Results;
use crate::generation::{Adapter, Deadline, GenerationError};
use crate::ipc::{RawRunSpec, SlotCommand, SlotEvent};
use crate::library_calls::{
    CallFailure, InferMode, InferParam, Input, LibraryError, LoraParam, Pooling, RowSelection,
    Tensor, WantedRow,
};
use crate::supervisor::adapters;
use crate::supervisor::drive::{
    Ended, FromClient, Limits, Loss, Outer, Sink, Step, Stop, Took, drive, not_sent,
};
use crate::supervisor::lease::{Lease, Running, WorkerAfter};
use crate::supervisor::link::{Arrived, TENSOR_CREDIT};
use crate::supervisor::worker::Worker;
use crate::supervisor::{Supervisor, Total, runtime_lines};
use tokio::sync::watch;

/// An input whose row is wanted.
#[derive(Debug)]
pub struct RowRequest<'a> {
    pub input: &'a Input,
    /// `None`: the model as it is.
    pub adapter: Option<&'a Adapter>,
    pub wanted: WantedRow,
    pub total: Option<Total>,
    /// Becomes true when the daemon stops waiting for running answers.
    pub cut_off: &'a mut watch::Receiver<bool>,
}

/// An input's row.
#[derive(Debug)]
pub struct Row {
    /// Tokens that the library evaluated for it.
    pub num_tokens: usize,
    pub values: Vec<f32>,
}

/// What came of one input on one worker.
#[derive(Debug)]
pub enum RowEnd {
    /// The library's answer; `None`: it gave none of what is wanted. The lease, if there is one, may be
    /// used for another input.
    Answered(Result<Option<Row>, LibraryError>, Option<Lease>),
    /// The library refused it beside others, so that its reason is not known.
    RefusedInCompany(LibraryError, Option<Lease>),
    /// The worker cannot do it with that adapter.
    Unserved(GenerationError, Lease),
    /// It was not waited for any longer.
    OutOfTime(GenerationError),
    /// Its client has stopped waiting for it.
    Abandoned,
    /// The worker is gone.
    Lost(LostRow),
}

/// A worker lost over a row.
#[derive(Debug)]
pub struct LostRow(Loss);

impl LostRow {
    /// Whether it, and nothing else, may be to blame.
    pub fn is_own_fault(&self) -> bool {
        self.0.is_own_fault()
    }

    pub fn death(&self) -> super::super::Death {
        self.0.death()
    }

    pub fn into_error(self) -> LibraryError {
        self.0.into_library_error(CALL)
    }
}

const CALL: &str = "rkllm_run";

struct RowSink<'a, F> {
    run: u64,
    results: Results,
    wanted: WantedRow,
    found: Option<Tensor>,
    gone: Pin<&'a mut F>,
}

impl<F: Future<Output = ()> + Send> Sink for RowSink<'_, F> {
    type End = Result<(), CallFailure>;

    fn call(&self) -> &'static str {
        CALL
    }

    fn run(&self) -> Option<u64> {
        Some(self.run)
    }

    async fn take(
        &mut self,
        arrived: Arrived,
        worker: &Worker,
        _stop: Option<&Stop>,
    ) -> Result<Took<Self::End>, String> {
        Ok(Took::Step(match arrived.event {
            SlotEvent::RawResult {
                run,
                state,
                results,
            } => {
                let read = self.results.read(worker, state, (results, arrived.files))?;
                let (result, progress) = match read {
                    Ok(read) => read,
                    Err(step) => return Ok(Took::Step(step)),
                };
                if run != self.run {
                    return Ok(Took::Step(Step::Same));
                }
                let first = result.results.into_iter().next();
                let tensor = first.and_then(|slot| match self.wanted {
                    WantedRow::HiddenState(_) => slot.last_hidden_layer,
                    WantedRow::Logits(_) => slot.logits,
                });
                // Logits of what it generates before it is ended are not those of the input.
                if self.found.is_none() || matches!(self.wanted, WantedRow::HiddenState(_)) {
                    self.found = tensor.or(self.found.take());
                }
                progress.step()
            }
            SlotEvent::RawEnded {
                run,
                result: end,
                tainted,
                ..
            } if run == self.run => return Ok(Took::Over { end, tainted }),
            SlotEvent::Called { .. } => Step::Same,
            other => return Ok(Took::Unexpected(other)),
        }))
    }

    async fn client(&mut self, is_stopped: bool) -> FromClient {
        if is_stopped {
            return std::future::pending().await;
        }
        self.gone.as_mut().await;
        FromClient::Stop(Stop::Cancelled)
    }
}

/// One input's row on a leased worker. The run is aborted when `gone` ends.
pub async fn pooled_row(
    supervisor: &Supervisor,
    lease: Lease,
    request: RowRequest<'_>,
    gone: impl Future<Output = ()> + Send,
) -> RowEnd {
    tokio::pin!(gone);
    let services = &supervisor.handles;
    let (input, worker) = (request.input, lease.worker());
    if let Err(error) = adapters::check(worker, request.adapter) {
        return RowEnd::Unserved(error, lease);
    }
    let deadlines = worker.deadlines;
    let per_token = worker.prefill_per_token();
    let spec = RawRunSpec {
        run: next_run(),
        inputs: vec![input.clone()],
        infer: InferParam {
            mode: match request.wanted {
                WantedRow::HiddenState(_) => InferMode::GetLastHiddenLayer,
                WantedRow::Logits(_) => InferMode::GetLogits,
            },
            lora_params: request.adapter.map(|adapter| LoraParam {
                lora_adapter_name: adapter.name.to_string(),
            }),
            ..InferParam::default()
        },
        rows: match request.wanted {
            WantedRow::HiddenState(Pooling::Mean) => RowSelection::Mean,
            WantedRow::HiddenState(Pooling::Last) | WantedRow::Logits(_) => RowSelection::Last,
        },
        generate_after_logits: false,
        // Only rows that are not in the cache would be computed.
        clear_kv_cache: true,
        prefill_per_token: per_token,
        tensor_limit_bytes: services.tensor_limit_bytes,
        credit: TENSOR_CREDIT,
    };
    // The worker, which knows what else goes on, speaks first.
    let per_token = per_token.saturating_mul(worker.slots().into());
    let prefill = deadlines
        .worker
        .prefill(per_token, input.weight_bytes(), None);
    let mut sink = RowSink {
        run: spec.run,
        results: Results {
            tensor_limit_bytes: services.tensor_limit_bytes,
            // One row, which is read at once.
            tensors: None,
            awaits_tensor: true,
        },
        wanted: request.wanted,
        found: None,
        gone,
    };
    let limits = Limits {
        first: (Deadline::Prefill, prefill),
        outer: Outer {
            total: request.total,
            cut_off: Some(request.cut_off),
        },
        request: None,
        metrics: &services.metrics,
    };
    let command = SlotCommand::RawRun(Box::new(spec));
    let mut over = match drive(lease, command, &mut sink, limits).await {
        Ended::Over(over) => over,
        Ended::NotSent(running, error) => {
            let lease = running.ended(WorkerAfter::Unproven);
            return RowEnd::Answered(Err(not_sent(error, CALL)), lease);
        }
        Ended::Lost(lost) => {
            return match lost.stop {
                None => RowEnd::Lost(LostRow(lost.loss)),
                Some(stop) => stopped(stop),
            };
        }
    };
    let result = match std::mem::replace(&mut over.end, Ok(())) {
        Ok(()) => match sink.found {
            Some(tensor) => row(&tensor, request.wanted),
            None => Ok(None),
        },
        Err(failure) => Err(explained(&over.running, failure).await),
    };
    let after = over.after(result.is_ok());
    let was_alone = over.running.was_alone();
    let lease = over.running.ended(after);
    match (over.stop, result) {
        (Some(stop), _) => stopped(stop),
        (None, Err(error)) if !was_alone => RowEnd::RefusedInCompany(error, lease),
        (None, result) => RowEnd::Answered(result, lease),
    }
}

/// `None`: a token is not in the library's vocabulary.
fn row(tensor: &Tensor, wanted: WantedRow) -> Result<Option<Row>, LibraryError> {
    let read = |first: usize, count: usize| {
        let mut values = vec![0.0; count];
        let read = tensor.values.read(first, &mut values).map(|()| values);
        read.map_err(|error| LibraryError::Internal(error.to_string()))
    };
    let values = match wanted {
        WantedRow::HiddenState(_) => read(0, tensor.values.len())?,
        WantedRow::Logits(tokens) => {
            let mut values = Vec::with_capacity(tokens.len());
            for token in tokens {
                let column = usize::try_from(token).ok();
                let Some(column) = column.filter(|column| *column < tensor.shape[1]) else {
                    return Ok(None);
                };
                values.extend(read(column, 1)?);
            }
            values
        }
    };
    Ok(Some(Row {
        num_tokens: tensor.num_tokens,
        values,
    }))
}

fn stopped(stop: Stop) -> RowEnd {
    match stop {
        Stop::Failed(error) => RowEnd::OutOfTime(error),
        Stop::Cancelled | Stop::Aborted | Stop::Complete | Stop::ThoughtUsedUp => RowEnd::Abandoned,
    }
}

/// The runtime's own words are not told: they may hold a user's text.
async fn explained(running: &Running, failure: CallFailure) -> LibraryError {
    let lines = running.own_lines().await;
    match runtime_lines::prompt_too_long(&lines) {
        Some(long) => GenerationError::ContextLengthExceeded {
            prompt_tokens: long.prompt_tokens,
            limit_tokens: long.limit_tokens,
        }
        .into(),
        None => failure.into_error(None),
    }
}
