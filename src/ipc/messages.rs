//! The messages. Adding, removing or reordering anything here needs a new `PROTOCOL_VERSION`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::generation::{FinishReason, SamplingRequest};

/// Version of everything in this file.
pub const PROTOCOL_VERSION: u32 = 1;
/// Assumed where a prompt's tokens cannot be counted; short for any tokenizer, so deadlines err on
/// the long side.
const BYTES_PER_TOKEN: usize = 3;

/// The daemon's first message; its layout never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonHello {
    pub protocol: u32,
}

/// What the daemon asks of a worker. One `Load`, then any number of `Run`, one at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Load(Box<LoadSpec>),
    Run(Box<RunSpec>),
    /// Ends a run early. A run that has already ended is left alone.
    Abort {
        run: u64,
        mode: AbortMode,
    },
    /// Destroys the handle and ends the process.
    Unload,
}

/// How urgent an abort is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortMode {
    /// Nobody wants the rest, not even its counts.
    AtOnce,
    /// The answer is complete: the next token may be waited for, so that the counts add up.
    BetweenTokens,
}

/// The library to open and the model to load with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    pub library: PathBuf,
    pub assume_family: Option<String>,
    pub model: PathBuf,
    /// Tokens.
    pub context_length: u32,
    /// Tokens per answer where the family fixes it at init.
    pub max_new_tokens: Option<u32>,
    /// Sampling defaults; `None` fields are the library's own.
    pub sampling: SamplingRequest,
    pub cpu_mask: Option<u32>,
    pub base_domain_id: Option<i32>,
    /// Token ids that end an answer even if the runtime ignores them.
    pub eos_ids: Vec<i32>,
    pub tokenizer_json: Option<PathBuf>,
    pub deadlines: WorkerDeadlines,
}

/// The waits that the worker's main thread times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerDeadlines {
    pub library_open: Duration,
    pub load: Duration,
    pub prefill_base: Duration,
    pub prefill_per_token: Duration,
    pub inter_token: Duration,
    pub control_call: Duration,
    pub abort_to_finish: Duration,
    pub unload: Duration,
}

impl WorkerDeadlines {
    /// How long the first token may take. Where the prompt's tokens are unknown, three bytes count
    /// as one.
    pub fn prefill(&self, prompt_bytes: usize, prompt_tokens: Option<u32>) -> Duration {
        let tokens = prompt_tokens
            .unwrap_or_else(|| u32::try_from(prompt_bytes / BYTES_PER_TOKEN).unwrap_or(u32::MAX));
        self.prefill_base + self.prefill_per_token.saturating_mul(tokens)
    }
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Unique in the daemon's life.
    pub run: u64,
    pub prompt: String,
    pub sampling: SamplingRequest,
    /// `None`: as many as the context leaves.
    pub max_new_tokens: Option<u32>,
}

/// What a worker tells the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The first message; its layout never changes.
    Hello {
        protocol: u32,
    },
    LibraryOpened(LibraryFacts),
    /// The model is loaded; runs may follow.
    Loaded {
        /// Whether sampling and budget can differ from run to run.
        per_run_parameters: bool,
    },
    /// Opening or loading failed; the worker ends.
    LoadFailed {
        reason: String,
    },
    /// One callback that made text. `text` is whole UTF-8 characters.
    Token {
        run: u64,
        kind: TokenKind,
        text: String,
    },
    RunEnded(Box<RunEnd>),
    /// A call went past its deadline; the worker ends.
    DeadlinePassed {
        deadline: String,
        limit: Duration,
        call: String,
    },
}

/// What kind of callback a token came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenKind {
    Text,
    /// Part of a character, or a special token that the runtime does not print.
    Silent,
}

/// What is known about a library once it is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryFacts {
    pub path: PathBuf,
    pub version: String,
    pub family: String,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    pub run: u64,
    pub outcome: RunOutcome,
    /// Callbacks that stood for a token.
    pub generated_tokens: u32,
    /// The whole prompt, cached tokens included; `None`: neither tokenizer nor runtime told.
    pub prompt_tokens: Option<u32>,
    /// Prompt tokens that were not evaluated again.
    pub cached_prompt_tokens: Option<u32>,
    pub perf: Option<PerfFigures>,
    /// A call beside the run hung: the worker ends after this and must not be used again.
    pub worker_ends: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RunOutcome {
    Finished(FinishReason),
    /// Ended by `Command::Abort`.
    Aborted,
    /// The prompt does not fit, found before the runtime was asked.
    ContextLengthExceeded {
        prompt_tokens: u32,
        limit_tokens: u32,
    },
    /// The runtime returned an error without a callback; the reason is in its printed lines.
    Refused {
        reason: String,
    },
    /// The runtime reported an error while generating.
    Failed {
        reason: String,
    },
}

/// The runtime's perf statistics of one run, as it reports them at FINISH.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerfFigures {
    pub prefill_ms: f32,
    pub prefill_tokens: u32,
    pub generate_ms: f32,
    /// Tokens after the first one.
    pub generate_tokens: u32,
    pub memory_mb: f32,
}
