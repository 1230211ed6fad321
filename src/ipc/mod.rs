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
pub use messages::deadlines::{LONGEST_PREFILL, PassedDeadline, WorkerDeadlines};
pub use messages::load::{Handles, LibraryFacts, LoadSpec, RequestHandles, WorkerWalls};
pub use messages::raw::{CallReply, CallSpec, Question, RawRunSpec, RawSlot, WireTensor};
pub use messages::run::{
    BegunAnswer, ClockFigures, PerfFigures, RedrawSpec, Redraws, RunConstraint, RunEnd, RunOutcome,
    RunSpec, SavePrefix, TokenKind, WaitsFor,
};
pub use messages::{
    AbortMode, Command, DaemonHello, EXIT_DEADLINE, EXIT_LOAD_FAILED, Event, PROTOCOL_VERSION,
    SlotCommand, SlotEvent,
};
pub use reader_messages::{
    EntryKind, FlatFile, ListedEntry, ModelLocation, PinnedPrompt, Prompt, RawPath, ReaderCommand,
    ReaderEvent, ReaderLimits, ReaderWork, SharedPrefixes, TemplateState, TokenPieces,
};
pub use tensor_file::{TensorFileError, open_tensor, write_tensor};
