//! Lines of the log that say what an administrator has changed.

use crate::generation::{ClientKey, RequestId};
use crate::http::request::error::quote;

/// Who changes something. It holds nothing of the request, so a change that hangs holds up no connection.
pub(crate) struct Auditor {
    pub request: RequestId,
    pub peer: ClientKey,
    /// Name of the key.
    pub key: Option<String>,
}

impl Auditor {
    /// Writes down what was changed.
    pub fn tell(&self, did: &'static str, what: &str) {
        tracing::info!(
            request = %self.request,
            client = %self.peer.name(),
            key = self.key.as_deref(),
            what = %quote(what),
            "administrator {did}"
        );
    }
}
