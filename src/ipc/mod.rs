//! What daemon and worker say to each other: length-prefixed frames over a socketpair.
//!
//! Both ends are the same program, started by /proc/self/exe even after the file was replaced. The
//! first message is a protocol version all the same: a worker of another build must be refused and
//! not misread.

mod frame;
mod load_deadline;
mod messages;
mod reader_messages;
mod tensor_file;

pub use frame::{FrameError, FrameReader, MAX_FRAME_BYTES, empty, encode};
pub use load_deadline::{LoadDeadline, LoadFigures, LoadWatch};
pub use messages::{
    AbortMode, BegunAnswer, CallReply, CallSpec, Command, DaemonHello, EXIT_DEADLINE,
    EXIT_LOAD_FAILED, Event, Handles, LONGEST_PREFILL, LibraryFacts, LoadSpec, PROTOCOL_VERSION,
    PassedDeadline, PerfFigures, Question, RawRunSpec, RawSlot, RequestHandles, RunConstraint,
    RunEnd, RunOutcome, RunSpec, SavePrefix, SlotCommand, SlotEvent, TokenKind, WireTensor,
    WorkerDeadlines,
};
pub use reader_messages::{
    EntryKind, FlatFile, ListedEntry, ModelLocation, Prompt, RawPath, ReaderCommand, ReaderEvent,
    ReaderLimits, TemplateState, TokenPieces,
};
pub use tensor_file::{TensorFileError, open_tensor, write_tensor};
