//! What daemon and worker say to each other: length-prefixed frames over a socketpair.
//!
//! Both ends are the same program, started by /proc/self/exe even after the file was replaced. The
//! first message is a protocol version all the same: a worker of another build must be refused and
//! not misread.

mod frame;
mod load_deadline;
mod messages;
mod tensor_file;

pub use frame::{FrameError, FrameReader, MAX_FRAME_BYTES, encode};
pub use load_deadline::{LoadDeadline, LoadFigures, LoadWatch};
pub use messages::{
    AbortMode, Answer, BegunAnswer, CallDeadline, CallSpec, Command, DaemonHello, EXIT_DEADLINE,
    EXIT_LOAD_FAILED, Event, LibraryFacts, LoadSpec, PROTOCOL_VERSION, PerfFigures, Question,
    RawRunSpec, RawSlot, RunEnd, RunOutcome, RunSpec, TokenKind, WireTensor, WorkerDeadlines,
};
pub use tensor_file::{TensorFileError, read_tensor, write_tensor};
