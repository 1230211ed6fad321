//! The daemon's own deadline on a run, behind the one that the worker keeps.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use super::loading::GUARD_SLACK;

/// Fires when the run has not moved for the current limit, or when the worker has not been heard of
/// at all. Progress only writes down a time; the timer is armed anew when it fires too early.
pub(super) struct Guard {
    deadline: &'static str,
    limit: Duration,
    since: Instant,
    heartbeat: Duration,
    last_heard: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Guard {
    pub fn new(deadline: &'static str, limit: Duration, heartbeat: Duration) -> Self {
        let now = Instant::now();
        let mut guard = Self {
            deadline,
            limit,
            since: now,
            heartbeat,
            last_heard: now,
            timer: Box::pin(sleep_until(now.into())),
        };
        guard.arm();
        guard
    }

    /// The run has moved, or waits for something else from now on.
    pub fn progress(&mut self, deadline: &'static str, limit: Duration) {
        self.since = Instant::now();
        self.last_heard = self.since;
        self.deadline = deadline;
        self.set_limit(limit);
    }

    /// The wait in progress may take so long in all.
    pub fn set_limit(&mut self, limit: Duration) {
        if self.limit != limit {
            self.limit = limit;
            self.arm();
        }
    }

    /// Something came from the worker.
    pub fn heard(&mut self) {
        self.last_heard = Instant::now();
    }

    /// Returns the deadline that passed and how long it was.
    pub async fn expired(&mut self) -> (&'static str, Duration) {
        loop {
            self.timer.as_mut().await;
            let now = Instant::now();
            if self.last_heard + self.heartbeat <= now {
                return ("heartbeat", self.heartbeat);
            }
            if self.due_at() <= now {
                return (self.deadline, self.limit);
            }
            self.arm();
        }
    }

    fn due_at(&self) -> Instant {
        self.since + self.limit + GUARD_SLACK
    }

    fn arm(&mut self) {
        let at = self.due_at().min(self.last_heard + self.heartbeat);
        self.timer.as_mut().reset(at.into());
    }
}
