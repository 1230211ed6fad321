//! Why a model could not be loaded, in the words of those who know most of it: the worker, its process's end,
//! or the last line that the runtime printed.

use std::time::Duration;

use tokio::time::timeout;

use super::loading::GUARD_SLACK;
use super::{WorkerKind, runtime_lines};
use crate::children::{Child, ConnectionError, EndReason};
use crate::generation::Deadline;
use crate::ipc::{Event, PassedDeadline};
use crate::library_calls::CallFailure;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct LoadFailure {
    pub reason: String,
    /// Trying again would fail in the same way.
    pub is_certain: bool,
    /// Why its process is ended.
    pub end: EndReason,
    /// The runtime refused the context length and told the model's limit.
    pub context_limit: Option<u32>,
    /// The adapter that was being loaded.
    pub adapter: Option<String>,
    /// The same for a client of the vendor's API.
    pub failure: Option<CallFailure>,
}

impl LoadFailure {
    pub fn deadline(name: Deadline, limit: Duration) -> Self {
        Self {
            end: EndReason::Deadline(name),
            ..Self::new(format!(
                "the `{name}` deadline of {} ms passed",
                limit.as_millis()
            ))
        }
    }

    pub fn certain(reason: impl Into<String>) -> Self {
        Self {
            is_certain: true,
            ..Self::new(reason)
        }
    }

    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_certain: false,
            end: EndReason::LoadFailed,
            context_limit: None,
            adapter: None,
            failure: None,
        }
    }
}

/// Explains a connection that failed while `during` was going on.
pub async fn connection_failed(
    worker: &Child<WorkerKind>,
    error: ConnectionError,
    during: &str,
) -> LoadFailure {
    if !matches!(error, ConnectionError::Closed | ConnectionError::Io(_)) {
        return LoadFailure::new(error.to_string());
    }
    let exit = match timeout(GUARD_SLACK, worker.process.exited()).await {
        Ok(Some(report)) => report.to_string(),
        _ => "closed its connection".to_owned(),
    };
    with_printed_reason(
        worker,
        LoadFailure::new(format!("the worker {exit} while {during}")),
    )
    .await
}

/// What the worker said instead of the next step. `is_certain`: this step fails in the same way
/// again.
pub async fn unexpected(worker: &Child<WorkerKind>, event: Event, is_certain: bool) -> LoadFailure {
    let failure = match event {
        Event::LoadFailed { reason, failure } => LoadFailure {
            is_certain: is_certain
                || matches!(
                    failure,
                    Some(CallFailure::NotInLibrary { .. } | CallFailure::BadValue { .. })
                ),
            failure,
            ..LoadFailure::new(reason)
        },
        Event::DeadlinePassed(PassedDeadline {
            deadline,
            limit,
            call,
        }) => LoadFailure {
            end: EndReason::Deadline(deadline),
            ..LoadFailure::new(format!(
                "the `{deadline}` deadline of {} ms passed in {call}",
                limit.as_millis()
            ))
        },
        other => LoadFailure::new(format!(
            "the worker sent something unexpected while loading: {other:?}"
        )),
    };
    with_printed_reason(worker, failure).await
}

/// A load prints no user's text, so its error line may be shown.
async fn with_printed_reason(worker: &Child<WorkerKind>, failure: LoadFailure) -> LoadFailure {
    let lines = worker.lines.take().await;
    LoadFailure {
        reason: match runtime_lines::first_error(&lines) {
            Some(line) => format!("{}; the runtime said: {line}", failure.reason),
            None => failure.reason,
        },
        context_limit: runtime_lines::context_limit(&lines),
        ..failure
    }
}
