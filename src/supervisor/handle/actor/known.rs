//! The worker that a handle was on last, and how its history went.

use tokio::sync::watch;

use crate::children::{EndReason, ExitCause, ExitReport};
use crate::supervisor::handle::HandleReset;
use crate::supervisor::worker::Worker;

pub(super) struct Known {
    pid: u32,
    exit: watch::Receiver<Option<ExitReport>>,
}

impl Known {
    pub fn of(worker: &Worker) -> Self {
        Self {
            pid: worker.process.pid,
            exit: worker.process.exit_watch(),
        }
    }

    /// Whether it is this worker, and not one that has got the number of one that is gone.
    pub fn is(&self, worker: &Worker) -> bool {
        self.pid == worker.process.pid && self.exit.borrow().is_none()
    }

    /// How the handle's history went.
    pub fn end(&self) -> HandleReset {
        let report = self.exit.borrow().clone();
        match report {
            Some(report) if report.cause == ExitCause::Wanted(EndReason::Unload) => {
                HandleReset::Evicted
            }
            Some(report) => HandleReset::WorkerDied {
                cause: format!("the worker {report}"),
            },
            None => HandleReset::WorkerDied {
                cause: "the worker ended".to_owned(),
            },
        }
    }
}
