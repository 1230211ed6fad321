//! What the daemon and systemd tell each other: readiness, a status in words, the watchdog, sockets.
//!
//! Nothing here can hold the daemon up. A thread of its own sends the messages, and drops those that it
//! has no room for. Without a service manager everything here does nothing.

mod notifier;
mod sockets;
mod status_text;

pub use notifier::Notifier;
pub use sockets::{InheritedSocket, SocketError, take_sockets};
pub use status_text::report_status;
