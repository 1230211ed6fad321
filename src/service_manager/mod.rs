//! What the daemon and systemd tell each other: readiness, a status in words, the watchdog, sockets.
//!
//! Nothing here can hold the daemon up: messages are handed to a thread of their own, and what that
//! thread has no room for is dropped. Without a service manager everything here does nothing.

mod notifier;
mod status_text;

pub use notifier::Notifier;
pub use status_text::report_status;
