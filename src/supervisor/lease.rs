//! The exclusive right to use a slot of a loaded worker, as typestates that are moved by value:
//!
//! ```text
//!              begin                     ended
//!  Lease (idle) ─────► Running (in a run) ─────► Lease, or back to the supervisor if tainted
//!    │ dropped            │ lost, or dropped
//!    ▼                    ▼
//!  given back           the worker is killed: one in an unknown state is never reused
//! ```
//!
//! A worker has as many leases as slots, and one life: with it all of them are lost.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::batch_start::BatchStart;
use super::event_loop::Message;
use super::link::SlotLink;
use super::worker::{Presence, Worker};
use crate::children::{ChildProcess, EndReason};
use crate::generation::{Adapter, ClientKey, KeepAlive};

/// What became of a slot that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerAfter {
    /// It has answered a request whole.
    Answered,
    /// It was not used, or not to the end.
    Unproven,
    /// Its worker must get nothing new to do.
    Tainted,
}

type Home = mpsc::UnboundedSender<Message>;

/// A slot that nothing goes on in.
#[derive(Debug)]
pub struct Lease {
    /// `None` only while it is taken out: by `begin`, or when the lease is dropped.
    held: Option<Held>,
    after: WorkerAfter,
    home: Home,
    /// Whose what it leaves in the slot is.
    user: ClientKey,
    /// What its next run waits for, where the slot is a sequence of a handle; `None`: for itself alone.
    batch: Option<Arc<BatchStart>>,
}

#[derive(Debug)]
struct Held {
    worker: Arc<Worker>,
    link: SlotLink,
}

/// A slot that is in the middle of something.
#[derive(Debug)]
pub(super) struct Running {
    held: Held,
    fuse: Fuse,
    user: ClientKey,
    batch: Option<Arc<BatchStart>>,
}

/// Kills the worker unless it is disarmed.
#[derive(Debug)]
struct Fuse {
    worker: Arc<Worker>,
    presence: Presence,
    reason: EndReason,
    home: Home,
    is_armed: bool,
    slot: u8,
}

impl Lease {
    pub(super) fn new(
        (worker, link): (Arc<Worker>, SlotLink),
        user: ClientKey,
        home: Home,
    ) -> Self {
        Self {
            held: Some(Held { worker, link }),
            after: WorkerAfter::Unproven,
            home,
            user,
            batch: None,
        }
    }

    /// Its first run begins with those of the others that have this.
    pub(super) fn in_batch(mut self, batch: Arc<BatchStart>) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Whether its slot is a sequence of a handle, whose runs begin together.
    pub fn is_batch(&self) -> bool {
        self.worker().facts.is_batch
    }

    /// What others join that begin with it; `None`: it has begun.
    pub(super) fn batch(&self) -> Option<&Arc<BatchStart>> {
        self.batch.as_ref()
    }

    /// A prompt of so many bytes is evaluated in its batch.
    pub fn adds_prompt(&self, bytes: usize) {
        if let Some(batch) = &self.batch {
            batch.add_prompt(bytes);
        }
    }

    /// The prompts that are evaluated before its run has a token; `None`: its own alone.
    pub(super) fn batch_bytes(&self) -> Option<usize> {
        self.batch.as_ref().map(|batch| batch.prompt_bytes())
    }

    fn link(&self) -> &SlotLink {
        match &self.held {
            Some(held) => &held.link,
            None => unreachable!("a lease that has no worker is gone"),
        }
    }

    /// The text that the slot's cells are of.
    pub(super) fn holds(&self) -> &str {
        self.link().holds()
    }

    /// Whose what it leaves in the slot is.
    pub(super) fn user(&self) -> &ClientKey {
        &self.user
    }

    pub(super) fn holder(&self) -> Option<&ClientKey> {
        self.link().holder()
    }

    /// Whether its user may not find out what the cells are of.
    pub(super) fn holds_anothers(&self) -> bool {
        let tenant = self.user.tenant();
        self.holder()
            .is_some_and(|holder| holder.tenant() != tenant)
    }

    /// Whether the cells are none that a run with this adapter may go on from: of another tenant, or computed
    /// with another adapter, which a library need not know.
    pub(super) fn is_to_be_emptied_for(&self, adapter: Option<&Adapter>) -> bool {
        // What is no client's is what a model's owner has pinned, computed without an adapter.
        let is_used = self.holder().is_some() || !self.holds().is_empty();
        let held = self.adapter().map(|name| &**name);
        self.holds_anothers() || (is_used && held != adapter.map(|adapter| &*adapter.name))
    }

    /// What is in the cells from now on is this adapter's, if anything.
    pub(super) fn set_adapter(&mut self, adapter: Option<Arc<str>>) {
        if let Some(held) = &mut self.held {
            held.link.set_adapter(adapter);
        }
    }

    /// The adapter that the cells were computed with.
    pub(super) fn adapter(&self) -> Option<&Arc<str>> {
        self.link().adapter()
    }

    pub(super) fn restore(&mut self, text: String, holder: Option<ClientKey>) {
        if let Some(held) = &mut self.held {
            held.link.restore(text, holder);
        }
    }

    pub(super) fn was_used(&self) -> bool {
        self.link().was_used()
    }

    /// Whether all of what it holds was evaluated.
    pub(super) fn is_evaluated(&self) -> bool {
        self.link().is_evaluated()
    }

    pub(super) fn has_loaded(&self) -> bool {
        self.link().has_loaded()
    }

    pub(super) fn is_loaded(&mut self, has_loaded: bool) {
        if let Some(held) = &mut self.held {
            held.link.set_loaded(has_loaded);
        }
    }

    pub(super) fn worker(&self) -> &Worker {
        match &self.held {
            Some(held) => &held.worker,
            None => unreachable!("a lease that has no worker is gone"),
        }
    }

    /// How many slots its worker has.
    pub fn slots(&self) -> u8 {
        self.worker().slots()
    }

    /// Whose turn it is after all, where it was asked for by another client or for another request.
    pub fn is_used_for(&mut self, client: &ClientKey, keep_alive: Option<KeepAlive>) {
        self.user = client.clone();
        if let Some(held) = &self.held {
            let _ = self.home.send(Message::UsedFor {
                model: held.worker.model.id.clone(),
                lease: (held.worker.process.pid, held.link.slot()),
                client: client.clone(),
                keep_alive,
            });
        }
    }

    /// `call` and `request` are told in the report of the worker's end, if it ends meanwhile.
    pub(super) fn begin(mut self, call: &'static str, request: Option<String>) -> Running {
        let Some(mut held) = self.held.take() else {
            unreachable!("a lease that has no worker is gone")
        };
        let (worker, slot) = (&held.worker, held.link.slot());
        worker.process.set_activity(slot, Some(call), request);
        // What the call leaves there its caller says.
        held.link.hold_nothing();
        held.link.set_holder(Some(self.user.clone()));
        let batch = self.batch.take();
        let batch = match worker.facts.is_batch {
            true => Some(batch.unwrap_or_else(|| BatchStart::new(&held.link))),
            false => None,
        };
        Running {
            batch,
            user: self.user.clone(),
            fuse: Fuse {
                worker: Arc::clone(worker),
                presence: worker.company.enter(),
                reason: EndReason::Cancelled,
                home: self.home.clone(),
                is_armed: true,
                slot,
            },
            held,
        }
    }

    /// Gives the slot back for good: its worker is not what its client thinks.
    pub(super) fn spoil(mut self) {
        self.after = WorkerAfter::Tainted;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            give_back(&self.home, held, self.after);
        }
    }
}

impl Running {
    pub fn worker(&self) -> &Arc<Worker> {
        &self.held.worker
    }

    pub fn link(&mut self) -> &mut SlotLink {
        &mut self.held.link
    }

    /// What its run waits for, to be let go of once that was handed over.
    pub fn take_batch(&mut self) -> Option<Arc<BatchStart>> {
        self.batch.take()
    }

    /// What the slot's cells are of once the run is over.
    pub fn hold(&mut self, texts: &[&str]) {
        let cells = self.worker().facts.context_length;
        self.held.link.hold(texts, cells.unwrap_or(0));
    }

    /// Whether nothing else has been on the worker meanwhile.
    pub fn was_alone(&self) -> bool {
        let company = &self.worker().company;
        company.was_alone(self.fuse.presence)
    }

    /// What the library has printed meanwhile. Nothing where others have been on the worker: no line
    /// says whose it is.
    pub async fn own_lines(&self) -> Vec<String> {
        let lines = self.worker().take_lines().await;
        match self.was_alone() {
            true => lines,
            false => Vec::new(),
        }
    }

    /// What it was in the middle of has ended. `None`: the worker must get nothing new to do, and the
    /// slot was given back for good.
    pub fn ended(self, after: WorkerAfter) -> Option<Lease> {
        let Self {
            held,
            mut fuse,
            user,
            batch: _,
        } = self;
        fuse.is_armed = false;
        held.worker.company.leave();
        let home = fuse.home.clone();
        if after == WorkerAfter::Tainted {
            give_back(&home, held, after);
            return None;
        }
        Some(Lease {
            held: Some(held),
            after,
            home,
            user,
            batch: None,
        })
    }

    /// Kills the worker, if it lives. Returns how many others were on it.
    pub fn lost(mut self, reason: EndReason) -> (ChildProcess, usize) {
        self.fuse.reason = reason;
        let worker = self.worker();
        let others = match worker.facts.is_batch {
            true => worker.company.batch_at_loss(self.fuse.presence),
            false => worker.company.others_at_loss(self.fuse.presence),
        };
        (worker.process.clone(), others)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if self.is_armed {
            let worker = &self.worker;
            // The others have been there with this one, whenever they notice.
            worker.company.others_at_loss(self.presence);
            worker.company.leave();
            worker.process.kill(self.reason);
            let _ = self.home.send(Message::Lost {
                model: worker.model.id.clone(),
                pid: worker.process.pid,
                slot: self.slot,
            });
        }
    }
}

fn give_back(home: &Home, held: Held, after: WorkerAfter) {
    let Held { worker, link } = held;
    worker.process.set_activity(link.slot(), None, None);
    // Without a supervisor the message is dropped, and with it the worker, which kills it.
    let _ = home.send(Message::Returned {
        worker,
        link,
        after,
    });
}
