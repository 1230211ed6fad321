//! What administrators are told over HTTP.

use serde::{Deserialize, Serialize};

use super::violation::Found;

/// What `/v1/admin` may hold and how many may follow it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdminSettings {
    /// Bytes of the log that are kept for `/v1/admin/logs`; 0: nothing is.
    pub recent_log_bytes: usize,
    /// Clients that follow `/v1/admin/events` at the same time.
    pub max_event_streams: usize,
    /// Events that one of them may be behind; it is told how many further ones it has missed.
    pub event_buffer: usize,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            recent_log_bytes: 256 * 1024,
            max_event_streams: 8,
            event_buffer: 1024,
        }
    }
}

pub(super) fn check(admin: &AdminSettings, found: &mut Found) {
    let limit = admin.recent_log_bytes;
    found.range("admin.recent-log-bytes", limit, 0..=64 << 20);
    let most = admin.max_event_streams;
    found.range("admin.max-event-streams", most, 0..=65_536);
    found.range("admin.event-buffer", admin.event_buffer, 1..=65_536);
}
