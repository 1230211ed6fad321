//! The one map from what went wrong below to what JSON-RPC says about it.

use std::time::Duration;

use crate::generation::GenerationError;
use crate::http::request::access::Caller;
use crate::http::rpc::protocol::{ErrorKind, RpcError};
use crate::library_calls::LibraryError;

/// Tensors are given back as fast as their clients read.
const TENSORS_RETRY: Duration = Duration::from_secs(1);

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The error of a call that failed below, as `caller` may read it.
pub(super) fn of(error: LibraryError, caller: &Caller) -> RpcError {
    use LibraryError as E;
    let error = caller.may_read_of_library(error);
    let message = error.to_string();
    let failed = |kind| RpcError::new(kind, message.clone());
    match error {
        E::NotInLibrary { what, version } => failed(ErrorKind::NotInRuntime)
            .with("what", what)
            .with("library_version", version),
        E::Failed {
            function,
            code,
            reason,
        } => {
            let error = failed(ErrorKind::CallFailed)
                .with("function", function)
                .with("return_code", code);
            match reason {
                Some(line) => error.with("runtime_line", line),
                None => error,
            }
        }
        E::DeadlinePassed {
            deadline,
            limit,
            function,
        } => failed(ErrorKind::DeadlinePassed)
            .with("deadline", deadline.name())
            .with("limit_ms", whole_ms(limit))
            .with("function", function),
        E::WorkerDied { function, cause } => failed(ErrorKind::WorkerDied)
            .with("function", function)
            .with("cause", cause),
        E::TooLarge {
            what,
            bytes,
            limit_bytes,
        } => failed(ErrorKind::TooLarge)
            .with("what", what)
            .with("bytes", bytes)
            .with("limit_bytes", limit_bytes),
        E::BadValue { what, .. } => failed(ErrorKind::InvalidParams).with("param", what),
        E::PromptCacheBroken { name, .. } => {
            failed(ErrorKind::PromptCacheBroken).with("prompt_cache", name)
        }
        E::Closed => failed(ErrorKind::HandleClosed),
        E::Unavailable(error) => unavailable(&error),
        E::Internal(_) => failed(ErrorKind::InternalError),
    }
}

/// The error of a handle that could not be opened.
fn unavailable(error: &GenerationError) -> RpcError {
    use GenerationError as E;
    let failed = |kind| RpcError::new(kind, error.to_string());
    let with_retry = |error: RpcError, retry_after: Option<Duration>| match retry_after {
        Some(wait) => error.with("retry_after_ms", whole_ms(wait)),
        None => error,
    };
    match error {
        E::UnknownModel { .. } => failed(ErrorKind::UnknownModel),
        E::QueueFull { retry_after, .. } => {
            with_retry(failed(ErrorKind::LimitReached), Some(*retry_after))
        }
        E::ModelUnavailable { retry_after, .. } => {
            with_retry(failed(ErrorKind::ModelUnavailable), *retry_after)
        }
        E::ModelFailed { .. } => failed(ErrorKind::ModelUnavailable),
        E::QueueDeadline { waited, .. } => failed(ErrorKind::DeadlinePassed)
            .with("deadline", "queue")
            .with("limit_ms", whole_ms(*waited)),
        E::DeadlineExceeded { deadline, limit } => failed(ErrorKind::DeadlinePassed)
            .with("deadline", deadline.name())
            .with("limit_ms", whole_ms(*limit)),
        E::WorkerDied { .. } | E::AnswerInterrupted { .. } | E::PoisonRequest { .. } => {
            failed(ErrorKind::WorkerDied)
        }
        E::TensorsHeld { limit_bytes, .. } => {
            let error = failed(ErrorKind::LimitReached).with("limit_bytes", *limit_bytes);
            with_retry(error, Some(TENSORS_RETRY))
        }
        E::SlowReader { .. } => failed(ErrorKind::SlowReader),
        E::ShuttingDown => failed(ErrorKind::ShuttingDown),
        E::ContextLengthExceeded { .. } | E::PromptTooLong { .. } => {
            failed(ErrorKind::InvalidParams).with("param", "rkllm_input")
        }
        E::ParametersNotApplied { .. }
        | E::CannotConstrain
        | E::CannotTellLogprobs
        | E::NotKept { .. }
        | E::RunRefused { .. }
        | E::PromptRefused { .. }
        | E::RunFailed { .. } => failed(ErrorKind::CallFailed),
        E::Internal(_) => failed(ErrorKind::InternalError),
    }
}
