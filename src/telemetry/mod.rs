//! What the daemon says about itself.
//!
//! Logs go to the journal with their fields, or to stderr, one line an event whatever an event
//! contains, because lines that a runtime prints and texts that clients send end up in them. Metrics are counted
//! where things happen and read when a client asks; `metrics` holds the name of every one.

mod changes;
pub mod journal;
mod log_line;
mod log_writer;
mod logging;
mod metrics;
mod own_process;
mod recent_log;
mod stderr;

pub use changes::{Change, Changes, Followed, Next, Numbered};
pub use log_writer::{LogWriter, log_entries_dropped, log_entry_lost};
pub use logging::{LogFlush, LoggingError, init_logging, set_log_filter};
pub use metrics::{
    Metrics, ModelFigures, OwnFigures, PageFormat, PrefixFigures, Readings, RpcRun, Slots,
};
pub use own_process::OwnProcess;
pub use recent_log::{LogExtract, LogQuery, LoggedEvent, RecentLog, recent_log};
