//! How an exchange ends without its worker, and whether what was asked may be to blame.

use std::time::Duration;

use tokio::time::timeout;

use super::{Done, End, Exchange};
use crate::library_calls::{CallFailure, LibraryError};
use crate::supervisor::connection::ConnectionError;
use crate::supervisor::exit_report::EndReason;
use crate::supervisor::loading::Worker;

/// How long a lost worker's exit status is waited for.
const EXIT_STATUS_WAIT: Duration = Duration::from_secs(5);

/// A worker lost on the way.
#[derive(Debug)]
pub struct Lost {
    pub error: LibraryError,
    /// Whether what was asked may be to blame.
    pub is_fault: bool,
    pub reason: EndReason,
}

impl Exchange<'_> {
    pub(super) async fn sending_failed(&self, worker: &Worker, error: ConnectionError) -> End {
        if let ConnectionError::Frame(crate::ipc::FrameError::TooLarge(bytes)) = error {
            // Nothing was sent of it.
            return End::Done {
                done: Done::Called(Err(CallFailure::TooLarge {
                    what: format!("what was given to {}", self.function),
                    bytes: bytes as u64,
                    limit_bytes: crate::ipc::MAX_FRAME_BYTES as u64,
                })),
                tainted: self.tainted,
            };
        }
        End::Lost(self.lost(worker, error).await)
    }

    pub(super) fn expired(&self, deadline: &'static str, limit: Duration) -> Lost {
        self.metrics.deadline_passed(deadline);
        let reason = EndReason::Deadline(deadline);
        Lost {
            error: LibraryError::DeadlinePassed {
                deadline,
                limit,
                function: self.function.to_owned(),
            },
            is_fault: reason.is_fault(),
            reason,
        }
    }

    /// Explains a connection that failed.
    pub(super) async fn lost(&self, worker: &Worker, error: ConnectionError) -> Lost {
        let died = |cause: String| LibraryError::WorkerDied {
            function: self.function.to_owned(),
            cause,
        };
        let exit = match &error {
            ConnectionError::Closed | ConnectionError::Io(_) => {
                let exited = timeout(EXIT_STATUS_WAIT, worker.process.exited()).await;
                exited.ok().flatten()
            }
            ConnectionError::NotRead { .. } => {
                return Lost {
                    error: died(error.to_string()),
                    is_fault: false,
                    reason: EndReason::Deadline("heartbeat"),
                };
            }
            _ => None,
        };
        match exit {
            Some(report) => Lost {
                error: died(report.to_string()),
                is_fault: report.cause.is_fault(),
                reason: EndReason::Cancelled,
            },
            None => Lost {
                error: died(error.to_string()),
                is_fault: true,
                reason: EndReason::Tainted,
            },
        }
    }
}

pub(super) fn unreadable(reason: String) -> Lost {
    Lost {
        error: LibraryError::Internal(reason),
        is_fault: true,
        reason: EndReason::Tainted,
    }
}
