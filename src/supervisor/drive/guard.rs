//! The daemon's own deadline on a run, behind the one that the worker keeps.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use crate::generation::Deadline;
use crate::supervisor::loading::GUARD_SLACK;

/// Fires when the run has not moved for the current limit, or when the worker has not been heard of
/// at all, whichever of its slots it would tell of. Progress only writes down a time; the timer is armed anew when it fires too early.
pub(super) struct Guard {
    deadline: Deadline,
    limit: Duration,
    since: Instant,
    heartbeat: Duration,
    last_heard: Instant,
    /// Since when it rests, if it does.
    resting_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Guard {
    pub fn new(deadline: Deadline, limit: Duration, heartbeat: Duration) -> Self {
        let now = Instant::now();
        let mut guard = Self {
            deadline,
            limit,
            since: now,
            heartbeat,
            last_heard: now,
            resting_since: None,
            timer: Box::pin(sleep_until(now.into())),
        };
        guard.arm();
        guard
    }

    /// The run has moved, or waits for something else from now on.
    pub fn progress(&mut self, deadline: Deadline, limit: Duration) {
        self.since = Instant::now();
        self.last_heard = self.since;
        if let Some(since) = &mut self.resting_since {
            *since = self.since;
        }
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

    /// Time passes that is not the worker's, until `wake`.
    pub fn rest(&mut self) {
        self.resting_since.get_or_insert_with(Instant::now);
    }

    pub fn wake(&mut self) {
        if let Some(since) = self.resting_since.take() {
            self.since += since.elapsed();
            self.last_heard = Instant::now();
        }
    }

    /// Something came from the worker so long ago.
    pub fn heard(&mut self, ago: Duration) {
        let heard = Instant::now().checked_sub(ago);
        self.last_heard = heard.map_or(self.last_heard, |heard| heard.max(self.last_heard));
    }

    /// Another run of the worker has moved so long ago, and this one may have had to wait for it. What
    /// was asked to end waits for no other.
    pub fn others_moved(&mut self, ago: Duration) {
        if self.deadline != Deadline::AbortToFinish
            && let Some(moved) = Instant::now().checked_sub(ago)
        {
            self.since = self.since.max(moved);
        }
    }

    /// Waits until a deadline may have passed: what has come meanwhile is to be heard first.
    pub async fn fires(&mut self) {
        self.timer.as_mut().await;
    }

    /// The deadline that has passed and how long it was. `None`: none has.
    pub fn passed(&mut self) -> Option<(Deadline, Duration)> {
        let now = Instant::now();
        if self.last_heard + self.heartbeat <= now {
            return Some((Deadline::Heartbeat, self.heartbeat));
        }
        if self.due_at() <= now {
            return Some((self.deadline, self.limit));
        }
        self.arm();
        None
    }

    fn due_at(&self) -> Instant {
        self.since + self.limit + GUARD_SLACK
    }

    fn arm(&mut self) {
        let at = self.due_at().min(self.last_heard + self.heartbeat);
        self.timer.as_mut().reset(at.into());
    }
}
