//! The daemon's own guard on a load, behind the one that the worker keeps: it fires when the worker
//! is not scheduled any more, or when its own guard has missed the deadline.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::loading::GUARD_SLACK;
use crate::generation::Deadline;
use crate::ipc::LoadFigures;
use crate::ipc::{LoadDeadline, LoadWatch};
use crate::process_figures::ask_load_figures;

/// How often the figures of a load are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

enum Wait {
    Until(Instant),
    WhileItGrows { watch: LoadWatch, pid: u32 },
}

pub(super) struct LoadGuard {
    deadline: Deadline,
    wait: Wait,
    since: Instant,
    heartbeat: Duration,
    last_heard: Instant,
}

impl LoadGuard {
    pub fn fixed(deadline: Deadline, limit: Duration, heartbeat: Duration) -> Self {
        let now = Instant::now();
        Self::new(deadline, Wait::Until(now + limit), heartbeat, now)
    }

    /// Follows the bytes that `pid` reads and the memory it fills.
    pub fn following(
        deadline: Deadline,
        limits: LoadDeadline,
        heartbeat: Duration,
        pid: u32,
    ) -> Self {
        let now = Instant::now();
        let watch = LoadWatch::begin(limits, now, LoadFigures::default());
        Self::new(deadline, Wait::WhileItGrows { watch, pid }, heartbeat, now)
    }

    fn new(deadline: Deadline, wait: Wait, heartbeat: Duration, now: Instant) -> Self {
        Self {
            deadline,
            wait,
            since: now,
            heartbeat,
            last_heard: now,
        }
    }

    /// Something came from the worker.
    pub fn heard(&mut self) {
        self.last_heard = Instant::now();
    }

    /// Returns the deadline that passed and how long it was.
    pub async fn expired(&mut self) -> (Deadline, Duration) {
        loop {
            if let Wait::WhileItGrows { watch, pid } = &mut self.wait {
                match ask_load_figures(*pid).await {
                    Some(figures) => watch.observe(Instant::now(), figures),
                    None => watch.cannot_be_observed(Instant::now()),
                }
            }
            let now = Instant::now();
            let silent_at = self.last_heard + self.heartbeat;
            let due_at = match &self.wait {
                Wait::Until(at) => *at,
                Wait::WhileItGrows { watch, .. } => watch.expires_at(),
            } + GUARD_SLACK;
            if silent_at <= now {
                return (Deadline::Heartbeat, self.heartbeat);
            }
            if due_at <= now {
                return (self.deadline, now - self.since);
            }
            sleep_until(silent_at.min(due_at).min(now + LOOK_INTERVAL).into()).await;
        }
    }
}
