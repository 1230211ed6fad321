//! Told once, with the first result after a handle lost what it remembered.

use serde::Serialize;
use utoipa::ToSchema;

use crate::supervisor;

/// Why a handle's kept history is gone. Template, tools, adapters and loaded caches are there again.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct HandleReset {
    reason: Reason,
    /// How the worker ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Reason {
    /// The process of the library ended.
    WorkerDied,
    /// Another model needed its place.
    Evicted,
}

impl From<supervisor::HandleReset> for HandleReset {
    fn from(reset: supervisor::HandleReset) -> Self {
        use supervisor::HandleReset as R;
        let (reason, cause) = match reset {
            R::WorkerDied { cause } => (Reason::WorkerDied, Some(cause)),
            R::Evicted => (Reason::Evicted, None),
        };
        Self { reason, cause }
    }
}
