use super::{FinishReason, GenerationError};
use crate::conversation::ReplyPiece;

/// What a generation tells its reader, in order: `Started` when its turn has come (not if it fails
/// before), any number of pieces, then exactly one of `Finished` and `Failed`.
///
/// The text of a piece became sendable with one token: never a part of a UTF-8 character, never a part
/// of what may become a stop string.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyEvent {
    Started(RunStart),
    /// What one token made certain.
    Piece(ReplyPiece),
    /// Several things that one token made certain, in order.
    Pieces(Vec<ReplyPiece>),
    Finished(Box<Completion>),
    Failed(GenerationError),
}

impl ReplyEvent {
    /// Nothing follows it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Finished(_) | Self::Failed(_))
    }
}

/// The run was handed to a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunStart {
    /// Names of requested parameters that this runtime cannot vary per request; the model's own
    /// values are used instead.
    pub not_applied: Vec<&'static str>,
}

/// The end of a generation and its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    pub reason: FinishReason,
    /// `None` when one of its counts is not known: usage is whole or absent.
    pub usage: Option<Usage>,
    pub timings: Timings,
}

/// Token counts of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    /// Prompt tokens found in the KV cache, not evaluated again. `None`: not known.
    pub cached_prompt_tokens: Option<u32>,
    /// Generated tokens that belong to thoughts. `None`: thoughts were not looked for.
    pub reasoning_tokens: Option<u32>,
}

/// Measured times and counts; what was not measured is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Prompt tokens evaluated in prefill, from the runtime.
    pub prompt_n: Option<u32>,
    pub prompt_ms: Option<f32>,
    /// Tokens generated: callbacks counted.
    pub predicted_n: Option<u32>,
    /// Time for the tokens after the first, from the runtime.
    pub predicted_ms: Option<f32>,
    /// Tokens after the first per second of `predicted_ms`.
    pub predicted_per_second: Option<f32>,
    /// Peak resident memory of the worker as the runtime reports it (VmHWM), in MiB.
    pub runtime_memory_mb: Option<f32>,
    /// From admission to the start of the run.
    pub queue_ms: Option<f32>,
    /// Requests that were to be served before this one when it entered the queue.
    pub queue_position: Option<u32>,
    /// How often the answer went on with another worker because its own had died.
    pub resumptions: u32,
}
