use serde::{Deserialize, Serialize};

/// A token and how likely it was: the log-softmax of its row of logits as the model gave it, before
/// anything that the sampler does to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    pub id: i32,
    /// The token's own; a part of a character at times.
    pub bytes: Vec<u8>,
    /// A natural logarithm, never NaN; `None` where nothing came before the token.
    pub logprob: Option<f32>,
}

impl Eq for TokenLogprob {}

/// What one row of logits says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLogprobs {
    pub token: TokenLogprob,
    /// The likeliest tokens, from the likeliest on.
    pub top: Vec<TokenLogprob>,
}

/// A piece of the content, and the tokens that it is made of. Of a token that has bytes outside of the
/// content only those within it are there, so all bytes together are the text; unless some of them are
/// no UTF-8, in whose place the text has U+FFFD, or, where the answer ends within a character, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScoredText {
    pub text: String,
    pub tokens: Vec<TokenLogprobs>,
}
