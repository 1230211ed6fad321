use std::fmt;

use serde::{Deserialize, Serialize};

/// A limit of one wait. It travels from a worker by what it is, and is told by its name in settings,
/// metrics and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Deadline {
    Spawn,
    LibraryOpen,
    Load,
    Prefill,
    InterToken,
    ControlCall,
    AbortToFinish,
    Unload,
    /// A save or load of a conversation's prefix.
    PrefixFile,
    /// How long a worker may not be heard of.
    Heartbeat,
    /// A worker's that ended itself, where it did not come to say by which.
    Worker,
    /// A request's, from entering the queue to the end of its answer.
    Total,
    /// A response's in the background, from its request to its end.
    Background,
    ReaderOpen,
    ReaderCall,
    /// A message's of JSON-RPC that has begun to arrive.
    Message,
}

impl Deadline {
    pub fn name(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::LibraryOpen => "library-open",
            Self::Load => "load",
            Self::Prefill => "prefill",
            Self::InterToken => "inter-token",
            Self::ControlCall => "control-call",
            Self::AbortToFinish => "abort-to-finish",
            Self::Unload => "unload",
            Self::PrefixFile => "prefix-file",
            Self::Heartbeat => "heartbeat",
            Self::Worker => "worker",
            Self::Total => "total",
            Self::Background => "background",
            Self::ReaderOpen => "reader-open",
            Self::ReaderCall => "reader-call",
            Self::Message => "message",
        }
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
