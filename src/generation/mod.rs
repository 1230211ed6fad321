//! The vocabulary every layer shares: what is asked of a model, what comes back, and why it ends.
//!
//! Everything above may use it; it uses how replies are read and what their pieces are. No HTTP, no process, no vendor type appears
//! here, so a dialect can be added without touching a worker and the other way round.

mod adapter;
mod deadline;
mod error;
mod event;
mod fingerprint;
mod finish;
mod keep_alive;
mod request;
mod stop_strings;

pub use adapter::Adapter;
pub use deadline::Deadline;
pub use error::GenerationError;
pub use event::{Completion, ReplyEvent, RunStart, Timings, Usage};
pub use fingerprint::{Fingerprint, Repeats};
pub use finish::FinishReason;
pub use keep_alive::{KeepAlive, KeptUntil};
pub use request::{
    Abilities, ClientKey, DrawRequest, GenerationRequest, LogprobsRequest, ModelId, RedrawLimits,
    RedrawRuns, RequestId, RunExtensions, SamplingRequest, Weight,
};
pub use stop_strings::StopStrings;

/// The most answers that a model can be told to make at the same time.
pub const MOST_PARALLEL: u8 = 16;
