//! The log as the journal wants it: one datagram an event, with its fields as fields.
//!
//! Only where standard error is the journal's own stream (`JOURNAL_STREAM`); everywhere else the log
//! is text. Whoever logs never waits: events go through a bounded queue to a thread of their own, and
//! while the journal takes none they are dropped and counted. That is also why this is not
//! `tracing-journald`, whose fields and priorities are kept otherwise: it sends from the thread that
//! logs, and waits while the journal does not read.

mod entry;
mod layer;
mod stream;
mod writer;

pub use layer::JournalLayer;
pub use stream::stderr_is_the_journal;
pub use writer::JournalWriter;

/// Where the journal listens for entries with fields.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
