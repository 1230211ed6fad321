//! The daemon's own deadline on a run, behind the one that the worker keeps.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use super::loading::GUARD_SLACK;
use crate::generation::GenerationError;

/// The daemon's guard on a run: fires when nothing has moved for the current limit. Progress only
/// writes down a time; the timer is armed anew when it fires too early.
pub(super) struct Guard {
    deadline: &'static str,
    limit: Duration,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Guard {
    pub fn new(deadline: &'static str, limit: Duration) -> Self {
        let since = Instant::now();
        Self {
            deadline,
            limit,
            since,
            timer: Box::pin(sleep_until((since + limit + GUARD_SLACK).into())),
        }
    }

    pub fn progress(&mut self, deadline: &'static str, limit: Duration) {
        self.since = Instant::now();
        self.deadline = deadline;
        if self.limit != limit {
            self.limit = limit;
            let at = self.since + limit + GUARD_SLACK;
            self.timer.as_mut().reset(at.into());
        }
    }

    pub async fn expired(&mut self) -> GenerationError {
        loop {
            self.timer.as_mut().await;
            let due = self.since + self.limit + GUARD_SLACK;
            if due <= Instant::now() {
                return GenerationError::DeadlineExceeded {
                    deadline: self.deadline,
                    limit: self.limit,
                };
            }
            self.timer.as_mut().reset(due.into());
        }
    }
}
