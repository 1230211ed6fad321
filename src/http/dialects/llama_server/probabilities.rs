//! How likely tokens were, as llama.cpp's server says it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::conversation::{TokenLogprob, TokenLogprobs};
use crate::generation::LogprobsRequest;
use crate::http::dialects::logprobs::{MOST_OF_CHAT, TextLogprob};
use crate::http::request::error::RequestError;

/// A token of the text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenProbability {
    #[serde(flatten)]
    token: LikelyToken,
    /// The likeliest tokens in its place, from the likeliest on: as many as `n_probs` asks for.
    top_logprobs: Vec<LikelyToken>,
}

/// A token and how likely it was.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LikelyToken {
    /// Its id.
    id: i32,
    #[serde(flatten)]
    token: TextLogprob,
}

impl LikelyToken {
    fn of(token: &TokenLogprob) -> Self {
        Self {
            id: token.id,
            token: TextLogprob::of(token),
        }
    }
}

impl TokenProbability {
    pub fn all(tokens: &[TokenLogprobs]) -> Vec<Self> {
        let of = |scored: &TokenLogprobs| Self {
            token: LikelyToken::of(&scored.token),
            top_logprobs: scored.top.iter().map(LikelyToken::of).collect(),
        };
        tokens.iter().map(of).collect()
    }
}

/// What a request asks; 0 is nothing.
pub(super) fn asked(n_probs: Option<i64>) -> Result<Option<LogprobsRequest>, RequestError> {
    let top = n_probs.unwrap_or(0);
    match u8::try_from(top).ok().filter(|top| *top <= MOST_OF_CHAT) {
        Some(0) => Ok(None),
        Some(top) => Ok(Some(LogprobsRequest {
            top,
            of_prompt: false,
        })),
        None => Err(RequestError::out_of_range(
            "n_probs",
            format!("must be from 0 to {MOST_OF_CHAT}"),
        )),
    }
}
