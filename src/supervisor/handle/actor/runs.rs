//! A handle's runs: handed to a worker, handed to the next one if the first is lost before it gave a
//! result.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Actor, MOST_LIVES, Made, POISON_FAULTS, Stop, Wanted, explained, next_run, no_worker};
use crate::ipc::{Command, RawRunSpec};
use crate::library_calls::{InferMode, LibraryError, RunRequest, weight_bytes};
use crate::supervisor::event_loop::Turn;
use crate::supervisor::handle::RunEvent;
use crate::supervisor::handle::exchange::{
    Done, End, Exchange, Lost, Reader, Stopped, slow_reader,
};
use crate::supervisor::lease::{Lease, WorkerAfter};

impl Actor {
    pub(super) async fn serve_run(
        &mut self,
        mut request: RunRequest,
        events: &mpsc::Sender<RunEvent>,
        started: &mut Option<()>,
    ) -> Result<(), LibraryError> {
        check(&request)?;
        if let Some(cache) = &mut request.infer.prompt_cache_params {
            let (folder, limit) = (self.folder(), self.services.prompt_caches_limit_bytes);
            cache.prompt_cache_path = match cache.save_prompt_cache {
                0 => folder.prompt_cache(&cache.prompt_cache_path)?,
                _ => folder.new_prompt_cache(&cache.prompt_cache_path, limit)?,
            };
        }
        let (mut lives, mut faults) = (0, 0);
        let mut turn = Turn::Last;
        loop {
            let mut lease = match self.obtain(turn, Wanted::Run(events)).await {
                Ok(lease) => lease,
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Unwanted) if self.state.closing.is_closing => {
                    return Err(LibraryError::Closed);
                }
                Err(Stop::Unwanted) => return Ok(()),
            };
            let lost = match self.run_on(&mut lease, &request, events, started).await {
                Ok(result) => return result,
                Err(lost) => lost,
            };
            lease.blame(lost.reason);
            drop(lease);
            lives += 1;
            faults += u32::from(lost.is_fault);
            let may_repeat = started.is_some()
                && matches!(lost.error, LibraryError::WorkerDied { .. })
                && faults < POISON_FAULTS
                && lives < MOST_LIVES;
            let is_unwanted = self.state.closing.is_closing || self.state.closing.is_aborted;
            if !may_repeat || is_unwanted || events.is_closed() {
                return Err(lost.error);
            }
            self.services.metrics.run_repeated(&self.order.model);
            tracing::warn!(model = &*self.order.model, cause = %lost.error, "running a handle's run again");
            turn = Turn::First;
        }
    }

    /// Runs on this worker. `Err`: it is lost.
    async fn run_on(
        &mut self,
        lease: &mut Lease,
        request: &RunRequest,
        events: &mpsc::Sender<RunEvent>,
        started: &mut Option<()>,
    ) -> Result<Result<(), LibraryError>, Lost> {
        if let Err(error) = self.adopt(lease).await? {
            lease.run_ended(WorkerAfter::Tainted);
            return Ok(Err(error));
        }
        if self.state.closing.is_aborted {
            // While what was replayed for it was going on.
            lease.run_ended(WorkerAfter::Unproven);
            return Ok(Ok(()));
        }
        let Some(worker) = lease.begin_run() else {
            return Ok(Err(no_worker()));
        };
        worker.process.set_activity(Some("rkllm_run"), None);
        let services = Arc::clone(&self.services);
        let deadlines = worker.deadlines;
        // History that must be evaluated again is in no input, so the setting is the least.
        let setting = deadlines.worker.prefill_per_token;
        let per_token = worker.measured.prefill_per_token(setting).max(setting);
        let spec = RawRunSpec {
            run: next_run(),
            inputs: request.inputs.clone(),
            infer: request.infer.clone(),
            rows: request.rows,
            generate_after_logits: request.generate_after_logits,
            clear_kv_cache: false,
            prefill_per_token: per_token,
            tensor_limit_bytes: services.tensor_limit_bytes,
        };
        let weight = weight_bytes(&spec.inputs);
        let prefill = deadlines.worker.prefill(per_token, weight, None);
        let mut first = Some(RunEvent::Started {
            handle_reset: self.state.reset.clone(),
        });
        let keeps_history = request.infer.keep_history != 0;
        let reader = Reader {
            run: spec.run,
            events,
            started: &mut first,
            tensor_limit_bytes: services.tensor_limit_bytes,
            awaits_tensor: request.infer.mode == InferMode::GetLastHiddenLayer,
            is_told: false,
        };
        let mut exchange = Exchange::new(
            "rkllm_run",
            (&deadlines, &services.metrics),
            (&mut self.urgent, &mut self.state.closing),
            Some(reader),
        );
        let command = Command::RawRun(Box::new(spec));
        let end = exchange
            .perform(worker, command, ("prefill", prefill))
            .await;
        let stopped = exchange.stopped;
        if exchange.reader.is_some_and(|reader| reader.is_told) {
            self.state.reset = None;
        }
        if first.is_none() {
            *started = None;
            self.state.journal.ran(keeps_history);
        }
        let (done, tainted) = match end {
            End::Lost(lost) => return Err(lost),
            End::Done { done, tainted } => (done, tainted),
        };
        let result = match done {
            Done::RunEnded(Ok(())) => {
                self.state.journal.ran(keeps_history);
                Ok(())
            }
            Done::RunEnded(Err(failure)) | Done::Called(Err(failure)) => {
                Err(explained(worker, failure).await)
            }
            Done::Called(Ok(other)) => Err(LibraryError::Internal(format!(
                "the worker answered something else: {other:?}"
            ))),
        };
        let made = Made { result, tainted };
        lease.run_ended(made.after());
        Ok(match stopped {
            Some(Stopped::SlowReader) => Err(slow_reader(deadlines.slow_reader)),
            Some(Stopped::Cancelled) => Err(LibraryError::Closed),
            Some(Stopped::Aborted) | None => made.result,
        })
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
