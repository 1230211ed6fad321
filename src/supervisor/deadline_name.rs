//! The names of deadlines, as settings, metrics and clients know them.

/// All that a worker may report.
const NAMES: [&str; 9] = [
    "spawn",
    "library-open",
    "load",
    "prefill",
    "inter-token",
    "control-call",
    "abort-to-finish",
    "unload",
    "heartbeat",
];

/// The name that a worker sent, if it is one.
pub(super) fn deadline_name(name: &str) -> &'static str {
    NAMES
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("worker")
}
