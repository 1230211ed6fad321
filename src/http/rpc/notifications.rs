//! Messages to a client that answer nothing it has asked.

use super::outgoing::{NotSent, Outgoing};
use super::protocol::{ErrorKind, RpcError, notification};

/// Sends notifications.
#[derive(Clone)]
pub(super) struct Notifications(pub(super) Outgoing);

impl Notifications {
    pub async fn send<T: serde::Serialize>(
        &self,
        method: &str,
        params: &T,
    ) -> Result<(), RpcError> {
        let sent = self.0.send(notification(method, params)).await;
        sent.map_err(|error| match error {
            NotSent::SlowReader(waited) => RpcError::new(
                ErrorKind::SlowReader,
                format!("{error}, so its run was aborted"),
            )
            .with(
                "waited_ms",
                u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
            ),
            NotSent::Gone => RpcError::cancelled(error.to_string()),
        })
    }

    /// The last one of a run; it may wait as long as an answer.
    pub async fn send_last<T: serde::Serialize>(&self, method: &str, params: &T) {
        // The connection of a client that does not even read this is ended.
        let _ = self.0.send_answer(notification(method, params)).await;
    }
}
