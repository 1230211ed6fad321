//! How a command in a slot ended, and what its end leaves of the worker.

use super::{Loss, Stop};
use crate::children::ChildProcess;
use crate::ipc::{FrameError, MAX_FRAME_BYTES};
use crate::library_calls::{CallFailure, LibraryError};
use crate::supervisor::lease::{Running, WorkerAfter};

/// How a command ended.
pub(in crate::supervisor) enum Ended<E> {
    Over(Over<E>),
    /// It was never handed over, because it cannot be sent.
    NotSent(Running, FrameError),
    /// The worker is of no more use and killed by now.
    Lost(Lost),
}

/// The worker has told the end.
pub(in crate::supervisor) struct Over<E> {
    pub running: Running,
    pub end: E,
    /// A call beside it hung, or a run failed: the worker must get nothing new to do.
    pub tainted: bool,
    /// Why it was ended early, if it was.
    pub stop: Option<Stop>,
}

pub(in crate::supervisor) struct Lost {
    pub loss: Loss,
    pub process: ChildProcess,
    pub stop: Option<Stop>,
}

impl<E> Over<E> {
    pub fn after(&self, answered: bool) -> WorkerAfter {
        match (self.tainted, answered) {
            (true, _) => WorkerAfter::Tainted,
            (false, true) => WorkerAfter::Answered,
            (false, false) => WorkerAfter::Unproven,
        }
    }
}

/// What cannot be sent, as a client of the vendor's API learns of it.
pub(in crate::supervisor) fn not_sent(error: FrameError, function: &str) -> LibraryError {
    match error {
        FrameError::TooLarge(bytes) => CallFailure::TooLarge {
            what: format!("what was given to {function}"),
            bytes: bytes as u64,
            limit_bytes: MAX_FRAME_BYTES as u64,
        }
        .into_error(None),
        error => LibraryError::Internal(error.to_string()),
    }
}
