//! The life of one model's worker as a pure state machine: no process, no task, no clock of its
//! own. The event loop tells it what happened and does what it says.
//!
//! ```text
//!            begin_load            loaded             granted             granted, returned
//!  Unloaded ───────────► Loading ─────────► Idle ◄──────────────► Leased ◄──┐ of several leases
//!    ▲  ▲                  │ load_failed     │ end  returned (last) │ lost ──┘
//!    │  └── retry ── Failed ◄──────┐         ▼                      │
//!    │                             ├──── Ending ◄───────────────────┘
//!    └──────── exited ─────────────┘        │ stuck
//!                                  ▲        ▼
//!                                  └── Unkillable
//! ```
//!
//! A load that is given up while no process of it is known may have one all the same: it is `Stopping`
//! until its task has ended (`load_stopped`), or such a process turns up, which is `Ending` then.
//!
//! What always holds: a load begins only when no process of this model is left, so there are never
//! two; a process that ended without being wanted is counted, and the more of them in a row the
//! longer the wait (`backoff`), until a worker has proved itself.

use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// Failed loads in a row after which those who wait are told, for a model that has never been
/// loaded: most likely its file or its settings are wrong.
const FAILED_LOADS_AT_FIRST: u32 = 2;
/// And for one that could be loaded: most likely the library or the NPU needs a moment after a
/// worker's death, and with the waits between (`backoff`) it gets some seconds.
const FAILED_LOADS_LATER: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Unloaded,
    /// `pid` once there is a process.
    Loading {
        pid: Option<u32>,
    },
    /// Given up before it was known whether it has a process.
    Stopping,
    Idle {
        pid: u32,
        loaded_at: Instant,
        last_used: Instant,
    },
    /// With at least one lease.
    Leased {
        pid: u32,
        loaded_at: Instant,
        leases: u8,
    },
    /// Killed or unloading, until waitpid has reported it.
    Ending {
        pid: u32,
        loaded_at: Option<Instant>,
    },
    /// Too many failures in a row; nothing is tried before `retry_at`.
    Failed {
        by: FailedBy,
        retry_at: Instant,
    },
    /// Outlived SIGKILL.
    Unkillable {
        pid: u32,
    },
}

/// What a model failed by last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedBy {
    /// It cannot be loaded: no request waits for it any longer.
    Load,
    /// Its workers die, but it can be loaded: requests wait for the next one.
    Death,
}

/// What becomes of those who wait for a load that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailedLoad {
    /// The next load may begin at once, or at the stage's `retry_at`: they wait on.
    WaitOn,
    /// They are told that it failed.
    GiveUp,
}

/// A load that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFault {
    /// Another try may succeed.
    Perhaps,
    /// It will fail in the same way until a file or a setting changes.
    Certain,
}

/// When to believe in a worker again and how long to wait until then.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    pub backoff: Backoff,
    /// A worker that has lived this long is healthy.
    pub healthy_after: Duration,
}

#[derive(Clone, Debug)]
pub struct Lifecycle {
    stage: Stage,
    policy: RestartPolicy,
    /// Unwanted ends and failed loads since a worker last proved itself.
    failures: u32,
    failed_loads: u32,
    was_loaded: bool,
}

impl Lifecycle {
    pub fn new(policy: RestartPolicy) -> Self {
        Self {
            stage: Stage::Unloaded,
            policy,
            failures: 0,
            failed_loads: 0,
            was_loaded: false,
        }
    }

    /// A file or a setting has changed: what failed may be tried again at once.
    pub fn forgive(&mut self, policy: RestartPolicy) {
        self.policy = policy;
        self.failures = 0;
        self.failed_loads = 0;
        if let Stage::Failed { .. } = self.stage {
            self.stage = Stage::Unloaded;
        }
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The process there is or may be.
    pub fn pid(&self) -> Option<u32> {
        match self.stage {
            Stage::Unloaded | Stage::Stopping | Stage::Failed { .. } => None,
            Stage::Loading { pid } => pid,
            Stage::Idle { pid, .. }
            | Stage::Leased { pid, .. }
            | Stage::Ending { pid, .. }
            | Stage::Unkillable { pid } => Some(pid),
        }
    }

    /// Begins a load if one may begin now.
    pub fn begin_load(&mut self, now: Instant) -> bool {
        let may = match self.stage {
            Stage::Unloaded => true,
            Stage::Failed { retry_at, .. } => retry_at <= now,
            _ => false,
        };
        if may {
            self.stage = Stage::Loading { pid: None };
        }
        may
    }

    /// The load has this process now, or none while it makes another attempt. One of a load that was
    /// given up is being killed.
    pub fn spawned(&mut self, pid: Option<u32>) {
        self.stage = match (self.stage, pid) {
            (Stage::Loading { .. }, pid) => Stage::Loading { pid },
            (Stage::Stopping, Some(pid)) => Stage::Ending {
                pid,
                loaded_at: None,
            },
            (stage, _) => stage,
        };
    }

    /// The task of a load that was given up has ended, and has told of every process that it had.
    pub fn load_stopped(&mut self) {
        if self.stage == Stage::Stopping {
            self.stage = Stage::Unloaded;
        }
    }

    /// The load has brought up this process. `false` if it was given up meanwhile.
    pub fn loaded(&mut self, pid: u32, now: Instant) -> bool {
        if !matches!(self.stage, Stage::Loading { .. }) {
            return false;
        }
        self.failed_loads = 0;
        self.was_loaded = true;
        self.stage = Stage::Idle {
            pid,
            loaded_at: now,
            last_used: now,
        };
        true
    }

    /// The load has failed and left no process.
    pub fn load_failed(&mut self, fault: LoadFault, now: Instant, random: f64) -> AfterFailedLoad {
        if !matches!(self.stage, Stage::Loading { .. }) {
            return AfterFailedLoad::WaitOn;
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_loads = self.failed_loads.saturating_add(1);
        if fault == LoadFault::Certain {
            // As if it had been tried twice.
            self.failures = self.failures.max(2);
        }
        let most = if self.was_loaded {
            FAILED_LOADS_LATER
        } else {
            FAILED_LOADS_AT_FIRST
        };
        let give_up = fault == LoadFault::Certain || self.failed_loads >= most;
        let by = if give_up {
            FailedBy::Load
        } else {
            FailedBy::Death
        };
        self.wait(by, now, random);
        if give_up {
            AfterFailedLoad::GiveUp
        } else {
            AfterFailedLoad::WaitOn
        }
    }

    /// Leases a slot of the worker, which has a free one. `false` if there is no worker.
    pub fn granted(&mut self) -> bool {
        let (pid, loaded_at, before) = match self.stage {
            Stage::Idle { pid, loaded_at, .. } => (pid, loaded_at, 0),
            Stage::Leased {
                pid,
                loaded_at,
                leases,
            } => (pid, loaded_at, leases),
            _ => return false,
        };
        self.stage = Stage::Leased {
            pid,
            loaded_at,
            leases: before.saturating_add(1),
        };
        true
    }

    /// A lease came back from a request that it `answered` whole or not. `false` if it is not one of
    /// the worker's that is there.
    pub fn returned(&mut self, pid: u32, answered: bool, now: Instant) -> bool {
        let Stage::Leased {
            pid: current,
            loaded_at,
            leases,
        } = self.stage
        else {
            return false;
        };
        if current != pid {
            return false;
        }
        if answered {
            self.failures = 0;
        }
        self.stage = match leases {
            0 | 1 => Stage::Idle {
                pid,
                loaded_at,
                last_used: now,
            },
            _ => Stage::Leased {
                pid,
                loaded_at,
                leases: leases - 1,
            },
        };
        true
    }

    /// The holder of a lease has killed the worker, for all. `false` if that is known, or it was an
    /// earlier one.
    pub fn lost(&mut self, pid: u32) -> bool {
        let Stage::Leased {
            pid: current,
            loaded_at,
            ..
        } = self.stage
        else {
            return false;
        };
        if current != pid {
            return false;
        }
        let loaded_at = Some(loaded_at);
        self.stage = Stage::Ending { pid, loaded_at };
        true
    }

    /// The idle worker is being unloaded or killed. `false` if there is none.
    pub fn end(&mut self) -> bool {
        let Stage::Idle { pid, loaded_at, .. } = self.stage else {
            return false;
        };
        let loaded_at = Some(loaded_at);
        self.stage = Stage::Ending { pid, loaded_at };
        true
    }

    /// The load is given up. Its process, if there is one, is being killed.
    pub fn cancel_load(&mut self) {
        if let Stage::Loading { pid } = self.stage {
            self.stage = match pid {
                Some(pid) => Stage::Ending {
                    pid,
                    loaded_at: None,
                },
                None => Stage::Stopping,
            };
        }
    }

    /// waitpid has reported `pid`. Returns whether it was this model's worker; a process of a load
    /// in progress is not its worker yet and is reported by the load.
    pub fn exited(&mut self, pid: u32, is_failure: bool, now: Instant, random: f64) -> bool {
        let loaded_at = match self.stage {
            Stage::Idle {
                pid: current,
                loaded_at,
                ..
            }
            | Stage::Leased {
                pid: current,
                loaded_at,
                ..
            } if current == pid => Some(loaded_at),
            Stage::Ending {
                pid: current,
                loaded_at,
            } if current == pid => loaded_at,
            Stage::Unkillable { pid: current } if current == pid => None,
            _ => return false,
        };
        let lived = loaded_at.map(|loaded_at| now.saturating_duration_since(loaded_at));
        if lived.is_some_and(|lived| lived >= self.policy.healthy_after) {
            self.failures = 0;
        }
        self.stage = Stage::Unloaded;
        if is_failure {
            self.failures = self.failures.saturating_add(1);
            self.wait(FailedBy::Death, now, random);
        }
        true
    }

    /// `pid` outlived SIGKILL.
    pub fn stuck(&mut self, pid: u32) -> bool {
        let is_ours = self.pid() == Some(pid);
        if is_ours {
            self.stage = Stage::Unkillable { pid };
        }
        is_ours
    }

    fn wait(&mut self, by: FailedBy, now: Instant, random: f64) {
        let wait = self.policy.backoff.wait(self.failures, random);
        self.stage = if wait.is_zero() {
            Stage::Unloaded
        } else {
            Stage::Failed {
                by,
                retry_at: now + wait,
            }
        };
    }
}

#[cfg(test)]
mod tests;
