//! How the tokens of a run are drawn, what is told of them, and how often they are drawn again.

use serde::{Deserialize, Serialize};

/// Sampling values that a client asked for, or that a model is to have by default (`[sampling]` in
/// `model.toml`); `None`: the default of what is below, in the end the library's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SamplingRequest {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i32>,
    pub repeat_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
}

/// How the tokens of a run are drawn, beside its sampling values, and what is told of them; only some
/// runtimes can be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrawRequest {
    pub seed: Option<i64>,
    pub min_p: Option<f32>,
    /// Tokens, and what is added to their logits; -inf forbids one.
    pub logit_bias: Vec<(i32, f32)>,
    /// `None`: how likely tokens were is not asked.
    pub logprobs: Option<LogprobsRequest>,
    /// Tokens that end the answer, beside those of the model. Any runtime keeps them.
    pub stop_token_ids: Vec<i32>,
    /// So many tokens come before one that ends the answer.
    pub min_tokens: u32,
    /// No token ends the answer.
    pub ignores_eos: bool,
    /// With the same seed the same is drawn, whatever else runs, ran or died.
    pub deterministic: bool,
}

impl DrawRequest {
    /// Some tokens are never to come.
    pub fn bans_tokens(&self) -> bool {
        self.logit_bias.iter().any(is_ban)
    }

    /// Some are to come more or less often.
    pub fn has_other_biases(&self) -> bool {
        !self.logit_bias.iter().all(is_ban)
    }
}

fn is_ban((_, bias): &(i32, f32)) -> bool {
    *bias == f32::NEG_INFINITY
}

/// Which log probabilities are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogprobsRequest {
    /// How many of the likeliest tokens are told beside each token.
    pub top: u8,
    /// Those of the prompt's tokens, too.
    pub of_prompt: bool,
}

/// How many tokens of an answer may be drawn again, where the library draws what may not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedrawLimits {
    pub redraws: u32,
    /// While it is not seen that the library finds in its cache what it has evaluated.
    pub without_reuse: u32,
    pub runs: RedrawRuns,
}

/// The runs that make an answer of which tokens may be drawn again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedrawRuns {
    /// Those that take less, by what was measured and by how often a token may not come.
    #[default]
    Measured,
    /// Such that tell tokens alone. A run of its own tells the logits of a token that may not come.
    Tokens,
    /// Such that tell the logits of each token, where the library does.
    Logits,
}
