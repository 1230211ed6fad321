//! What the daemon says about itself.
//!
//! Logs go to stderr, one line an event whatever an event contains, because lines that a runtime
//! prints and texts that clients send end up in them. Metrics are counted where things happen and
//! read by whoever asks; `metrics` holds the name of every one.

mod log_line;
mod logging;
mod metrics;
mod own_process;

pub use logging::{LoggingError, init_logging};
pub use metrics::{MEDIA_TYPE, Metrics, ModelFigures};
