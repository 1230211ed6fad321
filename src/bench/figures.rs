//! What the measurements give, as docs/board-facts.md describes it.

use serde::Serialize;

/// What a run that makes tokens told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decoding {
    pub tokens: u32,
    /// After the first; null where there was one at the most.
    pub tokens_per_second: Option<f64>,
    pub first_token_ms: Option<f64>,
    pub library_told: Option<Told>,
}

/// The library's own figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    pub prefill_tokens: i32,
    pub prefill_time_ms: f32,
    pub generate_tokens: i32,
    pub generate_time_ms: f32,
    pub memory_usage_mb: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogitsMode {
    pub callbacks: u32,
    pub callbacks_with_logits: u32,
    pub callbacks_with_ids: u32,
    pub callbacks_with_texts: u32,
    pub vocabulary_tokens: Option<usize>,
    /// After the first; null where there was one at the most.
    pub callbacks_per_second: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prefill {
    pub given_tokens: usize,
    pub first_token_ms: Option<f64>,
    pub library_told: Option<Told>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrefixReuse {
    /// Into an empty cache.
    pub first: Prefill,
    /// The same tokens and some more.
    pub longer: Prefill,
    /// The same tokens as those.
    pub again: Prefill,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AbortLatency {
    /// From an abort between two tokens to the end of the run.
    pub decoding_ms: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrefillAbort {
    /// From an abort during the prefill to the end of the run.
    pub prefill_ms: f64,
    pub aborted_after_ms: f64,
    pub prompt_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Batch {
    pub n_batch: u8,
    pub tokens: u32,
    pub tokens_per_second: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HandleMemory {
    /// Of the machine, before the handle was opened.
    pub available_before_bytes: Option<u64>,
    /// When it was open.
    pub available_open_bytes: Option<u64>,
    /// After a run.
    pub available_after_run_bytes: Option<u64>,
    /// Peak of the worker's resident memory, as the library tells it.
    pub library_told_mb: Option<f32>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeveralHandles {
    pub handles: usize,
    pub tokens: u32,
    /// Of all of them, from the first token of any to the last of any.
    pub tokens_per_second: Option<f64>,
}
