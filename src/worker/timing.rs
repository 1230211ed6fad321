//! Until when the main thread waits, and for what: from the times of the calls in progress to the
//! next thing that is due. Pure. Whatever is in progress has a deadline; only an idle worker waits
//! without one.

use std::time::{Duration, Instant};

use super::company::{InCompany, Wait};
use super::control_thread::ControlCall;
use crate::generation::Deadline;
use crate::ipc::{LoadWatch, WaitsFor, WorkerDeadlines};

/// A load's figures are looked at this often.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// No timer runs faster than this, whatever the deadlines say.
const SHORTEST_TIMER: Duration = Duration::from_millis(10);

/// The call on the NPU thread.
#[derive(Clone, Copy, Debug)]
pub enum CallTimes {
    /// None.
    Idle,
    Opening {
        since: Instant,
    },
    Loading {
        watch: LoadWatch,
        last_look: Instant,
    },
    Running(RunTimes),
    /// The run has returned; what is left are calls on the control thread.
    Counting {
        /// When the run last showed that it lives.
        since: Instant,
    },
    /// A call of the vendor's API, under a deadline of its own.
    Calling(CallTiming),
    Unloading {
        since: Instant,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct CallTiming {
    pub since: Instant,
    pub deadline: Deadline,
    pub limit: Duration,
    pub call: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub struct RunTimes {
    pub started: Instant,
    pub last_token: Option<Instant>,
    /// The callback is held up by the daemon or its client, so the library's time stands still.
    pub waiting_for_reader: bool,
    /// The answer was complete at `last_token`; only FINISH is missing.
    pub complete: bool,
    /// What it waits for instead of the next token, and since when.
    pub going_back: Option<(WaitsFor, Instant)>,
    /// How long the first token may take.
    pub prefill: Duration,
    /// How much longer each wait may take: it writes a file at a point that the library chooses.
    pub writing: Duration,
    pub abort: Option<AbortTimes>,
    /// The runs beside it, by which it may take longer.
    pub company: InCompany,
}

#[derive(Clone, Copy, Debug)]
pub struct AbortTimes {
    /// When it was asked for, and later by the time for which its reader has held it up since.
    pub since: Instant,
    /// When the library is told outside the callback next; `None`: it no longer can be.
    pub next_outside: Option<Instant>,
}

/// The call on the control thread.
#[derive(Clone, Copy, Debug)]
pub struct ControlTimes {
    pub call: ControlCall,
    pub since: Instant,
}

/// All that the main thread times.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub call: CallTimes,
    pub control: Option<ControlTimes>,
    /// When the daemon was last sent something that shows this thread is scheduled.
    pub last_heartbeat: Instant,
}

/// What is to be done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    pub at: Instant,
    pub due: Due,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A call on the NPU thread has had its time: the worker ends.
    Deadline(Passed),
    /// A call on the control thread has: it is left behind.
    ControlHangs(Passed),
    AbortFromOutside,
    LookAtLoad,
    Heartbeat,
}

/// A deadline that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    pub deadline: Deadline,
    /// The time the call was given.
    pub limit: Duration,
    pub call: &'static str,
}

impl Times {
    /// What is due first. Of two at the same time the deadline comes first. `None`: nothing is in
    /// progress.
    pub fn next_wake(&self, deadlines: &WorkerDeadlines, now: Instant) -> Option<Wake> {
        let wakes = [
            self.deadline(deadlines, now),
            self.control_deadline(deadlines),
            self.abort_from_outside(),
            self.look_at_load(deadlines),
            self.heartbeat(deadlines),
        ];
        // The first of equals.
        wakes.into_iter().flatten().min_by_key(|wake| wake.at)
    }

    fn deadline(&self, deadlines: &WorkerDeadlines, now: Instant) -> Option<Wake> {
        let (deadline, call, since, limit) = match &self.call {
            CallTimes::Idle | CallTimes::Counting { .. } => return None,
            CallTimes::Opening { since } => (
                Deadline::LibraryOpen,
                "opening the library",
                *since,
                deadlines.library_open,
            ),
            CallTimes::Loading { watch, .. } => {
                let limit = watch.expires_at().duration_since(watch.started());
                (Deadline::Load, "rkllm_init", watch.started(), limit)
            }
            CallTimes::Running(run) => {
                let (deadline, since, limit) = run.deadline(deadlines, now);
                let limit = limit.saturating_add(run.writing);
                (deadline, "rkllm_run", since, limit)
            }
            CallTimes::Calling(call) => (call.deadline, call.call, call.since, call.limit),
            CallTimes::Unloading { since } => {
                (Deadline::Unload, "rkllm_destroy", *since, deadlines.unload)
            }
        };
        Some(Wake {
            at: since + limit,
            due: Due::Deadline(Passed {
                deadline,
                limit,
                call,
            }),
        })
    }

    fn control_deadline(&self, deadlines: &WorkerDeadlines) -> Option<Wake> {
        let control = self.control?;
        Some(Wake {
            at: control.since + deadlines.control_call,
            due: Due::ControlHangs(Passed {
                deadline: Deadline::ControlCall,
                limit: deadlines.control_call,
                call: control.call.name(),
            }),
        })
    }

    fn abort_from_outside(&self) -> Option<Wake> {
        let CallTimes::Running(run) = &self.call else {
            return None;
        };
        Some(Wake {
            at: run.abort?.next_outside?,
            due: Due::AbortFromOutside,
        })
    }

    fn look_at_load(&self, deadlines: &WorkerDeadlines) -> Option<Wake> {
        let CallTimes::Loading { last_look, .. } = self.call else {
            return None;
        };
        // Two looks within the time that counts as a stall, so that growth is not missed.
        let interval = (deadlines.load.stall / 2).clamp(SHORTEST_TIMER, LONGEST_LOOK);
        Some(Wake {
            at: last_look + interval,
            due: Due::LookAtLoad,
        })
    }

    fn heartbeat(&self, deadlines: &WorkerDeadlines) -> Option<Wake> {
        let since = match &self.call {
            // Beside no call a worker is only heard of while it is asked something.
            CallTimes::Idle => self.control.as_ref()?.since,
            CallTimes::Opening { since }
            | CallTimes::Counting { since }
            | CallTimes::Unloading { since } => *since,
            CallTimes::Calling(call) => call.since,
            CallTimes::Loading { watch, .. } => watch.started(),
            // A token is a sign of life too: a busy stream carries no heartbeat.
            CallTimes::Running(run) => run.last_token.unwrap_or(run.started),
        };
        Some(Wake {
            at: since.max(self.last_heartbeat) + deadlines.heartbeat.max(SHORTEST_TIMER),
            due: Due::Heartbeat,
        })
    }
}

impl RunTimes {
    /// The deadline, since when it runs, and how long.
    fn deadline(&self, deadlines: &WorkerDeadlines, now: Instant) -> (Deadline, Instant, Duration) {
        if let Some(abort) = &self.abort {
            return (
                Deadline::AbortToFinish,
                abort.since,
                deadlines.abort_to_finish,
            );
        }
        if self.waiting_for_reader {
            return (Deadline::InterToken, now, deadlines.inter_token);
        }
        match self.going_back {
            Some((WaitsFor::Finish, since)) => {
                return (Deadline::AbortToFinish, since, deadlines.abort_to_finish);
            }
            Some((WaitsFor::Evaluation, since)) => {
                let wait = Wait::for_first(since, self.prefill);
                let (since, limit) = self.company.deadline(wait);
                return (Deadline::Prefill, since, limit);
            }
            None => {}
        }
        match self.last_token {
            Some(last) if self.complete => {
                (Deadline::AbortToFinish, last, deadlines.abort_to_finish)
            }
            Some(last) => {
                let wait = Wait::for_next(last, deadlines.inter_token);
                let (since, limit) = self.company.deadline(wait);
                (Deadline::InterToken, since, limit)
            }
            None => {
                let wait = Wait::for_first(self.started, self.prefill);
                let (since, limit) = self.company.deadline(wait);
                (Deadline::Prefill, since, limit)
            }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::deadlines as test_deadlines;
