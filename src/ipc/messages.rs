//! The messages. Adding, removing or reordering anything here or in the parts needs a new
//! `PROTOCOL_VERSION`.

pub(super) mod deadlines;
pub(super) mod load;
pub(super) mod raw;
pub(super) mod run;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::conversation::TokenLogprobs;
use crate::generation::{FinishReason, RunExtensions};
use crate::library_calls::{CallFailure, CallState, CallbackThread};
use deadlines::{PassedDeadline, WorkerDeadlines};
use load::{LibraryFacts, LoadSpec, WorkerWalls};
use raw::{CallReply, CallSpec, Question, RawRunSpec, RawSlot};
use run::{RunEnd, RunSpec, TokenKind, WaitsFor};

/// Version of everything in this file and its parts.
pub const PROTOCOL_VERSION: u32 = 22;
/// Exit code of a worker that ended itself because a call passed its deadline.
pub const EXIT_DEADLINE: i32 = 70;
/// Exit code of a worker that ended itself because it could not load its model, which it has said.
pub const EXIT_LOAD_FAILED: i32 = 71;

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
    /// The runs begin that sequences of one handle were given, as soon as what went before has ended.
    BeginBatch,
    /// Destroys the handles and ends the process.
    Unload,
    /// Opens a library and tells its facts; no model is loaded.
    Describe {
        library: PathBuf,
        assume_family: Option<String>,
        deadlines: Box<WorkerDeadlines>,
        walls: Option<Box<WorkerWalls>>,
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

/// How urgent an abort is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortMode {
    /// The rest is not wanted, not even its counts.
    AtOnce,
    /// The answer is complete: the next token may be waited for, so that the counts add up.
    BetweenTokens,
}

/// What a worker tells the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The first message; its layout never changes.
    Hello {
        protocol: u32,
    },
    LibraryOpened(LibraryFacts),
    /// A handle begins to load an adapter of this name: what ends the worker before the next event is to blame
    /// on it. `None`: it has loaded all that it has; another handle may be opened now.
    LoadsAdapter {
        name: Option<String>,
    },
    /// The model is loaded; runs may follow.
    Loaded {
        /// Whether sampling and budget can differ from run to run.
        per_run_parameters: bool,
        /// What runs can be told beside their parameters.
        run_extensions: RunExtensions,
        /// Tells the model's file, as it was opened, from every other; `None`: it was replaced meanwhile, or
        /// cannot be told.
        model_file: Option<String>,
        /// By their names, why adapters were not loaded.
        unusable_adapters: BTreeMap<String, String>,
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
    /// How likely the next tokens of the prompt were, or the one whose `Token` comes next. Only of a run
    /// that asks for it.
    Logprobs {
        run: u64,
        of_prompt: bool,
        tokens: Vec<TokenLogprobs>,
    },
    /// One callback that stood for a token. `text` is whole UTF-8 characters.
    Token {
        run: u64,
        kind: TokenKind,
        /// `None`: the runtime gave none.
        id: Option<i32>,
        text: String,
    },
    /// The library goes back in the middle of an answer, to draw a token again: what is waited for now is no
    /// next token.
    GoesBack {
        run: u64,
        waits_for: WaitsFor,
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
        /// `None`: the library did not call back.
        called_back: Option<CallbackThread>,
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
            Self::Logprobs { .. }
                | Self::Token { .. }
                | Self::GoesBack { .. }
                | Self::AnswerComplete { .. }
                | Self::RawResult { .. }
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
