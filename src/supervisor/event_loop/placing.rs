//! Carries out what `placement` decides, in the order of the clients' turns.

use std::sync::Arc;
use std::time::Instant;

use super::{EventLoop, JoinBatch};
use crate::generation::ModelId;
use crate::supervisor::batch_start::BatchStart;
use crate::supervisor::client_turns::{LeasedSlot, Waiting};
use crate::supervisor::lease::Lease;
use crate::supervisor::placement::{self, Candidate, Decision};
use crate::supervisor::waiter::Waiter;

impl EventLoop {
    /// Carries out decisions until none is left. Returns when to look again without a message.
    pub(super) fn place(&mut self) -> Option<Instant> {
        loop {
            for instance in self.instances.values_mut() {
                instance.forget_gone_waiters();
                instance.consider_pinned_first(Instant::now());
                instance.consider_waiting(Instant::now());
            }
            let ids: Vec<ModelId> = self.instances.keys().cloned().collect();
            let order = self.order();
            let candidates: Vec<Candidate> = self
                .instances
                .values()
                .map(|instance| instance.candidate(&order, self.rules.keep_alive))
                .collect();
            match placement::decide(&candidates, self.rules.placement, Instant::now()) {
                Decision::Grant(index) => self.grant(&ids[index]),
                Decision::Load(index) => self.load(&ids[index]),
                Decision::Evict(index) => self.evict(&ids[index]),
                Decision::Unload(index) => {
                    tracing::info!(model = &*ids[index], "no client keeps this model any more");
                    self.evict(&ids[index]);
                }
                Decision::WaitUntil(time) => {
                    return self.awaited().map_or(Some(time), |it| Some(it.min(time)));
                }
                Decision::Nothing => return self.awaited(),
            }
        }
    }

    /// Until when the first of the slots that requests wait for is worth it, or requests come behind what is
    /// pinned.
    fn awaited(&self) -> Option<Instant> {
        let instances = self.instances.values();
        let awaited = instances.flat_map(|it| [it.slot_awaited_until(), it.pinned_first_until()]);
        awaited.flatten().min()
    }

    pub(super) fn requests_waiting(&self) -> usize {
        let waiters = self.instances.values().flat_map(|it| &it.waiters);
        waiters.filter(|waiter| waiter.request.is_some()).count()
    }

    /// The arrivals of the requests that wait, in the order in which they are served.
    fn order(&self) -> Vec<u64> {
        let mut waiting: Vec<Waiting<'_>> = self
            .instances
            .values()
            .flat_map(|instance| &instance.waiters)
            .filter_map(Waiter::in_line)
            .collect();
        waiting.sort_unstable_by_key(|waiting| waiting.arrival);
        let standings = self.turns.standings(&waiting);
        let mut order: Vec<_> = standings
            .into_iter()
            .zip(waiting.iter().map(|waiting| waiting.arrival))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, arrival)| arrival).collect()
    }

    pub(super) fn turn_ended(&mut self, lease: LeasedSlot) {
        self.sequence += 1;
        let instances = &self.instances;
        self.turns.ended(lease, self.sequence, |client| {
            let mut waiters = instances.values().flat_map(|instance| &instance.waiters);
            waiters.any(|waiter| {
                waiter
                    .request
                    .as_ref()
                    .is_some_and(|it| it.client == *client)
            })
        });
    }

    /// Lends one more slot of a batch that has not begun.
    pub(super) fn join(&mut self, model: &ModelId, join: JoinBatch) {
        let home = self.sender.clone();
        let setting = self.rules.keep_alive;
        let JoinBatch {
            pid,
            client,
            wish,
            batch,
            reply,
        } = join;
        let mut joined = None;
        self.change(model, |instance| {
            if !instance.has_room_in_batch(pid) {
                return;
            }
            let Some((worker, link)) = instance.lend(false, &wish, &client) else {
                return;
            };
            let keep_alive = wish.keep_alive.unwrap_or(instance.keep_alive(setting));
            let now = Instant::now();
            instance
                .keepers
                .begun(link.slot(), client.clone(), keep_alive, now);
            let leased = (worker.process.pid, link.slot());
            let lease = Lease::new((worker, link), client.clone(), home).in_batch(batch);
            joined = Some((leased, lease));
        });
        let lease = joined.map(|(leased, lease)| {
            self.turns.begun(leased, client);
            lease
        });
        // One that is not wanted any more gives its slot back.
        let _ = reply.send(lease);
    }

    fn grant(&mut self, model: &ModelId) {
        let home = self.sender.clone();
        let setting = self.rules.keep_alive;
        let mut granted = Vec::new();
        self.change(model, |instance| {
            let mut batch: Option<Arc<BatchStart>> = None;
            while batch.is_none() || instance.next_goes_along() {
                let Some(request) = instance.waiters.pop_front().and_then(|it| it.request) else {
                    return;
                };
                let lent = instance.lend(request.alone, &request.wish, &request.client);
                let Some((worker, link)) = lent else {
                    return;
                };
                // Only an interrupted run comes before what is pinned, which then need not be soon. What of it is
                // being done in another slot goes on.
                instance.end_pinned_first();
                let keep_alive = request.wish.keep_alive;
                let keep_alive = keep_alive.unwrap_or(instance.keep_alive(setting));
                let (client, now) = (request.client.clone(), Instant::now());
                instance.keepers.begun(link.slot(), client, keep_alive, now);
                let leased = (worker.process.pid, link.slot());
                if batch.is_none() && worker.facts.is_batch {
                    batch = Some(BatchStart::new(&link));
                }
                let mut lease = Lease::new((worker, link), request.client.clone(), home.clone());
                if let Some(batch) = &batch {
                    batch.add_prompt(request.wish.batch_bytes);
                    lease = lease.in_batch(Arc::clone(batch));
                }
                granted.push((leased, request.client, (request.reply, lease)));
                if batch.is_none() {
                    return;
                }
            }
        });
        for (leased, client, lease) in granted {
            self.turns.begun(leased, client);
            self.granted.push(lease);
        }
    }
}
