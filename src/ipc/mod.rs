//! What daemon and worker say to each other: length-prefixed frames over a socketpair.
//!
//! Both ends are the same program file, but the first message is a protocol version all the same:
//! after an upgrade in place the running daemon starts workers from the new file.

mod frame;
mod messages;

pub use frame::{FrameError, FrameReader, MAX_FRAME_BYTES, encode};
pub use messages::{
    Command, DaemonHello, Event, LibraryFacts, LoadSpec, PROTOCOL_VERSION, PerfFigures, RunEnd,
    RunOutcome, RunSpec, TokenKind, WorkerDeadlines,
};
