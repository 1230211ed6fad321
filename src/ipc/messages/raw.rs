//! Calls and runs of the vendor's API, in the words of its clients.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::generation::Deadline;
use crate::library_calls::{Call, InferParam, Input, Outcome, PerfStat, RowSelection};

/// A question that the library answers at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    IsRunning,
}

/// One call. Its paths are real ones here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallSpec {
    /// Unique in a worker's life.
    pub id: u64,
    pub call: Call,
    /// The deadline it is under, and its time.
    pub deadline: Deadline,
    pub limit: Duration,
}

/// What a call or a question was answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallReply {
    Outcome(Outcome),
    IsRunning(bool),
}

/// A run of the vendor's API: everything a client may set, and what comes back of its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawRunSpec {
    /// Unique in the daemon's life.
    pub run: u64,
    pub inputs: Vec<Input>,
    /// The path of a prompt cache is a real one here.
    pub infer: InferParam,
    pub rows: RowSelection,
    pub generate_after_logits: bool,
    /// Empty the KV cache before it, so that hidden states of all rows are computed.
    pub clear_kv_cache: bool,
    /// The time a token of this input may take in prefill.
    pub prefill_per_token: Duration,
    /// Largest tensor that is handed over.
    pub tensor_limit_bytes: u64,
    /// Events that the daemon has room for at first.
    pub credit: u32,
}

/// The result of one sequence in one callback.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RawSlot {
    pub text: Option<String>,
    pub token_id: Option<i32>,
    pub hidden_states: Option<WireTensor>,
    pub logits: Option<WireTensor>,
    pub perf: Option<PerfStat>,
}

impl RawSlot {
    pub fn files(&self) -> usize {
        let tensors = [&self.hidden_states, &self.logits];
        let in_files = tensors.into_iter().flatten();
        in_files.filter(|tensor| tensor.data.is_none()).count()
    }
}

/// A tensor on its way to the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireTensor {
    /// Rows the library gave.
    pub num_tokens: u64,
    /// Rows and columns that are handed over.
    pub rows: u64,
    pub columns: u64,
    /// Row after row; `None`: in the sealed memory file that comes with this event.
    pub data: Option<Vec<f32>>,
}
