use super::{Fingerprint, FinishReason, GenerationError};
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
    /// What makes it; `None`: that is not known.
    pub fingerprint: Option<Fingerprint>,
    /// All of it is made by runs that tell the logits of each token, which are slower.
    pub reads_logits: bool,
    /// Of its tokens some are drawn with the penalties that its model was loaded with, and some without.
    pub has_loaded_penalties: bool,
}

/// The end of a generation and its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    pub reason: FinishReason,
    /// The stop string of the request's that ended it.
    pub stop_text: Option<String>,
    /// `None` when one of its counts is not known: usage is whole or absent.
    pub usage: Option<Usage>,
    pub timings: Timings,
}

impl Completion {
    /// What several come to, `of_prompt` of each prompt: counts and times are sums, in which a prompt's
    /// tokens are there once.
    pub fn of_all(all: &[Self], of_prompt: usize) -> Option<Self> {
        let first = all.first()?;
        if all.len() == 1 {
            return Some(first.clone());
        }
        Some(Self {
            reason: first.reason,
            stop_text: first.stop_text.clone(),
            usage: Usage::of_all(all, of_prompt),
            timings: Timings::of_all(all),
        })
    }
}

impl Usage {
    fn of_all(all: &[Completion], of_prompt: usize) -> Option<Self> {
        let usages: Option<Vec<Self>> = all.iter().map(|completion| completion.usage).collect();
        let usages = usages?;
        let prompts = || usages.iter().step_by(of_prompt.max(1));
        Some(Self {
            prompt_tokens: prompts().map(|usage| usage.prompt_tokens).sum(),
            completion_tokens: usages.iter().map(|usage| usage.completion_tokens).sum(),
            cached_prompt_tokens: prompts().map(|usage| usage.cached_prompt_tokens).sum(),
            reasoning_tokens: usages.iter().map(|usage| usage.reasoning_tokens).sum(),
        })
    }
}

impl Timings {
    fn of_all(all: &[Completion]) -> Self {
        let timings = || all.iter().map(|completion| &completion.timings);
        let predicted_ms: Option<f32> = timings().map(|timings| timings.predicted_ms).sum();
        // Tokens after the first of each.
        let followed: Option<f32> = timings()
            .map(|timings| Some(timings.predicted_per_second? * timings.predicted_ms?))
            .sum();
        let first = all.first().map(|completion| completion.timings);
        let first = first.unwrap_or_default();
        Self {
            prompt_n: timings().map(|timings| timings.prompt_n).sum(),
            prompt_ms: timings().map(|timings| timings.prompt_ms).sum(),
            predicted_n: timings().map(|timings| timings.predicted_n).sum(),
            predicted_ms,
            predicted_per_second: followed
                .zip(predicted_ms)
                .map(|(followed, ms)| followed / ms)
                .filter(|rate| rate.is_finite()),
            runtime_memory_mb: timings()
                .filter_map(|timings| timings.runtime_memory_mb)
                .reduce(f32::max),
            resumptions: timings().map(|timings| timings.resumptions).sum(),
            queue_ms: first.queue_ms,
            queue_position: first.queue_position,
        }
    }
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
    /// Its time, from the runtime; of one among several of a batch the time from the batch's beginning to its own
    /// first token, in which all prompts are evaluated, by the worker's clock.
    pub prompt_ms: Option<f32>,
    /// Tokens generated: callbacks counted.
    pub predicted_n: Option<u32>,
    /// Time for the tokens after the first, from the runtime; of one of a batch, by the worker's clock.
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
