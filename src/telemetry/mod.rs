//! What the daemon says about itself.
//!
//! Logs go to stderr, one line an event whatever an event contains, because lines that a runtime
//! prints and texts that clients send end up in them.

mod log_line;
mod logging;

pub use logging::{LoggingError, init_logging};
