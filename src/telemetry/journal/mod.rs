//! The log as the journal wants it: one datagram an event, with its fields as fields.
//!
//! It is used where standard error is the journal's own stream (`JOURNAL_STREAM`). Everywhere else the
//! log is text. A thread that logs never waits: events go through a bounded queue to a thread of their
//! own. While the journal takes none they are dropped and counted.
//!
//! Every entry is written or counted, which `tracing-journald` (0.3.2) does not do. Its layer could run
//! on the writing thread and would delay no other thread either. But it drops the error of a send without
//! a word: what is logged while the journal restarts is neither written nor counted (of 101 entries around
//! a restart it wrote 1, and counted none). Its path of the socket is fixed as well. Its MESSAGE has no
//! fields behind it, which is all that most people see.

mod entry;
mod layer;
mod stream;
mod writer;

pub use layer::JournalLayer;
pub use stream::stderr_is_the_journal;
pub use writer::start;

/// Where the journal listens for entries with fields.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
