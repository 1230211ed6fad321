//! The library's calls. Each takes the slot's lease and gives it back, unless its worker is of no more use.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::keeping::{begin, give_up, keep};
use super::sinks::{CallSink, SaveSink};
use super::{Loaded, Swap};
use crate::generation::{Deadline, DrawRequest, SamplingRequest};
use crate::ipc::{CallSpec, RunEnd, RunOutcome, RunSpec, SavePrefix, SlotCommand};
use crate::library_calls::{Call, CallFailure};
use crate::supervisor::drive::{Ended, Limits, Outer, Over, drive};
use crate::supervisor::lease::{Lease, WorkerAfter};
use crate::supervisor::link::TOKEN_CREDIT;
use crate::supervisor::loading::GUARD_SLACK;
use crate::supervisor::prefixes::Inner;
use crate::supervisor::prefixes::state::{LoadOrder, SaveOrder};
use crate::supervisor::text_sink::Prefill;

/// A save whose run evaluates more than this part of its tokens delays the request that waits for its slot by
/// about what it may spare another.
const MOST_EVALUATED_PART: u32 = 2;
/// Calls here have numbers of their own.
static NEXT_CALL: AtomicU64 = AtomicU64::new(1 << 62);

impl Swap<'_> {
    pub(super) async fn save(
        &mut self,
        prefixes: &Arc<Inner>,
        lease: Lease,
        order: SaveOrder,
    ) -> Option<Lease> {
        let run = prefixes.next_run();
        let place = match begin(prefixes, &order, run).await {
            Ok(place) => place,
            Err(reason) => {
                prefixes.rest(&reason);
                return Some(lease);
            }
        };
        let started = Instant::now();
        let holder = lease.holder().cloned();
        let limit = self.file_limit(order.assumed_bytes) * 2;
        let over = match self.run(lease, run, &order, (place.path(), limit)).await {
            Ok(over) => over,
            Err(cause) => {
                prefixes.failed(&order.of, "save", &cause, false);
                return None;
            }
        };
        let Over {
            mut running,
            end,
            tainted,
            stop,
        } = over;
        running.link().restore(order.text.clone(), holder);
        let context = running.worker().facts.context_length;
        let after = match tainted {
            true => WorkerAfter::Tainted,
            false => WorkerAfter::Unproven,
        };
        let lease = running.ended(after);
        let evaluated = end.perf.map_or(0, |perf| perf.prefill_tokens);
        match (&end.outcome, stop) {
            // The daemon ends; nothing else stops it, and it is kept to nothing.
            (_, Some(_)) | (RunOutcome::Aborted | RunOutcome::NotKept { .. }, _) => {}
            (RunOutcome::Finished(_), None) if evaluated > order.tokens / MOST_EVALUATED_PART => {
                let reason = "it evaluates what its slot holds again";
                prefixes.failed(&order.of, "save", reason, false);
            }
            (RunOutcome::Finished(_), None) => {
                keep(prefixes, place, order, (started, limit)).await;
            }
            // What has filled its context fits no more: that is not the library's failure.
            (RunOutcome::ContextLengthExceeded { .. }, _) => {}
            (RunOutcome::Refused { .. }, _) if may_fill(order.tokens, context) => {}
            (RunOutcome::Refused { reason } | RunOutcome::Failed { reason }, _) => {
                prefixes.failed(&order.of, "save", reason, false);
            }
        }
        lease
    }

    /// A run of what the slot holds, which makes one token and writes the rest. `Err`: why the worker is gone.
    /// Whatever that was, it is not tried for ever: others may have been on it.
    async fn run(
        &mut self,
        lease: Lease,
        run: u64,
        order: &SaveOrder,
        (path, limit): (PathBuf, Duration),
    ) -> Result<Over<Box<RunEnd>>, String> {
        let worker = lease.worker();
        let spec = RunSpec {
            run,
            prompt: order.text.clone(),
            prompt_tokens: None,
            begun: None,
            sampling: SamplingRequest::default(),
            draws: DrawRequest::default(),
            constraint: None,
            max_new_tokens: Some(1),
            prefill_per_token: worker.prefill_per_token(),
            credit: TOKEN_CREDIT,
            save: Some(SavePrefix { path, limit }),
        };
        let prefill = Prefill::of(&spec, worker.slots()).limit(&worker.deadlines, None);
        let limits = Limits {
            first: (Deadline::Prefill, prefill.saturating_add(limit)),
            outer: Outer {
                total: None,
                cut_off: Some(&mut self.cut_off),
            },
            request: None,
            metrics: self.metrics,
        };
        let command = SlotCommand::Run(Box::new(spec));
        match drive(lease, command, &mut SaveSink { run }, limits).await {
            Ended::Over(over) => Ok(over),
            Ended::NotSent(running, error) => {
                running.ended(WorkerAfter::Unproven);
                Err(error.to_string())
            }
            Ended::Lost(lost) => Err(lost.loss.cause.to_string()),
        }
    }

    pub(super) async fn load(
        &mut self,
        prefixes: &Arc<Inner>,
        lease: Lease,
        order: LoadOrder,
    ) -> Option<(Lease, Option<Loaded>)> {
        let Some(mut lease) = self.release(lease).await else {
            prefixes.lock().load_ended(&order, None);
            return None;
        };
        let path = prefixes.folder.cache(order.id).display().to_string();
        let call = Call::LoadPromptCache {
            prompt_cache_path: path,
        };
        let limit = self.file_limit(order.file_bytes);
        lease.is_loaded(true);
        let started = Instant::now();
        let called = self.call(lease, call, (Deadline::Load, limit)).await;
        let took = called
            .as_ref()
            .and_then(|(_, result)| result.is_ok().then(|| started.elapsed()));
        prefixes.lock().load_ended(&order, took);
        let Some((mut lease, result)) = called else {
            give_up(prefixes, &order, "its worker was lost", false);
            return None;
        };
        let Err(failure) = result else {
            prefixes
                .metrics
                .prefix_loaded(&order.of.model, order.file_bytes);
            return Some((lease, Some(Loaded { order })));
        };
        lease.is_loaded(false);
        let for_good = matches!(failure, CallFailure::NotInLibrary { .. });
        give_up(prefixes, &order, &format!("{failure:?}"), for_good);
        // Whatever it has left of the cells.
        let lease = self.empty(lease).await?;
        Some((lease, None))
    }

    /// Frees what a load took beside the cells.
    pub(super) async fn release(&mut self, lease: Lease) -> Option<Lease> {
        if !lease.has_loaded() {
            return Some(lease);
        }
        let (held, holder) = (lease.holds().to_owned(), lease.holder().cloned());
        let limit = lease.worker().deadlines.worker.control_call;
        let deadline = (Deadline::ControlCall, limit);
        let (mut lease, _) = self.call(lease, Call::ReleasePromptCache, deadline).await?;
        // Where it failed nothing was there to be released.
        lease.is_loaded(false);
        lease.restore(held, holder);
        Some(lease)
    }

    pub(super) async fn call(
        &mut self,
        lease: Lease,
        call: Call,
        (deadline, limit): (Deadline, Duration),
    ) -> Option<(Lease, Result<(), CallFailure>)> {
        let id = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
        let mut sink = CallSink {
            id,
            function: call.function(),
        };
        let limits = Limits {
            first: (deadline, limit + GUARD_SLACK),
            outer: Outer::default(),
            request: None,
            metrics: self.metrics,
        };
        let command = SlotCommand::LibraryCall(Box::new(CallSpec {
            id,
            call,
            deadline,
            limit,
        }));
        match drive(lease, command, &mut sink, limits).await {
            Ended::Over(over) => {
                let after = over.after(false);
                let result = over.end.map(drop);
                Some((over.running.ended(after)?, result))
            }
            Ended::NotSent(running, _) => {
                running.ended(WorkerAfter::Unproven);
                None
            }
            Ended::Lost(_) => None,
        }
    }

    /// How long reading or writing so many bytes may take.
    fn file_limit(&self, bytes: u64) -> Duration {
        self.supervisor.load_deadline(bytes)
    }
}

/// Whether so many tokens, of which no tokenizer has told, may be as many as a context has room for.
fn may_fill(tokens: u32, context: Option<u32>) -> bool {
    context.is_none_or(|context| tokens.saturating_mul(2) >= context)
}
