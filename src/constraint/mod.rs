//! What an answer has to be, and which tokens may come next so that it is. A schema is read and checked
//! (`schema`), compiled to a grammar of bytes (`grammar`), and followed over the model's tokens while the
//! answer is made (`follower`). None of this runs in the daemon: what a client sends may use up whoever
//! reads it, so a reader compiles it first, within its limits, and a worker after that.
//!
//! What is defined here for every runtime is the draw: penalties, top-k, top-p, min-p see the whole row; of
//! what they leave, what is allowed shares all of the probability; if they leave nothing that is allowed, all
//! that is does. See `docs/constrained-answers.md`.

mod closing;
mod follower;
mod grammar;
mod keywords;
mod schema;
mod tokens;

use serde::{Deserialize, Serialize};

pub use follower::{Follower, Next};
pub use grammar::{Unenforceable, compile};
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
}

impl Wanted {
    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::JsonObject => 0,
            Self::JsonSchema { schema, .. } => schema.len(),
        }
    }
}

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
    /// Of a schema's text.
    pub schema_bytes: usize,
    /// Schemas inside each other.
    pub schema_depth: usize,
    /// Symbols of its grammar, of about 16 bytes each.
    pub grammar_symbols: usize,
    /// States of its lexer, of about 1 to 2 kB each.
    pub lexer_states: usize,
    /// Steps of the lexer for one token.
    pub lexer_steps: u64,
}

/// A grammar for whoever makes the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// In the engine's own JSON.
    pub grammar: String,
    /// JSON pointers to what of the schema is not kept.
    pub not_kept: Vec<String>,
}

/// What a run keeps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    pub grammar: std::sync::Arc<str>,
    pub limits: Limits,
    /// A thought may stand before the answer, and is free.
    pub thought: Option<Thought>,
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
