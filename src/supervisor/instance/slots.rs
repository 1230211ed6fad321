//! The slots of an instance's worker: lent, given back, and waited for where another one that is free
//! would cost more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Instance;
use crate::generation::{Adapter, ClientKey, MOST_PARALLEL};
use crate::supervisor::lifecycle::Stage;
use crate::supervisor::link::SlotLink;
use crate::supervisor::routing::{Candidate, Costs, Route, route};
use crate::supervisor::waiter::Wish;
use crate::supervisor::worker::{Lent, Worker};
use crate::telemetry::Slots;

/// A request that waits for a slot that holds its beginning, although another one is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaiting {
    /// The request's.
    sequence: u64,
    /// From then on another slot costs less.
    until: Instant,
    is_over: bool,
}

impl Instance {
    /// Takes in a slot that came back.
    pub fn take_back(&mut self, link: SlotLink) {
        if let Some(loaded) = &mut self.worker {
            self.measured = loaded.worker.measured();
            if let Some(lent) = loaded.lent.remove(&link.slot()) {
                let took = lent.since.elapsed();
                let average = self
                    .run_time
                    .map_or(took, |average| (average * 4 + took) / 5);
                self.run_time = Some(average);
            }
            self.keepers.ended(link.slot(), Instant::now());
            loaded.free.push(link);
            self.is_alone = false;
            self.stage_changed();
        }
    }

    /// Hands a slot out, where nothing else may be on the worker meanwhile `alone`. `None`: none is free.
    pub fn lend(
        &mut self,
        alone: bool,
        wish: &Wish,
        client: &ClientKey,
    ) -> Option<(Arc<Worker>, SlotLink)> {
        let prompt = wish.prompt.as_deref().unwrap_or_default();
        let adapter = wish.adapter.as_deref();
        let Route::Slot(nth) = self.route((prompt, adapter, client), false) else {
            return None;
        };
        let loaded = self.worker.as_mut()?;
        let link = loaded.free.remove(nth);
        if let Some(prompt) = &wish.prompt {
            let lent = Lent {
                prompt: Arc::clone(prompt),
                adapter: wish.adapter.clone(),
                client: client.clone(),
                since: Instant::now(),
            };
            loaded.lent.insert(link.slot(), lent);
        }
        self.awaiting = None;
        self.is_alone = alone;
        self.life.granted();
        self.since = Instant::now();
        Some((Arc::clone(&loaded.worker), link))
    }

    /// Where a request with this prompt goes: the number of a free slot, or of one behind all of these.
    fn route(
        &self,
        (prompt, adapter, client): (&str, Option<&Adapter>, &ClientKey),
        may_wait: bool,
    ) -> Route {
        let Some(loaded) = &self.worker else {
            return Route::Nowhere;
        };
        let adapter = adapter.map(|adapter| &*adapter.name);
        let is_shared = |held: Option<&str>, holder: Option<&ClientKey>| {
            let is_own = holder.is_none_or(|holder| holder.tenant() == client.tenant());
            is_own && held == adapter
        };
        let free = loaded.free.iter().map(|link| Candidate {
            holds: link.holds(),
            is_shared: is_shared(link.adapter().map(|name| &**name), link.holder()),
            is_free: true,
            used: link.used(),
        });
        let lent = loaded.lent.values().map(|lent| Candidate {
            holds: &lent.prompt,
            is_shared: is_shared(
                lent.adapter.as_ref().map(|adapter| &*adapter.name),
                Some(&lent.client),
            ),
            is_free: false,
            used: lent.since,
        });
        let slots: Vec<Candidate<'_>> = free.chain(lent).collect();
        let costs = Costs {
            per_token: self.measured.prefill_takes_per_token(),
            run: self.run_time,
        };
        route(prompt, &slots, costs, may_wait)
    }

    /// Decides whether the first waiter waits for a slot that is busy although another one is free.
    pub fn consider_waiting(&mut self, now: Instant) {
        let awaited = self.waiters.front().and_then(|waiter| {
            let request = waiter.request.as_ref().filter(|request| !request.alone)?;
            // Comparing prompts is not for nothing.
            let loaded = self.worker.as_ref()?;
            let may_wait = request.wish.may_wait.load(Ordering::Relaxed);
            if !may_wait || loaded.free.is_empty() || loaded.lent.is_empty() {
                return None;
            }
            let prompt = request.wish.prompt.as_deref()?;
            let adapter = request.wish.adapter.as_deref();
            match self.route((prompt, adapter, &request.client), may_wait) {
                Route::WaitFor(_, limit) => Some((waiter.sequence, limit)),
                Route::Slot(_) | Route::Nowhere => None,
            }
        });
        self.awaiting = awaited.map(|(sequence, limit)| {
            let begun = self.awaiting.filter(|it| it.sequence == sequence);
            let until = begun.map_or(now + limit, |it| it.until);
            Awaiting {
                sequence,
                until,
                is_over: until <= now,
            }
        });
    }

    /// Until when a slot is waited for, if one is.
    pub fn slot_awaited_until(&self) -> Option<Instant> {
        let awaiting = self.awaiting.filter(|it| !it.is_over)?;
        Some(awaiting.until)
    }

    /// Whether the first waiter can be on the worker beside those that are.
    pub(super) fn can_be_joined(&self) -> bool {
        let fits = self.waiters.front().is_some_and(|waiter| {
            let request = waiter.request.as_ref();
            request.is_none_or(|request| !request.alone)
        });
        let has_room = self
            .worker
            .as_ref()
            .is_some_and(|loaded| !loaded.free.is_empty() && !loaded.worker.is_tainted());
        let waits = self.slot_awaited_until().is_some();
        fits && has_room && !waits && !self.is_alone && self.condemned.is_none() && !self.is_batch()
    }

    /// Whether a batch that has not begun may have one more of these.
    pub fn has_room_in_batch(&self, pid: u32) -> bool {
        let is_there = self.life.pid() == Some(pid) && self.is_batch();
        let has_room = self
            .worker
            .as_ref()
            .is_some_and(|loaded| !loaded.free.is_empty() && !loaded.worker.is_tainted());
        is_there && has_room && !self.is_alone && self.condemned.is_none()
    }

    /// Whether the first waiter begins with the batch that has just been granted: it was in the one that was lost.
    pub fn next_goes_along(&mut self) -> bool {
        if !self.is_batch() {
            return false;
        }
        // What has kept the place for those that were lost stands somewhere between them.
        self.waiters
            .retain(|waiter| waiter.sequence != 0 || waiter.request.is_some());
        let goes_along = self.waiters.front().is_some_and(|waiter| {
            let request = waiter.request.as_ref();
            waiter.sequence == 0 && request.is_some_and(|request| !request.alone)
        });
        let has_room = self
            .worker
            .as_ref()
            .is_some_and(|loaded| !loaded.free.is_empty());
        goes_along && has_room && !self.is_alone
    }

    /// Its slots are sequences of one handle: they are lent together, and again when all are back.
    fn is_batch(&self) -> bool {
        let loaded = self.worker.as_ref();
        loaded.is_some_and(|loaded| loaded.worker.facts.is_batch)
    }

    /// Of the worker that is loaded.
    pub(super) fn slots(&self) -> Option<Slots> {
        let loaded = self.worker.as_ref()?;
        let all = loaded.worker.slots();
        let is_free = |slot| loaded.free.iter().any(|link| link.slot() == slot);
        let busy = match self.life.stage() {
            Stage::Idle { .. } => 0,
            Stage::Leased { .. } => (0..all.min(MOST_PARALLEL))
                .filter(|slot| !is_free(*slot))
                .fold(0, |busy, slot| busy | 1 << slot),
            _ => return None,
        };
        Some(Slots { all, busy })
    }
}
