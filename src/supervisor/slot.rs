//! One model's place in the supervisor: the state of its worker and who waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::AbortHandle;

use super::RuntimeFacts;
use super::event_loop::LeaseReply;
use super::loading::Worker;
use super::placement::{Candidate, Occupancy};
use super::status::{ModelStatus, Phase};
use crate::generation::GenerationError;
use crate::models::InstalledModel;

pub(super) enum State {
    Unloaded,
    Loading {
        phase: Phase,
        pid: Option<u32>,
        task: AbortHandle,
    },
    Idle {
        worker: Box<Worker>,
        loaded_at: Instant,
        last_used: Instant,
    },
    Leased {
        pid: u32,
        loaded_at: Instant,
    },
    /// The process is ending; `pid` until waitpid reported it.
    Unloading {
        pid: u32,
    },
    Failed {
        reason: String,
        retry_at: Instant,
    },
}

pub(super) struct Waiter {
    pub sequence: u64,
    /// `None`: a preload, content with the model being loaded.
    pub reply: Option<LeaseReply>,
}

pub(super) struct Slot {
    pub model: Arc<InstalledModel>,
    pub state: State,
    pub since: Instant,
    pub facts: Option<Arc<RuntimeFacts>>,
    pub failed_loads: u32,
    pub waiters: VecDeque<Waiter>,
}

impl Slot {
    pub fn new(model: Arc<InstalledModel>) -> Self {
        Self {
            model,
            state: State::Unloaded,
            since: Instant::now(),
            facts: None,
            failed_loads: 0,
            waiters: VecDeque::new(),
        }
    }

    pub fn enter(&mut self, state: State) {
        self.state = state;
        self.since = Instant::now();
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Gives up a load that is going on. Dropping its worker kills the process, whose end is
    /// reported as that of any other.
    pub fn cancel_load(&mut self) {
        if let State::Loading { pid, task, .. } = &self.state {
            task.abort();
            self.enter(match *pid {
                Some(pid) => State::Unloading { pid },
                None => State::Unloaded,
            });
        }
    }

    pub fn forget_gone_waiters(&mut self) {
        self.waiters
            .retain(|waiter| waiter.reply.as_ref().is_none_or(|reply| !reply.is_closed()));
    }

    pub fn fail_waiters(&mut self, error: impl Fn() -> GenerationError) {
        for waiter in self.waiters.drain(..) {
            if let Some(reply) = waiter.reply {
                let _ = reply.send(Err(error()));
            }
        }
    }

    pub fn candidate(&self) -> Candidate {
        let occupancy = match &self.state {
            State::Unloaded | State::Failed { .. } => Occupancy::Empty,
            State::Loading { .. } | State::Leased { .. } => Occupancy::Busy,
            State::Unloading { .. } => Occupancy::Leaving,
            State::Idle {
                loaded_at,
                last_used,
                ..
            } => Occupancy::Idle {
                loaded_at: *loaded_at,
                last_used: *last_used,
            },
        };
        Candidate {
            occupancy,
            oldest_waiter: self.waiters.front().map(|waiter| waiter.sequence),
        }
    }

    pub fn status(&self) -> ModelStatus {
        let (phase, pid) = match &self.state {
            State::Unloaded => (Phase::Unloaded, None),
            State::Loading { phase, pid, .. } => (phase.clone(), *pid),
            State::Idle { worker, .. } => (Phase::Ready, Some(worker.process.pid)),
            State::Leased { pid, .. } => (Phase::Running, Some(*pid)),
            State::Unloading { pid } => (Phase::Unloading, Some(*pid)),
            State::Failed { reason, retry_at } => (
                Phase::Failed {
                    reason: reason.clone(),
                    retry_at: *retry_at,
                },
                None,
            ),
        };
        ModelStatus {
            phase,
            since: self.since,
            pid,
            facts: self.facts.clone(),
        }
    }
}
