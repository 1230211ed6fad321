//! The messages. Adding, removing or reordering anything here needs a new `PROTOCOL_VERSION`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LoadDeadline;
use crate::generation::{FinishReason, SamplingRequest};

/// Version of everything in this file.
pub const PROTOCOL_VERSION: u32 = 3;
/// Exit code of a worker that ended itself because a call passed its deadline.
pub const EXIT_DEADLINE: i32 = 70;
/// Exit code of a worker that ended itself because it could not load its model, which it has said.
pub const EXIT_LOAD_FAILED: i32 = 71;
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
    pub load: LoadDeadline,
    pub prefill_base: Duration,
    pub prefill_per_token: Duration,
    pub inter_token: Duration,
    pub control_call: Duration,
    pub abort_to_finish: Duration,
    pub unload: Duration,
    /// While a call is in progress the worker says at least this often that it is scheduled.
    pub heartbeat: Duration,
}

impl WorkerDeadlines {
    /// How long the first token may take, at `per_token` for each token of the prompt. Where the
    /// prompt's tokens are unknown, three bytes count as one.
    pub fn prefill(
        &self,
        per_token: Duration,
        prompt_bytes: usize,
        prompt_tokens: Option<u32>,
    ) -> Duration {
        let tokens = prompt_tokens
            .unwrap_or_else(|| u32::try_from(prompt_bytes / BYTES_PER_TOKEN).unwrap_or(u32::MAX));
        self.prefill_base + per_token.saturating_mul(tokens)
    }
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Unique in the daemon's life.
    pub run: u64,
    pub prompt: String,
    /// An answer that another worker has begun; it is continued right behind its end.
    pub begun: Option<BegunAnswer>,
    pub sampling: SamplingRequest,
    /// Tokens still to be made; `None`: as many as the context leaves.
    pub max_new_tokens: Option<u32>,
    /// The time a token of this prompt may take in prefill: measured where the model's rate is
    /// known, else the setting.
    pub prefill_per_token: Duration,
}

/// What has been generated of an answer so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BegunAnswer {
    pub text: String,
    /// The tokens that made exactly this text; `None` where one of them is not known, or where the
    /// runtime may not tokenise a prompt as the model's tokenizer does.
    pub token_ids: Option<Vec<i32>>,
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
    /// The prompt's tokens, without those of a begun answer. Only where a tokenizer counts them.
    PromptCounted {
        run: u64,
        tokens: u32,
    },
    /// One callback that stood for a token. `text` is whole UTF-8 characters.
    Token {
        run: u64,
        kind: TokenKind,
        /// `None`: the runtime gave none.
        id: Option<i32>,
        text: String,
    },
    /// The answer has all its tokens, and nothing that follows belongs to it. `RunEnded` comes when
    /// the library has ended the run.
    AnswerComplete {
        run: u64,
        reason: FinishReason,
        /// Callbacks that stood for a token.
        generated_tokens: u32,
    },
    RunEnded(Box<RunEnd>),
    /// The worker is scheduled. Proves nothing about the call in progress.
    Heartbeat,
    /// A call beside the run hangs. The run goes on; after it the worker must not be used again.
    Tainted {
        deadline: String,
        limit: Duration,
        call: String,
    },
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
    /// Text, and nothing is held back behind it.
    Text,
    /// Part of a character is held back behind the text.
    Partial,
    /// A token without text: one that the runtime does not print.
    Swallowed,
    /// Bytes that are no UTF-8, with U+FFFD in the text in their place.
    Replaced,
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
    /// The whole prompt and the begun answer, cached tokens included; `None`: neither tokenizer nor
    /// runtime told.
    pub prompt_tokens: Option<u32>,
    /// Prompt tokens that were not evaluated again.
    pub cached_prompt_tokens: Option<u32>,
    pub perf: Option<PerfFigures>,
    /// Whether the runtime evaluated exactly the tokens that the model's tokenizer makes of the
    /// prompt; `None`: no tokenizer, or part of the prompt was found in the cache.
    pub tokenizer_agrees: Option<bool>,
    /// A call hung or the runtime failed: the worker must not be used again.
    pub tainted: bool,
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
