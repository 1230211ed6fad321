use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::generation::{Deadline, GenerationError};

/// Every way a call fails. The message says what was attempted and what to do; a line the runtime
/// printed is in `reason` only where it holds no user's text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LibraryError {
    /// This release of the library cannot do it.
    #[error("{what} is not in librkllmrt {version}")]
    NotInLibrary { what: String, version: String },
    #[error("{function} returned {code}{}", said(reason.as_deref()))]
    Failed {
        function: String,
        code: i32,
        /// The runtime's last error line.
        reason: Option<String>,
    },
    #[error("the `{deadline}` deadline of {} ms passed in {function}", limit.as_millis())]
    DeadlinePassed {
        deadline: Deadline,
        limit: Duration,
        function: String,
    },
    #[error("the worker ended during {function}: {cause}")]
    WorkerDied { function: String, cause: String },
    #[error("{what} has {bytes} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        what: String,
        bytes: u64,
        limit_bytes: u64,
    },
    #[error("{what}: {reason}")]
    BadValue { what: String, reason: String },
    /// A prompt cache was not written whole, or was cut off since; it was removed.
    #[error("the prompt cache `{name}` is not whole and was removed: {reason}")]
    PromptCacheBroken { name: String, reason: String },
    /// The handle was closed, or the daemon is shutting down.
    #[error("the handle is closed")]
    Closed,
    /// No worker could be had: unknown model, full, not loadable, shutting down.
    #[error(transparent)]
    Unavailable(#[from] GenerationError),
    #[error("internal error: {0}")]
    Internal(String),
}

fn said(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |line| format!("; the runtime said: {line}"))
}

/// What a worker tells of a call that failed; the daemon makes a `LibraryError` of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallFailure {
    NotInLibrary {
        what: String,
        version: String,
    },
    Returned {
        function: String,
        code: i32,
    },
    BadValue {
        what: String,
        reason: String,
    },
    TooLarge {
        what: String,
        bytes: u64,
        limit_bytes: u64,
    },
    /// Ours, not the library's.
    Other {
        reason: String,
    },
}

impl CallFailure {
    /// `reason`: the last error line that the runtime printed.
    pub fn into_error(self, reason: Option<String>) -> LibraryError {
        match self {
            Self::NotInLibrary { what, version } => LibraryError::NotInLibrary { what, version },
            Self::Returned { function, code } => LibraryError::Failed {
                function,
                code,
                reason,
            },
            Self::BadValue { what, reason } => LibraryError::BadValue { what, reason },
            Self::TooLarge {
                what,
                bytes,
                limit_bytes,
            } => LibraryError::TooLarge {
                what,
                bytes,
                limit_bytes,
            },
            Self::Other { reason } => LibraryError::Internal(reason),
        }
    }
}
