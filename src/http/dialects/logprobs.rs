//! How likely the tokens of a chat's content were, as all dialects that tell it do, and how a request asks.

use serde::Serialize;
use utoipa::ToSchema;

use crate::conversation::{TokenLogprob, TokenLogprobs};
use crate::generation::LogprobsRequest;
use crate::http::request::error::RequestError;

/// What JSON has for what is never drawn.
pub(super) const LEAST: f32 = -9999.0;
/// The most tokens of a row that are told as the likeliest.
pub(super) const MOST_OF_CHAT: u8 = 20;

/// What a chat asks.
pub(super) fn of_chat(
    logprobs: Option<bool>,
    top: Option<i64>,
) -> Result<Option<LogprobsRequest>, RequestError> {
    let top = match top {
        None => None,
        Some(top) => match u8::try_from(top) {
            Ok(top) if top <= MOST_OF_CHAT => Some(top),
            _ => {
                return Err(RequestError::out_of_range(
                    "top_logprobs",
                    format!("must be from 0 to {MOST_OF_CHAT}"),
                ));
            }
        },
    };
    match (logprobs, top) {
        (Some(true), top) => Ok(Some(LogprobsRequest {
            top: top.unwrap_or(0),
            of_prompt: false,
        })),
        (_, None | Some(0)) => Ok(None),
        (_, Some(_)) => Err(RequestError::out_of_range(
            "top_logprobs",
            "needs `logprobs` to be true",
        )),
    }
}

pub(super) fn value_of(logprob: Option<f32>) -> Option<f32> {
    logprob.map(|logprob| logprob.max(LEAST))
}

/// A token of the content.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContentLogprob {
    #[serde(flatten)]
    token: TextLogprob,
    /// The likeliest tokens in its place, from the likeliest on: as many as `top_logprobs` asks for.
    top_logprobs: Vec<TextLogprob>,
}

/// A token and how likely it was.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextLogprob {
    /// Its text, with U+FFFD for what is no whole character.
    token: String,
    /// Natural logarithm of its probability, as the model gave it, before anything that changes how tokens
    /// are drawn; at the least -9999.
    logprob: f32,
    /// Its bytes. Those of all tokens of the content, one after the other, are the content, and what was made of
    /// a character behind it that the answer ends within.
    bytes: Vec<u8>,
}

impl ContentLogprob {
    pub fn of(token: &TokenLogprobs) -> Self {
        Self {
            token: TextLogprob::of(&token.token),
            top_logprobs: token.top.iter().map(TextLogprob::of).collect(),
        }
    }
}

impl TextLogprob {
    pub fn of(token: &TokenLogprob) -> Self {
        Self {
            token: String::from_utf8_lossy(&token.bytes).into_owned(),
            logprob: value_of(token.logprob).unwrap_or(LEAST),
            bytes: token.bytes.clone(),
        }
    }
}
