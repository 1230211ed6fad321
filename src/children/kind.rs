use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of child process: which command of this program it is, and what it speaks.
pub trait ChildKind: Send + Sync + 'static {
    /// The hidden command of this program.
    const COMMAND: &'static str;
    /// What it is called in logs and errors.
    const NAME: &'static str;
    /// What the daemon says to it.
    type Command: Serialize + Send + Sync;
    /// What it says to the daemon.
    type Event: DeserializeOwned + Send;

    /// The largest event; a larger one is refused before it has arrived.
    const EVENT_LIMIT_BYTES: usize = crate::ipc::MAX_FRAME_BYTES;

    /// The protocol's version, if this is a hello.
    fn protocol(event: &Self::Event) -> Option<u32>;
}
