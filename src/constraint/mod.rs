//! What an answer has to be, and which tokens may come next so that it is. A schema is read and checked
//! (`schema`), and so are other grammars (`texts`, `gbnf`); it is compiled to a grammar of bytes
//! (`grammar`), and followed over the model's tokens while the answer is made (`follower`). None of this
//! runs in the daemon: what a client sends may use up the process that reads it, so a reader compiles it first,
//! within its limits, and a worker after that.
//!
//! What is defined here for every runtime is the draw: penalties, top-k, top-p, min-p see the whole row; of
//! what they leave, what is allowed shares all of the probability; if they leave nothing that is allowed, all
//! that is does. See `docs/constrained-answers.md`.

mod beyond_engine;
mod calls;
mod closing;
mod compiled;
mod draw;
mod exact_numbers;
mod follower;
mod gbnf;
mod grammar;
mod keywords;
mod mask;
mod opening;
mod references;
mod relaxed;
mod rewrite;
mod schema;
mod texts;
mod tokens;
mod unique_keys;

use serde::{Deserialize, Serialize};

pub use calls::{CallableTool, CallsWanted, HowMany};
pub use compiled::{CompiledGrammars, Parsers};
pub use draw::Draws;
pub use follower::{Begun, Follower, Next};
pub use grammar::{Unenforceable, compile};
pub use opening::Opener;
pub use tokens::{ModelTokens, Vocabulary};

/// What a client wants an answer to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema, itself JSON.
    JsonSchema {
        schema: String,
        /// Refused, unless all of it is kept.
        strict: bool,
    },
    /// Calls of functions: [`CallsWanted`], as JSON.
    Calls { json: String },
    /// A text that all of this regular expression matches.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of this grammar of llama.cpp's.
    Gbnf(String),
    /// A text of this grammar in Lark.
    Lark(String),
}

impl Wanted {
    /// Whether an answer of it is JSON, which begins with white space or without, all the same.
    pub fn is_json(&self) -> bool {
        matches!(self, Self::JsonObject | Self::JsonSchema { .. })
    }

    /// Those of a client's text.
    fn bytes(&self) -> usize {
        match self {
            Self::JsonObject => 0,
            Self::JsonSchema { schema: text, .. }
            | Self::Calls { json: text }
            | Self::Regex(text)
            | Self::Gbnf(text)
            | Self::Lark(text) => text.len(),
            Self::Choice(texts) => texts.iter().map(String::len).sum(),
        }
    }
}

/// By so much a process or thread that makes a grammar gives way to those that make tokens.
pub const NICE: i32 = 10;

/// White space between the tokens of JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhiteSpace {
    /// None.
    None,
    /// At most one space or line break.
    #[default]
    One,
    /// Any.
    Any,
}

/// What a schema and its grammar may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub white_space: WhiteSpace,
    /// Of a schema's text, or another grammar's.
    pub schema_bytes: usize,
    /// Schemas inside each other, and parentheses of a grammar.
    pub schema_depth: usize,
    /// Symbols of its grammar, of about 16 bytes each.
    pub grammar_symbols: usize,
    /// States of its lexer, of about 1 to 2 kB each.
    pub lexer_states: usize,
    /// Steps of the lexer for one token.
    pub lexer_steps: u64,
    /// Grammars that a process keeps for requests that want the same.
    pub kept_grammars: usize,
}

/// A grammar for the worker that makes the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// In the engine's own JSON.
    pub grammar: String,
    pub how: How,
    /// JSON pointers to what of the schema is not kept; of functions, into the request.
    pub not_kept: Vec<String>,
}

/// How an answer is followed through its grammar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct How {
    /// What the grammar begins with, wherever the answer comes to it; what stands before it and between is
    /// free. None: all of the answer is kept to it.
    pub opens: Vec<Opener>,
    /// Where no object has a key twice, which the grammar alone does not see to.
    pub unique_keys: UniqueIn,
}

/// Answers in which no object has a key twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UniqueIn {
    #[default]
    None,
    All,
    /// Those that begin as JSON; the others are calls in a form that is none.
    Json,
    /// Those that begin with one of these texts or with a special token; the others are no JSON.
    Begun(Vec<String>),
}

/// What a run keeps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    pub grammar: std::sync::Arc<str>,
    pub limits: Limits,
    pub how: How,
    /// A thought may stand before the answer, and is free.
    pub thought: Option<Thought>,
    pub need: Need,
}

/// What becomes of a request whose answer cannot be kept to its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is refused.
    Needed,
    /// It is answered all the same, and this is named as not applied, if anything.
    Wish(Option<&'static str>),
}

/// How a thought ends, before what is kept to a grammar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thought {
    /// Empty: the model does not open it.
    pub open: String,
    /// The token that alone opens it, where that is known.
    pub open_id: Option<i32>,
    pub close: String,
    /// The token that alone closes it, likewise.
    pub close_id: Option<i32>,
    /// The prompt has opened it.
    pub is_open: bool,
}
