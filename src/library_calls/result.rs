use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::tensor_values::TensorValues;

/// One call of the result callback: its state, and a result for each sequence (`n_batch`).
#[derive(Clone, Debug)]
pub struct CallbackResult {
    pub state: CallState,
    /// Sequence 0 first.
    pub results: Vec<SlotResult>,
}

/// `LLMCallState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum CallState {
    #[serde(rename = "RKLLM_RUN_NORMAL")]
    Normal,
    /// A token that ends inside a UTF-8 character.
    #[serde(rename = "RKLLM_RUN_WAITING")]
    Waiting,
    #[serde(rename = "RKLLM_RUN_FINISH")]
    Finish,
    #[serde(rename = "RKLLM_RUN_ERROR")]
    Error,
    /// A number that no header names.
    Unknown(u32),
}

/// Where a library calls back in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallbackThread {
    /// The thread that called `rkllm_run`.
    Caller,
    /// One or several of the library's own.
    Other,
    Both,
}

impl CallbackThread {
    /// With one more callback.
    pub fn and(before: Option<Self>, is_caller: bool) -> Self {
        let now = match is_caller {
            true => Self::Caller,
            false => Self::Other,
        };
        match before {
            Some(before) if before != now => Self::Both,
            _ => now,
        }
    }
}

/// `RKLLMResult` of one sequence. A field that the library does not fill in a state is `None`.
#[derive(Clone, Debug, Default)]
pub struct SlotResult {
    /// The sequence, from 0.
    pub batch_slot: u32,
    /// Whole UTF-8 characters; a part of one is held back until the rest is there.
    pub text: Option<String>,
    /// Negative: this sequence has ended.
    pub token_id: Option<i32>,
    pub last_hidden_layer: Option<Tensor>,
    pub logits: Option<Tensor>,
    /// With `Finish` only.
    pub perf: Option<PerfStat>,
}

/// Hidden states (`embd_size` columns) or logits (`vocab_size` columns).
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Rows the library gave, of which `shape[0]` are here.
    pub num_tokens: usize,
    /// Rows and columns.
    pub shape: [usize; 2],
    pub values: TensorValues,
}

/// `RKLLMPerfStat`, as the library reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PerfStat {
    pub prefill_time_ms: f32,
    pub prefill_tokens: i32,
    pub generate_time_ms: f32,
    /// Tokens after the first.
    pub generate_tokens: i32,
    /// Peak resident memory of the worker.
    pub memory_usage_mb: f32,
}

/// The answer to `rkllm_is_running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunningAnswer {
    pub running: bool,
    pub answered_by: Running,
}

/// Who said whether a run is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Running {
    Library,
    /// The library did not answer in time, or there is none loaded.
    Daemon,
}

/// How the rows of an input become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The last token's row.
    #[default]
    Last,
    /// The mean of all rows, summed in f64.
    Mean,
}

/// What is wanted of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedRow {
    /// Its hidden states, as one row.
    HiddenState(Pooling),
    /// How likely each of these tokens follows it, as logits.
    Logits([i32; 2]),
}

/// One row an input, not normalised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PooledRows {
    pub rows: Vec<Vec<f32>>,
    /// Tokens of all inputs, as the library evaluated them; `None`: one of them was not told.
    pub prompt_tokens: Option<u32>,
}
