//! How a worker is lost in the middle of something, and whether what it did may be to blame.

use std::fmt;
use std::time::Duration;

use tokio::time::timeout;

use crate::children::{ConnectionError, EndReason};
use crate::generation::Deadline;
use crate::library_calls::LibraryError;
use crate::supervisor::attempts::Death;
use crate::supervisor::worker::Worker;

/// How long a lost worker's exit status is waited for.
const EXIT_STATUS_WAIT: Duration = Duration::from_secs(5);

/// A worker that is of no more use.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct Loss {
    pub cause: Cause,
    /// Whether what it did may be to blame.
    is_fault: bool,
    /// Whether something that ran may be behind it.
    is_suspicious: bool,
    /// Why we end the process, if it has not ended by itself.
    pub reason: EndReason,
    /// What was on the worker beside it.
    co_runners: usize,
}

#[derive(Clone, Debug)]
pub(in crate::supervisor) enum Cause {
    /// Its process ended, as is said here.
    Ended(String),
    /// Its connection failed although its process is there.
    Connection(String),
    /// A deadline passed that only the process's end can end.
    Deadline {
        deadline: Deadline,
        limit: Duration,
        call: String,
    },
    /// It has told something impossible.
    Unreadable(String),
    /// It did not end the run of an answer that was complete.
    Overdue,
    /// A call beside what it did hung.
    Tainted,
    /// The library has failed in a run of several sequences.
    Batch(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(report) => write!(f, "the worker {report}"),
            Self::Connection(error) => f.write_str(error),
            Self::Deadline {
                deadline,
                limit,
                call,
            } => write!(
                f,
                "the `{deadline}` deadline of {} ms passed in {call}",
                limit.as_millis()
            ),
            Self::Unreadable(reason) => f.write_str(reason),
            Self::Overdue => f.write_str("the runtime did not end a complete answer's run in time"),
            Self::Tainted => f.write_str("a call beside it hung in the library"),
            Self::Batch(reason) => write!(f, "the runtime failed in its batch: {reason}"),
        }
    }
}

impl Loss {
    pub fn deadline(deadline: Deadline, limit: Duration, call: &str) -> Self {
        let reason = EndReason::Deadline(deadline);
        Self {
            cause: Cause::Deadline {
                deadline,
                limit,
                call: call.to_owned(),
            },
            is_fault: reason.is_fault(),
            is_suspicious: reason.is_fault(),
            reason,
            co_runners: 0,
        }
    }

    pub fn unreadable(reason: String) -> Self {
        Self {
            cause: Cause::Unreadable(reason),
            is_fault: true,
            is_suspicious: true,
            reason: EndReason::Tainted,
            co_runners: 0,
        }
    }

    pub fn overdue() -> Self {
        Self {
            cause: Cause::Overdue,
            is_fault: false,
            is_suspicious: false,
            reason: EndReason::Cancelled,
            co_runners: 0,
        }
    }

    pub fn tainted() -> Self {
        Self {
            cause: Cause::Tainted,
            is_fault: false,
            is_suspicious: false,
            reason: EndReason::Tainted,
            co_runners: 0,
        }
    }

    /// The library does not say which of a batch it has failed in.
    pub fn of_batch(reason: &str) -> Self {
        Self {
            cause: Cause::Batch(reason.to_owned()),
            is_fault: true,
            is_suspicious: true,
            reason: EndReason::Tainted,
            co_runners: 1,
        }
    }

    /// Explains a connection that failed.
    pub async fn of(worker: &Worker, error: ConnectionError) -> Self {
        let ended = match &error {
            ConnectionError::Closed | ConnectionError::Io(_) => {
                let exited = timeout(EXIT_STATUS_WAIT, worker.process.exited()).await;
                exited.ok().flatten()
            }
            _ => None,
        };
        match ended {
            Some(report) => Self {
                cause: Cause::Ended(report.to_string()),
                is_fault: report.cause.is_fault(),
                is_suspicious: report.cause.is_suspicious(),
                reason: EndReason::Cancelled,
                co_runners: 0,
            },
            None => Self {
                cause: Cause::Connection(error.to_string()),
                is_fault: true,
                is_suspicious: true,
                reason: EndReason::Tainted,
                co_runners: 0,
            },
        }
    }

    /// The same, with what was on the worker beside it.
    pub fn beside(self, co_runners: usize) -> Self {
        Self { co_runners, ..self }
    }

    /// Whether what it did, and nothing else, may be to blame.
    pub fn is_own_fault(&self) -> bool {
        self.is_fault && self.co_runners == 0
    }

    /// Whether what ran on the worker may be to blame.
    pub fn is_fault(&self) -> bool {
        self.is_fault
    }

    pub fn death(&self) -> Death {
        Death {
            is_fault: self.is_fault,
            is_suspicious: self.is_suspicious,
            co_runners: self.co_runners,
        }
    }

    /// The same for a client of the vendor's API that has called `function`.
    pub fn into_library_error(self, function: &str) -> LibraryError {
        let function = function.to_owned();
        match self.cause {
            Cause::Ended(cause) | Cause::Connection(cause) => {
                LibraryError::WorkerDied { function, cause }
            }
            Cause::Deadline {
                deadline, limit, ..
            } => LibraryError::DeadlinePassed {
                deadline,
                limit,
                function,
            },
            Cause::Unreadable(reason) | Cause::Batch(reason) => LibraryError::Internal(reason),
            cause @ (Cause::Overdue | Cause::Tainted) => LibraryError::WorkerDied {
                function,
                cause: cause.to_string(),
            },
        }
    }
}
