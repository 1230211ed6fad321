//! The calls on a worker's slot: clearing another tenant's cells, saving what the slot is about to lose,
//! loading what a prompt begins with, and what follows an answer. A worker that is lost in one of them
//! is no request's loss: the caller gets no lease back and takes another worker.

mod calls;
mod keeping;
mod memory;
mod pinning;
mod sinks;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::marks::{Text, mark};
use super::record::{Identity, Owner};
use super::state::{Fault, Held, LoadOrder, Now, Turn};
use super::{Inner, Prefixes, hour_now, identity, state};
use crate::generation::{Adapter, Deadline, GenerationRequest};
use crate::ipc::RunEnd;
use crate::library_calls::Call;
use crate::supervisor::lease::Lease;
use crate::supervisor::worker::Worker;
use crate::supervisor::{RunServices, Supervisor};
use crate::telemetry::Metrics;
use keeping::{Saving, give_up};
pub use pinning::Pinned;

/// A load that has spared less than this part of what it should has spared nothing.
const LEAST_SPARED: u32 = 4;
/// A token of ordinary text has no more.
const MOST_BYTES_PER_TOKEN: usize = 5;

/// What is done for the requests of a model beside their runs.
pub struct Swap<'a> {
    supervisor: &'a Supervisor,
    metrics: &'a Metrics,
    /// Becomes true when what is being done has to end early.
    cut_off: watch::Receiver<bool>,
}

/// What is done before a run.
#[derive(Debug)]
pub struct Plan {
    save: Option<Saving>,
    load: Option<LoadOrder>,
    share: Option<Saving>,
}

/// What a load is expected to spare.
pub struct Loaded {
    order: LoadOrder,
}

impl<'a> Swap<'a> {
    pub fn new(services: &'a RunServices, cut_off: watch::Receiver<bool>) -> Self {
        Self::beside(&services.supervisor, &services.metrics, cut_off)
    }

    /// For no request.
    pub fn beside(
        supervisor: &'a Supervisor,
        metrics: &'a Metrics,
        cut_off: watch::Receiver<bool>,
    ) -> Self {
        Self {
            supervisor,
            metrics,
            cut_off,
        }
    }

    /// Empties a slot that holds what its new user may not find out, or what another adapter has computed.
    /// `None`: the worker is of no more use.
    pub async fn clear(&mut self, lease: Lease, adapter: Option<&Adapter>) -> Option<Lease> {
        // What was loaded is taken into cells by whatever run begins alike, also where they are cleared.
        let lease = self.release(lease).await?;
        match lease.is_to_be_emptied_for(adapter) {
            true => {
                let mut lease = self.empty(lease).await?;
                lease.set_adapter(adapter.map(|adapter| adapter.name.clone()));
                Some(lease)
            }
            false => Some(lease),
        }
    }

    async fn empty(&mut self, lease: Lease) -> Option<Lease> {
        let call = Call::ClearKvCache {
            keep_system_prompt: 0,
            start_pos: None,
            end_pos: None,
        };
        let limit = lease.worker().deadlines.worker.control_call;
        let called = self.call(lease, call, (Deadline::ControlCall, limit)).await;
        let (lease, result) = called.ok()?;
        match result {
            Ok(()) => Some(lease),
            Err(failure) => {
                let pid = lease.worker().process.pid;
                tracing::error!(
                    pid,
                    ?failure,
                    "a slot cannot be cleared; its worker is replaced"
                );
                lease.spoil();
                None
            }
        }
    }

    /// What a slot needs for a request besides being cleared of another tenant's cells; `None`: nothing.
    pub fn plan(&self, lease: &Lease, request: &GenerationRequest) -> Option<Plan> {
        let Prefixes(Some(prefixes)) = self.supervisor.prefixes() else {
            return None;
        };
        let owner = Owner::of(&request.client);
        // Without a tokenizer prompts are counted by the cache, which has to begin empty.
        let can_load = request.prompt_tokens.is_some() || lease.was_used();
        let turn = Turn {
            prompt: Text::from(&*request.prompt),
            owner: &owner,
            can_load,
        };
        let adapter = request.adapter.as_deref();
        Self::planned(prefixes, lease, adapter, turn)
    }

    fn planned<'l>(
        prefixes: &Arc<Inner>,
        lease: &'l Lease,
        adapter: Option<&Adapter>,
        turn: Turn<'l>,
    ) -> Option<Plan> {
        let plan = plan(prefixes, lease, adapter, turn)?;
        prefixes.remove(plan.stale);
        let saving = |order| Saving::new(prefixes, order);
        let (save, share) = (plan.save.map(saving), plan.share.map(saving));
        let load = plan.load;
        let is_any = save.is_some() || load.is_some() || share.is_some();
        is_any.then_some(Plan { save, load, share })
    }

    /// Makes a slot ready: what it loses is saved, what is stored of the prompt is loaded.
    pub async fn prepare(
        &mut self,
        lease: Lease,
        plan: Plan,
        adapter: Option<&Adapter>,
    ) -> Option<(Lease, Option<Loaded>)> {
        let Prefixes(Some(prefixes)) = self.supervisor.prefixes().clone() else {
            return Some((lease, None));
        };
        let saved = match plan.save {
            Some(order) => self.save(&prefixes, lease, order).await,
            None => Some(lease),
        };
        let cleared = match saved {
            Some(lease) => self.clear(lease, adapter).await,
            None => None,
        };
        let Some(lease) = cleared else {
            if let Some(order) = plan.load {
                prefixes.lock().load_ended(&order, None);
            }
            return None;
        };
        match (plan.load, plan.share) {
            (Some(order), _) => self.load(&prefixes, lease, order).await,
            (None, Some(order)) => Some((self.save(&prefixes, lease, order).await?, None)),
            (None, None) => Some((lease, None)),
        }
    }

    /// What is owed behind an answer, if anything: then its slot is given back only after it.
    pub fn owed(&self, lease: &Lease) -> Option<Owed> {
        let Prefixes(Some(prefixes)) = self.supervisor.prefixes() else {
            return None;
        };
        let save = held(lease).and_then(|held| {
            let now = now(&held.of, lease.worker());
            let may_save = prefixes.lock().may_save(now, &held);
            if !may_save {
                return None;
            }
            mark(&[&held.text]);
            let order = prefixes.lock().after_answer(now, &held)?;
            Some(Saving::new(prefixes, order))
        });
        (save.is_some() || lease.has_loaded()).then_some(Owed { save })
    }

    /// Does it, and gives the slot back.
    pub async fn settle(&mut self, lease: Lease, owed: Owed) {
        let Prefixes(Some(prefixes)) = self.supervisor.prefixes().clone() else {
            return;
        };
        let lease = match owed.save {
            Some(order) => self.save(&prefixes, lease, order).await,
            None => Some(lease),
        };
        if let Some(lease) = lease {
            self.release(lease).await;
        }
    }
}

/// What is done behind an answer.
#[derive(Debug)]
pub struct Owed {
    save: Option<Saving>,
}

impl Loaded {
    /// Whether it was of use, by what its run has evaluated.
    pub fn learn(self, prefixes: &Prefixes, end: &RunEnd) {
        let Prefixes(Some(prefixes)) = prefixes else {
            return;
        };
        let evaluated = end.perf.map(|perf| perf.prefill_tokens);
        let Some((all, evaluated)) = end.prompt_tokens.zip(evaluated) else {
            return;
        };
        let of = &self.order.of;
        // What the slot held needed no load: as many tokens at the least as so many bytes have.
        let kept = u32::try_from(self.order.kept_bytes / MOST_BYTES_PER_TOKEN).unwrap_or(u32::MAX);
        let spared = all.saturating_sub(evaluated).saturating_sub(kept);
        match spared >= self.order.gained / LEAST_SPARED {
            true => {
                prefixes.metrics.prefix_hit(&of.model);
                prefixes.lock().succeeded(of);
            }
            false => give_up(prefixes, &self.order, "it spared no evaluation", Fault::Own),
        }
    }
}

fn plan<'l>(
    prefixes: &Inner,
    lease: &'l Lease,
    adapter: Option<&Adapter>,
    turn: Turn<'l>,
) -> Option<state::Plan> {
    let worker = lease.worker();
    let of = identity(worker, adapter.map(|adapter| &*adapter.name))?;
    let (now, held) = (now(&of, worker), held(lease));
    // Others wait for the lock.
    let to_mark = prefixes.lock().to_mark(now, held.as_ref(), &turn);
    mark(&to_mark);
    Some(prefixes.lock().plan(now, held, turn))
}

fn now<'a>(of: &'a Identity, worker: &Worker) -> Now<'a> {
    Now {
        of,
        prefill_per_token: worker.measured().prefill_takes_per_token(),
        at: Instant::now(),
        hour: hour_now(),
        is_alone: worker.company.is_empty(),
    }
}

/// What a slot holds, as far as it is known.
fn held(lease: &Lease) -> Option<Held<'_>> {
    let text = lease.holds();
    if text.is_empty() || !lease.is_evaluated() {
        return None;
    }
    Some(Held {
        of: identity(lease.worker(), lease.adapter().map(|name| &**name))?,
        text: Text::from(text),
        // What is no client's is what a model's owner has pinned.
        owner: lease.holder().map_or_else(Owner::all, Owner::of),
    })
}
