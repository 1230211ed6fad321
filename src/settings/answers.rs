//! What requests for answers, embeddings and tokens may ask for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ControlTokenPolicy, WhiteSpace};
use crate::constraint::Limits;
use crate::generation::{RedrawLimits, RedrawRuns};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ChatSettings {
    pub control_tokens: ControlTokenPolicy,
    /// Whether prompts of `/v1/completions`, and prompts and templates of `/api/generate`, may carry control
    /// tokens, for clients that render chat templates themselves.
    pub raw_completions: bool,
    /// Refuse sampling values that the runtime cannot vary per request instead of listing them in
    /// `x-rkllmd-not-applied`.
    pub strict_parameters: bool,
    /// Largest number of stop strings in one request.
    pub max_stops: usize,
    /// Largest one of them, in bytes.
    pub stop_limit_bytes: usize,
    /// Largest number of functions in one request.
    pub max_tools: usize,
    /// Most bytes of their names, descriptions and schemas together.
    pub tools_limit_bytes: usize,
    /// Most values of their schemas together, and of `chat_template_kwargs`, those inside others included.
    pub max_values: usize,
    /// Largest number of tokens in `logit_bias`.
    pub max_logit_biases: usize,
    /// Tokens that are left for an answer where a history that is too long is cut.
    pub answer_room_tokens: u32,
    /// Largest number of answers to one prompt (`n`); so many of a request's runs wait or run at a time.
    pub max_choices: usize,
    /// Largest number of prompts in one request.
    pub max_prompts: usize,
    /// Whether thoughts are answered as `reasoning` as well, beside `reasoning_content`.
    pub also_reasoning: bool,
}

/// Answers that are kept to a format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConstraintSettings {
    /// White space between the tokens of JSON.
    pub white_space: WhiteSpace,
    /// Whether the model is told of the format.
    pub show_format: bool,
    /// Whether calls that a model makes as it likes keep to their functions' schemas.
    pub keep_calls: bool,
    /// Largest schema, in bytes.
    pub schema_limit_bytes: usize,
    /// Deepest one, in schemas inside each other.
    pub max_schema_depth: usize,
    /// Symbols of its grammar.
    pub max_grammar_symbols: usize,
    /// States of its lexer.
    pub max_lexer_states: usize,
    /// Steps of its lexer for one token.
    pub max_lexer_steps: u64,
    /// Grammars that a process keeps.
    pub kept_grammars: usize,
    /// Tokens of an answer that are drawn again where the library has no hook.
    pub max_redraws: u32,
    /// Likewise where it evaluates all again for each.
    pub max_redraws_without_reuse: u32,
    /// The runs that such an answer is made in.
    pub redraw_runs: RedrawRuns,
}

impl ConstraintSettings {
    /// What one format may cost.
    pub fn limits(&self) -> Limits {
        Limits {
            white_space: self.white_space,
            schema_bytes: self.schema_limit_bytes,
            schema_depth: self.max_schema_depth,
            grammar_symbols: self.max_grammar_symbols,
            lexer_states: self.max_lexer_states,
            lexer_steps: self.max_lexer_steps,
            kept_grammars: self.kept_grammars,
        }
    }

    /// What one answer may cost with a library that draws what may not come.
    pub fn redraws(&self) -> RedrawLimits {
        RedrawLimits {
            redraws: self.max_redraws,
            without_reuse: self.max_redraws_without_reuse,
            runs: self.redraw_runs,
        }
    }
}

/// Responses that are kept so that a request can go on from one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ResponseSettings {
    /// Of one key. 0: none is kept.
    pub max_kept_per_key: usize,
    /// All that are kept together, in bytes.
    pub kept_limit_bytes: usize,
    /// Older ones are gone.
    #[serde(with = "humantime_serde")]
    pub kept_for: Duration,
    /// Whether each is also written to the state folder before its client is told of its end.
    pub keep_on_disk: bool,
    /// Responses of one key that may be made in the background at a time. 0: none may.
    pub max_background_per_key: usize,
    /// What the events of one of them may take, in bytes; the oldest go.
    pub background_events_limit_bytes: usize,
    /// How long its events can be read again once it has ended.
    #[serde(with = "humantime_serde")]
    pub background_events_kept_for: Duration,
    /// What is left of a conversation that is made shorter, in bytes.
    pub compacted_limit_bytes: usize,
    /// Streams that a WebSocket may name, and messages that may wait there. 0: none may be named.
    pub max_streams_per_socket: usize,
    /// Longest time of a WebSocket; a response that is made then still ends.
    #[serde(with = "humantime_serde")]
    pub max_socket_age: Duration,
}

/// What one request to `/v1/embeddings` may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EmbeddingSettings {
    /// Largest number of inputs.
    pub max_inputs: usize,
    /// Largest size of all inputs together, in bytes; a token counts as four.
    pub limit_bytes: usize,
}

/// Tokens for clients that ask for no run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokenizerSettings {
    /// Largest text that is made into tokens, in bytes; a token that is made into text counts as
    /// four.
    pub limit_bytes: usize,
}
