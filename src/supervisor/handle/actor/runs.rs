//! A handle's runs: handed to a worker, handed to the next one if the first is lost before it gave a
//! result.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Actor, NoLease, Wanted, explained, next_run};
use crate::generation::Deadline;
use crate::ipc::{RawRunSpec, SlotCommand};
use crate::library_calls::{InferMode, LibraryError, RunRequest, weight_bytes};
use crate::memory::Account;
use crate::supervisor::attempts::Attempts;
use crate::supervisor::drive::{self, Ended, Limits, Loss, Outer, drive, not_sent};
use crate::supervisor::event_loop::QueueEnd;
use crate::supervisor::handle::RunEvent;
use crate::supervisor::handle::beside::Beside;
use crate::supervisor::handle::result_sink::{ResultSink, Results};
use crate::supervisor::handle::saved_prompt::SavedPrompt;
use crate::supervisor::lease::{Lease, WorkerAfter};
use crate::supervisor::link::{TENSOR_CREDIT, TOKEN_CREDIT};

impl Actor {
    pub(super) async fn serve_run(
        &mut self,
        (mut request, tensors): (RunRequest, Option<Account>),
        events: &mpsc::Sender<RunEvent>,
        started: &mut Option<()>,
    ) -> Result<(), LibraryError> {
        check(&request)?;
        let saved = self.resolve_prompt_cache(&mut request).await?;
        let result = self
            .run_to_its_end(
                (&request, tensors.as_ref()),
                saved.as_ref(),
                events,
                started,
            )
            .await;
        let Some(saved) = saved.filter(|_| result.is_ok()) else {
            return result;
        };
        let limit = self
            .services
            .load_deadline(self.file_bytes(saved.path()).await);
        let finished = saved.finish(limit).await;
        if self.state.closing.is_aborted || self.state.closing.is_closing || events.is_closed() {
            // A run that was broken off may have had nothing to save yet.
            return result;
        }
        finished
    }

    /// The request with real paths, and where it saves its prompt, if it does.
    async fn resolve_prompt_cache(
        &self,
        request: &mut RunRequest,
    ) -> Result<Option<SavedPrompt>, LibraryError> {
        let Some(cache) = &mut request.infer.prompt_cache_params else {
            return Ok(None);
        };
        let name = std::mem::take(&mut cache.prompt_cache_path);
        if cache.save_prompt_cache == 0 {
            let path = self.in_folder(move |folder| folder.prompt_cache(&name));
            cache.prompt_cache_path = path.await?;
            return Ok(None);
        }
        let (run, limit) = (next_run(), self.services.prompt_caches_limit_bytes);
        let saved = self
            .in_folder(move |folder| folder.new_prompt_cache(&name, run, limit))
            .await?;
        cache.prompt_cache_path = saved.path().display().to_string();
        Ok(Some(saved))
    }

    async fn run_to_its_end(
        &mut self,
        (request, tensors): (&RunRequest, Option<&Account>),
        saved: Option<&SavedPrompt>,
        events: &mpsc::Sender<RunEvent>,
        started: &mut Option<()>,
    ) -> Result<(), LibraryError> {
        let mut attempts = Attempts::default();
        let mut queue_end = QueueEnd::Back;
        loop {
            let lease = match self.obtain(queue_end, Wanted::Run(events)).await {
                Ok(lease) => lease,
                Err(NoLease::Failed(error)) => return Err(error),
                Err(NoLease::Unwanted) if self.state.closing.is_closing => {
                    return Err(LibraryError::Closed);
                }
                Err(NoLease::Unwanted) => return Ok(()),
            };
            let loss = match self
                .run_on(lease, (request, tensors), events, started)
                .await
            {
                Ok(result) => return result,
                Err(loss) => loss,
            };
            let may_repeat = attempts.lost(loss.death()).is_ok() && started.is_some();
            let is_unwanted = self.state.closing.is_closing || self.state.closing.is_aborted;
            if !may_repeat || is_unwanted || events.is_closed() {
                return Err(loss.into_library_error("rkllm_run"));
            }
            if let Some(saved) = saved {
                saved.begin_again().await?;
            }
            self.services.metrics.run_repeated(&self.order.model);
            tracing::warn!(model = &*self.order.model, cause = %loss.cause, "running a handle's run again");
            queue_end = QueueEnd::Front;
        }
    }

    /// Runs on this worker. `Err`: it is lost.
    async fn run_on(
        &mut self,
        lease: Lease,
        (request, tensors): (&RunRequest, Option<&Account>),
        events: &mpsc::Sender<RunEvent>,
        started: &mut Option<()>,
    ) -> Result<Result<(), LibraryError>, Loss> {
        let lease = match self.adopt(lease).await? {
            Ok(lease) => lease,
            Err(error) => return Ok(Err(error)),
        };
        if self.state.closing.is_aborted {
            // While what was replayed for it was going on.
            return Ok(Ok(()));
        }
        let services = Arc::clone(&self.services);
        let worker = lease.worker();
        let deadlines = worker.deadlines;
        // History that must be evaluated again is in no input, so the setting is the least.
        let setting = deadlines.worker.prefill_per_token;
        let per_token = worker.prefill_per_token().max(setting);
        let spec = RawRunSpec {
            run: next_run(),
            inputs: request.inputs.clone(),
            infer: request.infer.clone(),
            rows: request.rows,
            generate_after_logits: request.generate_after_logits,
            clear_kv_cache: false,
            prefill_per_token: per_token,
            tensor_limit_bytes: services.tensor_limit_bytes,
            credit: match request.infer.mode {
                InferMode::Generate => TOKEN_CREDIT,
                InferMode::GetLastHiddenLayer | InferMode::GetLogits => TENSOR_CREDIT,
            },
        };
        let weight = weight_bytes(&spec.inputs);
        let prefill = deadlines.worker.prefill(per_token, weight, None);
        let keeps_history = request.infer.keep_history != 0;
        let mut sink = ResultSink {
            run: spec.run,
            results: Results {
                tensor_limit_bytes: services.tensor_limit_bytes,
                tensors: tensors.cloned(),
                awaits_tensor: request.infer.mode == InferMode::GetLastHiddenLayer,
            },
            beside: Beside::new(&mut self.urgent, &mut self.state.closing, true),
            events,
            started: Some(RunEvent::Started {
                handle_reset: self.state.reset.clone(),
            }),
            is_told: false,
            slow_reader: deadlines.slow_reader,
            waiting: None,
            called_back: None,
        };
        let limits = Limits {
            first: (Deadline::Prefill, prefill),
            outer: Outer::default(),
            request: None,
            metrics: &services.metrics,
        };
        let command = SlotCommand::RawRun(Box::new(spec));
        let ended = drive(lease, command, &mut sink, limits).await;
        let (is_told, has_started) = (sink.is_told, sink.started.is_none());
        let called_back = sink.called_back;
        sink.beside.end(matches!(ended, Ended::Over(_)));
        self.state.called_back = called_back;
        if is_told {
            self.state.reset = None;
        }
        if has_started {
            *started = None;
            self.state.journal.ran(keeps_history);
        }
        let over = match ended {
            Ended::Over(over) => over,
            Ended::NotSent(running, error) => {
                running.ended(WorkerAfter::Unproven);
                return Ok(Err(not_sent(error, "rkllm_run")));
            }
            Ended::Lost(lost) => {
                return match stopped(lost.stop) {
                    Some(error) => Ok(Err(error)),
                    None => Err(lost.loss),
                };
            }
        };
        let after = over.after(over.end.is_ok());
        let result = match over.end {
            Ok(()) => {
                self.state.journal.ran(keeps_history);
                Ok(())
            }
            Err(failure) => Err(explained(&over.running, failure).await),
        };
        over.running.ended(after);
        Ok(stopped(over.stop).map_or(result, Err))
    }
}

/// What a run ends with that was stopped, whatever its worker said or did then. An aborted one is read
/// to its end.
fn stopped(stop: Option<drive::Stop>) -> Option<LibraryError> {
    match stop? {
        drive::Stop::Failed(error) => Some(error.into()),
        drive::Stop::Cancelled => Some(LibraryError::Closed),
        drive::Stop::Aborted | drive::Stop::Complete | drive::Stop::ThoughtUsedUp => None,
    }
}

fn check(request: &RunRequest) -> Result<(), LibraryError> {
    if request.inputs.is_empty() {
        return Err(LibraryError::BadValue {
            what: "inputs".to_owned(),
            reason: "a run needs one for each sequence (n_batch)".to_owned(),
        });
    }
    request
        .inputs
        .iter()
        .try_for_each(|input| input.payload().map(|_| ()))
}
