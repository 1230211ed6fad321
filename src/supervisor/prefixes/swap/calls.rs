//! The library's calls. Each takes the slot's lease and gives it back, unless its worker is of no more use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::keeping::{Saving, give_up, ready};
use super::sinks::SaveSink;
use super::{Loaded, Swap};
use crate::generation::{Deadline, DrawRequest, SamplingRequest};
use crate::ipc::{CallSpec, RunEnd, RunOutcome, RunSpec, SavePrefix, SlotCommand};
use crate::library_calls::{Call, CallFailure};
use crate::supervisor::drive::{Ended, Limits, Loss, Outer, Over, OwnCall, drive};
use crate::supervisor::lease::{Lease, WorkerAfter};
use crate::supervisor::link::TOKEN_CREDIT;
use crate::supervisor::loading::GUARD_SLACK;
use crate::supervisor::prefixes::Inner;
use crate::supervisor::prefixes::record::AdapterIdentity;
use crate::supervisor::prefixes::state::{Fault, LoadOrder};
use crate::supervisor::text_sink::Prefill;

/// A save whose run evaluates more than this part of its tokens delays the request that waits for its slot by
/// about what it may spare another.
const MOST_EVALUATED_PART: u32 = 2;
/// Calls here have numbers of their own.
static NEXT_CALL: AtomicU64 = AtomicU64::new(1 << 62);

/// A call or run whose worker is gone: whose fault that is, and how it went.
pub(super) struct Gone {
    pub fault: Fault,
    pub cause: String,
}

impl Gone {
    fn unsent(cause: String) -> Self {
        let fault = Fault::None;
        Self { fault, cause }
    }

    fn lost(loss: &Loss) -> Self {
        Self {
            fault: match (loss.is_own_fault(), loss.is_fault()) {
                (true, _) => Fault::Own,
                (false, true) => Fault::OfOneInCompany,
                (false, false) => Fault::None,
            },
            cause: loss.cause.to_string(),
        }
    }
}

impl Swap<'_> {
    pub(super) async fn save(
        &mut self,
        prefixes: &Arc<Inner>,
        lease: Lease,
        mut saving: Saving,
    ) -> Option<Lease> {
        let bytes = saving.order.assumed_bytes;
        let memory = self.memory_for(prefixes, lease.worker(), bytes).await;
        let Some(_memory) = memory else {
            return Some(lease);
        };
        let run = prefixes.next_run();
        let Some(place) = saving.begin(run, lease.worker()).await else {
            return Some(lease);
        };
        let started = Instant::now();
        // What is saved for all is evaluated for who is to use the slot.
        let is_shared = saving.order.owner.is_shared;
        let holder = match is_shared {
            true => Some(lease.user().clone()),
            false => lease.holder().cloned(),
        };
        let file = lease.worker().deadlines.prefix_file;
        let limit = file.of(saving.order.most_bytes);
        let save = Some(SavePrefix {
            path: place.path(),
            limit,
        });
        let prompt = (saving.order.text.clone(), saving.order.of.adapter.as_ref());
        let over = match self.run(lease, run, prompt, save).await {
            Ok(over) => over,
            Err(gone) => {
                prefixes.failed(&saving.order.of, "save", &gone.cause, gone.fault);
                saving.give_up(place).await;
                return None;
            }
        };
        let after = over.after(false);
        let Over {
            mut running,
            end,
            stop,
            ..
        } = over;
        let order = &saving.order;
        if !is_shared {
            running.link().restore(order.text.clone(), holder);
        } else if matches!(end.outcome, RunOutcome::Finished(_)) {
            running.link().restore(order.text.clone(), holder);
            running.link().set_evaluated(true);
        }
        let context = running.worker().facts.context_length;
        let lease = running.ended(after);
        let evaluated = end.perf.map_or(0, |perf| perf.prefill_tokens);
        let failure = match (&end.outcome, stop) {
            // The daemon ends, its model is to go, or requests do not wait for what is pinned any more; it is kept to
            // nothing.
            (_, Some(_)) | (RunOutcome::Aborted | RunOutcome::NotKept { .. }, _) => None,
            (RunOutcome::Finished(_), None)
                if !is_shared && evaluated > order.tokens / MOST_EVALUATED_PART =>
            {
                Some("it evaluates what its slot holds again")
            }
            (RunOutcome::Finished(_), None) => {
                saving.keep(place, (started, limit)).await;
                return lease;
            }
            // What has filled its context fits no more: that is not the library's failure.
            (RunOutcome::ContextLengthExceeded { .. }, _) => None,
            (RunOutcome::Refused { .. }, _) if may_fill(order.tokens, context) => None,
            (RunOutcome::Refused { reason } | RunOutcome::Failed { reason }, _) => {
                Some(reason.as_str())
            }
        };
        if let Some(reason) = failure {
            prefixes.failed(&order.of, "save", reason, Fault::Own);
        }
        saving.give_up(place).await;
        lease
    }

    /// A run beside no client, which makes one token and writes the rest where it is to save.
    pub(super) async fn run(
        &mut self,
        lease: Lease,
        run: u64,
        (prompt, adapter): (String, Option<&AdapterIdentity>),
        save: Option<SavePrefix>,
    ) -> Result<Over<Box<RunEnd>>, Gone> {
        let worker = lease.worker();
        let limit = save.as_ref().map_or(Duration::ZERO, |save| save.limit);
        let spec = RunSpec {
            run,
            prompt,
            adapter: adapter.map(|it| it.name.as_str().into()),
            prompt_tokens: None,
            begun: None,
            sampling: SamplingRequest::default(),
            draws: DrawRequest::default(),
            constraint: None,
            redraws: None,
            vocabulary: None,
            max_new_tokens: Some(1),
            prefill_per_token: worker.prefill_per_token(),
            credit: TOKEN_CREDIT,
            save,
        };
        let prefill = Prefill::of(&spec, worker.slots()).limit(&worker.deadlines, None);
        let limits = Limits {
            first: (Deadline::PrefixFile, prefill.saturating_add(limit)),
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
                Err(Gone::unsent(error.to_string()))
            }
            Ended::Lost(lost) => Err(Gone::lost(&lost.loss)),
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
        let memory = self.memory_for(prefixes, lease.worker(), order.file_bytes);
        let Some(_memory) = memory.await else {
            prefixes.lock().load_ended(&order, None);
            return Some((lease, None));
        };
        let limit = lease.worker().deadlines.prefix_file.of(order.file_bytes);
        let started = Instant::now();
        // Given for the time of the call.
        let given = ready(prefixes, &order, limit, lease.worker()).await;
        let Some(given) = given else {
            prefixes.lock().load_ended(&order, None);
            return Some((lease, None));
        };
        let call = Call::LoadPromptCache {
            prompt_cache_path: given.path().display().to_string(),
        };
        lease.is_loaded(true);
        lease.set_adapter(order.of.adapter.as_ref().map(|it| it.name.as_str().into()));
        let called = self.call(lease, call, (Deadline::PrefixFile, limit)).await;
        drop(given);
        let took = called
            .as_ref()
            .ok()
            .and_then(|(_, result)| result.is_ok().then(|| started.elapsed()));
        prefixes.lock().load_ended(&order, took);
        let (mut lease, result) = match called {
            Ok(called) => called,
            Err(gone) => {
                give_up(prefixes, &order, &gone.cause, gone.fault);
                return None;
            }
        };
        let Err(failure) = result else {
            prefixes
                .metrics
                .prefix_loaded(&order.of.model, order.file_bytes);
            return Some((lease, Some(Loaded { order })));
        };
        lease.is_loaded(false);
        let fault = match failure {
            CallFailure::NotInLibrary { .. } => Fault::ForGood,
            _ => Fault::Own,
        };
        give_up(prefixes, &order, &format!("{failure:?}"), fault);
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
        let called = self.call(lease, Call::ReleasePromptCache, deadline).await;
        let (mut lease, _) = called.ok()?;
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
    ) -> Result<(Lease, Result<(), CallFailure>), Gone> {
        let id = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
        let mut sink = OwnCall {
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
                let hung = || Gone::unsent("a call beside it hung".to_owned());
                let lease = over.running.ended(after).ok_or_else(hung)?;
                Ok((lease, over.end.ok_or_else(hung)?.map(drop)))
            }
            Ended::NotSent(running, error) => {
                running.ended(WorkerAfter::Unproven);
                Err(Gone::unsent(error.to_string()))
            }
            Ended::Lost(lost) => Err(Gone::lost(&lost.loss)),
        }
    }
}

/// Whether so many tokens, of which no tokenizer has told, may be as many as a context has room for.
fn may_fill(tokens: u32, context: Option<u32>) -> bool {
    context.is_none_or(|context| tokens.saturating_mul(2) >= context)
}
