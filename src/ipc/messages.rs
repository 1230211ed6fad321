//! The messages. Adding, removing or reordering anything here needs a new `PROTOCOL_VERSION`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LoadDeadline;
use crate::constraint::{Limits, Thought, Vocabulary};
use crate::generation::{Deadline, DrawRequest, FinishReason, SamplingRequest};
use crate::library_calls::{
    Call, CallFailure, CallState, Input, ModelShape, Outcome, Param, PerfStat, RowSelection,
};

/// Version of everything in this file.
pub const PROTOCOL_VERSION: u32 = 13;
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

/// What the daemon asks of a worker: one `Load`, then any number of commands for its slots; or one
/// `Describe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Load(Box<LoadSpec>),
    /// For one slot.
    Slot {
        slot: u8,
        command: SlotCommand,
    },
    /// Destroys the handles and ends the process.
    Unload,
    /// Opens a library and tells its facts; no model is loaded.
    Describe {
        library: PathBuf,
        assume_family: Option<String>,
        deadlines: Box<WorkerDeadlines>,
    },
}

/// What is asked of a slot: any number of runs and calls, one at a time, and what goes beside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SlotCommand {
    Run(Box<RunSpec>),
    /// A run of the vendor's API.
    RawRun(Box<RawRunSpec>),
    /// A call that must not overlap a run.
    LibraryCall(Box<CallSpec>),
    /// Ends a run early. A run that has already ended is left alone.
    Abort {
        run: u64,
        mode: AbortMode,
    },
    /// The daemon has room for so many more events of a run. One that has ended needs none.
    Credit {
        run: u64,
        events: u32,
    },
    /// A question that is answered beside a run.
    Ask {
        id: u64,
        question: Question,
    },
}

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

/// A run of the vendor's API: everything a client may set, and what comes back of its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawRunSpec {
    /// Unique in the daemon's life.
    pub run: u64,
    pub inputs: Vec<Input>,
    /// The path of a prompt cache is a real one here.
    pub infer: crate::library_calls::InferParam,
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

/// How urgent an abort is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortMode {
    /// The rest is not wanted, not even its counts.
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
    /// As far as the model's files tell.
    pub shape: ModelShape,
    pub handles: Handles,
    pub deadlines: WorkerDeadlines,
}

/// What is opened, and for whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Handles {
    /// Those of requests, whose prompts are rendered.
    OfRequests(Box<RequestHandles>),
    /// One of a client of the vendor's API: these parameters and no other, the model's own template,
    /// and only raw runs.
    OfClient(Box<Param>),
}

impl Handles {
    /// How many there are.
    pub fn count(&self) -> u8 {
        match self {
            Self::OfRequests(handles) => handles.count.max(1),
            Self::OfClient(_) => 1,
        }
    }
}

/// Handles that are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestHandles {
    /// At least 1.
    pub count: u8,
    /// Tokens.
    pub context_length: u32,
    /// Tokens that all of them hold together at most, where the library lets them share; `None`: each has
    /// its own context.
    pub pool_tokens: Option<u32>,
    /// Tokens per answer where the family fixes it at init.
    pub max_new_tokens: Option<u32>,
    pub sampling: SamplingRequest,
    pub cpu_mask: Option<u32>,
    pub base_domain_id: Option<i32>,
    /// Token ids that end an answer even if the runtime ignores them.
    pub eos_ids: Vec<i32>,
    /// The runtime prints special tokens.
    pub prints_special_tokens: bool,
}

/// However slow a library says it is, and however long the prompt.
pub const LONGEST_PREFILL: Duration = Duration::from_secs(7 * 24 * 3600);

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
    /// For the daemon, which does not see what the slots of a worker do together and lets it speak first:
    /// what one of them does may take that many times as long, and where they share a pool each may have to
    /// evaluate all that this holds.
    pub fn shared_by(self, slots: u8, pool_tokens: Option<u32>) -> Self {
        let slots = u32::from(slots);
        let again = pool_tokens.map_or(Duration::ZERO, |tokens| {
            let evaluated = self.prefill_per_token.saturating_mul(tokens);
            self.prefill_base.saturating_add(evaluated)
        });
        let shared = |limit: Duration| {
            let shared = limit.saturating_add(again).saturating_mul(slots);
            // A clock cannot be asked for what lies further away, unless the limit itself does.
            shared.min(LONGEST_PREFILL.max(limit))
        };
        Self {
            prefill_base: shared(self.prefill_base),
            prefill_per_token: self.prefill_per_token.saturating_mul(slots),
            inter_token: shared(self.inter_token),
            ..self
        }
    }

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
        let limit = self
            .prefill_base
            .saturating_add(per_token.saturating_mul(tokens));
        // A clock cannot be asked for what lies further away than this.
        limit.min(LONGEST_PREFILL)
    }
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Unique in the daemon's life.
    pub run: u64,
    pub prompt: String,
    /// The prompt's tokens as the model's tokenizer makes them; `None`: it has none.
    pub prompt_tokens: Option<std::sync::Arc<[i32]>>,
    /// An answer that another worker has begun; it is continued right behind its end.
    pub begun: Option<BegunAnswer>,
    pub sampling: SamplingRequest,
    /// Not read where the library takes none of it.
    pub draws: DrawRequest,
    /// What it is kept to, from the beginning of the answer on; only where the library can.
    pub constraint: Option<Box<RunConstraint>>,
    /// Tokens still to be made; `None`: as many as the context leaves.
    pub max_new_tokens: Option<u32>,
    /// The time a token of this prompt may take in prefill: measured where the model's rate is
    /// known, else the setting.
    pub prefill_per_token: Duration,
    /// Events that the daemon has room for at first.
    pub credit: u32,
    /// The run is made for this.
    pub save: Option<SavePrefix>,
}

/// A prompt's cells are to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavePrefix {
    pub path: PathBuf,
    /// How much longer the run may take for it, at whatever point of it the library writes.
    pub limit: Duration,
}

/// A grammar that a run is kept to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConstraint {
    pub grammar: String,
    pub limits: Limits,
    pub thought: Option<Thought>,
    /// The model's tokens; `None`: the worker was told them before.
    pub vocabulary: Option<Vocabulary>,
}

/// What has been generated of an answer so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BegunAnswer {
    pub text: String,
    /// The tokens that made exactly this text; `None` where one of them is not known, or where the
    /// runtime may not tokenise a prompt as the model's tokenizer does.
    pub token_ids: Option<Vec<i32>>,
    /// How many there are; `None`: a text is part of it that no model made, whose tokens are not known.
    pub tokens: Option<u32>,
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
        /// Whether runs can be kept to a grammar.
        run_extensions: bool,
    },
    /// Opening or loading failed; the worker ends.
    LoadFailed {
        reason: String,
        /// The same for a client of the vendor's API.
        failure: Option<CallFailure>,
    },
    /// The worker is scheduled. Proves nothing about the calls in progress.
    Heartbeat,
    /// A call that is no slot's went past its deadline; the worker ends.
    DeadlinePassed(PassedDeadline),
    /// Of one slot.
    Slot {
        slot: u8,
        event: SlotEvent,
    },
}

/// What a worker tells of one of its slots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SlotEvent {
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
    /// A call beside a run or a call hangs. That goes on; the worker must get nothing new to do.
    Tainted(PassedDeadline),
    /// The slot's run or call went past its deadline; the worker ends.
    DeadlinePassed(PassedDeadline),
    /// One callback of a raw run. A tensor that is not in it comes as a descriptor, in order.
    RawResult {
        run: u64,
        state: CallState,
        /// A result for each sequence.
        results: Vec<RawSlot>,
    },
    RawEnded {
        run: u64,
        result: Result<(), CallFailure>,
        /// The worker must not be used again.
        tainted: bool,
    },
    /// A call or a question was answered.
    Called {
        id: u64,
        result: Result<CallReply, CallFailure>,
    },
}

impl SlotEvent {
    /// Whether it takes one of its run's credit: what the library's callbacks lead to, of which there
    /// is any number.
    pub fn takes_credit(&self) -> bool {
        matches!(
            self,
            Self::Token { .. } | Self::AnswerComplete { .. } | Self::RawResult { .. }
        )
    }

    /// How many files come with it.
    pub fn files(&self) -> usize {
        let Self::RawResult { results, .. } = self else {
            return 0;
        };
        results.iter().map(RawSlot::files).sum()
    }
}

/// A deadline that passed in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedDeadline {
    pub deadline: Deadline,
    pub limit: Duration,
    pub call: String,
}

/// What a call or a question was answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallReply {
    Outcome(Outcome),
    IsRunning(bool),
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
    fn files(&self) -> usize {
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
    /// No token: what tokens before it had begun and nothing follows, U+FFFD.
    Rest,
}

/// What is known about a library once it is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LibraryFacts {
    pub path: PathBuf,
    pub version: String,
    pub family: String,
    /// What its `rkllm_createDefaultParam` returned.
    pub defaults: Box<Param>,
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

impl RunEnd {
    /// Tokens of the prompt that were not in the cache before; `None`: not known.
    pub fn evaluated_prompt_tokens(&self) -> Option<u32> {
        let told = self.perf.map(|perf| perf.prefill_tokens);
        told.or_else(|| {
            let cached = self.cached_prompt_tokens.unwrap_or(0);
            Some(self.prompt_tokens?.saturating_sub(cached))
        })
    }
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
    /// The answer could not be kept to its grammar any longer, within its limits.
    NotKept {
        reason: String,
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

impl RunOutcome {
    /// Whether the runtime has evaluated its prompt, or begun to.
    pub fn has_run(&self) -> bool {
        !matches!(
            self,
            Self::ContextLengthExceeded { .. } | Self::Refused { .. }
        )
    }
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
