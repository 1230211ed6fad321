//! What an answer that is an error carries. The numbers, names and meanings are one table, which the
//! documentation and `rpc.discover` repeat; they are stable.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::memory::OverBudget;

/// Memory for requests comes back when one ends, which is soon.
const RETRY_AFTER_MS: u64 = 1000;

macro_rules! error_kinds {
    ($($kind:ident = $code:literal, $name:literal, $meaning:literal;)*) => {
        /// Every error there is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ErrorKind {
            $(#[doc = $meaning] $kind,)*
        }

        impl ErrorKind {
            /// All of them, in the order of their documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// `error.code`.
            pub fn code(self) -> i32 {
                match self {
                    $(Self::$kind => $code,)*
                }
            }

            /// `error.data.code`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// When it is given.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$kind => $meaning,)*
                }
            }
        }
    };
}

error_kinds! {
    ParseError = -32700, "parse_error", "The message is not valid JSON in UTF-8.";
    InvalidRequest = -32600, "invalid_request",
        "The message is no request, its batch is empty or too long, or it is longer than a message may be.";
    MethodNotFound = -32601, "method_not_found", "There is no such method.";
    InvalidParams = -32602, "invalid_params",
        "A parameter is missing, unknown, of the wrong type or out of range.";
    InternalError = -32603, "internal_error", "A fault of the daemon's own.";
    CallFailed = -32000, "call_failed",
        "The library's function returned an error: `data.return_code` and, where it printed one and the caller has a key, `data.runtime_line`.";
    NotInRuntime = -32001, "not_in_runtime",
        "The loaded version of the library does not have it; the message names the version.";
    UnknownHandle = -32002, "unknown_handle",
        "No such handle belongs to this connection or client: never made, destroyed, or idle for too long.";
    UnknownModel = -32003, "unknown_model", "No model of that id is installed.";
    ModelUnavailable = -32004, "model_unavailable", "The model cannot be loaded; the message says why.";
    DeadlinePassed = -32005, "deadline_passed",
        "One of the daemon's deadlines passed: `data.deadline` and `data.limit_ms`.";
    WorkerDied = -32006, "worker_died",
        "The library's process ended during the call. The handle lives on with a new one.";
    TooLarge = -32007, "too_large",
        "A tensor is larger than its limit: ask for the last row, or raise the limit. Or a run's text, or the answers of a batch, became too large. Or a message needs more than half of `memory.requests-limit-bytes`.";
    LimitReached = -32008, "limit_reached",
        "Too many handles, calls in progress or waiting requests, or no memory for another; `data.retry_after_ms` where known.";
    SlowReader = -32009, "slow_reader",
        "The client did not read what the run produced, so the run was aborted.";
    NeedsNotifications = -32010, "needs_notifications",
        "This transport cannot carry the notifications that the call asks for.";
    HandleClosed = -32011, "handle_closed", "The handle was destroyed while the call was waiting or running.";
    ShuttingDown = -32012, "shutting_down", "The daemon is shutting down.";
    ModelNotAllowed = -32013, "model_not_allowed", "The caller's key may not use this model.";
    PromptCacheBroken = -32014, "prompt_cache_broken",
        "A prompt cache is not whole: its run could not write all of it, or it was cut off since. It was removed; `data.prompt_cache` is its name.";
    AbortedByAdministrator = -32015, "aborted_by_administrator", "An administrator has ended the run, or the load.";
}

/// `error` of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RpcError {
    #[serde(skip)]
    kind: ErrorKind,
    code: i32,
    message: String,
    data: Map<String, Value>,
    /// What it is about ended with its client.
    #[serde(skip)]
    is_cancelled: bool,
}

impl RpcError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut data = Map::new();
        data.insert("code".to_owned(), kind.name().into());
        Self {
            kind,
            code: kind.code(),
            message: message.into(),
            data,
            is_cancelled: false,
        }
    }

    /// The client has left, so nothing reads this; what it is about was cancelled.
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self {
            is_cancelled: true,
            ..Self::new(ErrorKind::SlowReader, message)
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// There is no memory for what the client wants.
    pub fn of_budget(over: OverBudget) -> Self {
        match over {
            OverBudget::NeverFits { limit_bytes } => {
                Self::new(ErrorKind::TooLarge, over.to_string()).with("limit_bytes", limit_bytes)
            }
            OverBudget::ClientsShare { .. } | OverBudget::All { .. } => {
                Self::new(ErrorKind::LimitReached, over.to_string())
                    .with("retry_after_ms", RETRY_AFTER_MS)
            }
        }
    }

    /// Adds a member to `data`.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParams, message)
    }

    /// `data.code`.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    #[cfg(test)]
    pub fn code(&self) -> i32 {
        self.code
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_and_names_are_distinct_and_within_the_ranges_of_the_specification() {
        let codes: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        let names: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert_eq!(names.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            let predefined = [-32700, -32600, -32601, -32602, -32603];
            let code = kind.code();
            assert!(
                predefined.contains(&code) || (-32099..=-32000).contains(&code),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn an_error_names_itself_in_its_data() {
        let error =
            RpcError::new(ErrorKind::CallFailed, "rkllm_run returned -1").with("return_code", -1);
        assert_eq!(
            serde_json::to_value(&error).unwrap(),
            serde_json::json!({
                "code": -32000,
                "message": "rkllm_run returned -1",
                "data": {"code": "call_failed", "return_code": -1},
            })
        );
    }
}
