//! How likely tokens were, in the shapes of both endpoints: the list of a chat, and all of a text.

use std::collections::HashSet;
use std::fmt::Write;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

use crate::conversation::TokenLogprobs;
use crate::generation::LogprobsRequest;
use crate::http::dialects::logprobs::{ContentLogprob, LEAST, value_of};
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;

/// The most tokens of a row that are told as the likeliest of a text.
const MOST_OF_TEXT: u8 = 5;

/// What a text asks: a number of tokens, or false.
pub(super) fn of_text(
    logprobs: Option<&Outline>,
    echo: bool,
) -> Result<Option<LogprobsRequest>, RequestError> {
    let top = match logprobs.map(|logprobs| &logprobs.0) {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(value) => value.as_u64().and_then(|top| u8::try_from(top).ok()),
    };
    match top.filter(|&top| top <= MOST_OF_TEXT) {
        Some(top) => Ok(Some(LogprobsRequest {
            top,
            of_prompt: echo,
        })),
        None => Err(RequestError::out_of_range(
            "logprobs",
            format!("must be a number of tokens from 0 to {MOST_OF_TEXT}, or false"),
        )),
    }
}

/// How likely the tokens of a chat's content were.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<ContentLogprob>,
    /// Always null.
    #[schema(required, value_type = Option<Vec<Object>>)]
    refusal: Option<()>,
}

impl ChatLogprobs {
    pub fn of(tokens: &[TokenLogprobs]) -> Self {
        Self {
            content: tokens.iter().map(ContentLogprob::of).collect(),
            refusal: None,
        }
    }
}

/// How likely the tokens of a text were. Its lists have a place for each token.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct TextLogprobs {
    /// Their texts; one that is no whole characters is written as `bytes:\xe2\x98`.
    tokens: Vec<String>,
    /// Natural logarithms of their probabilities, as the model gave them; null for a first token, which
    /// nothing came before.
    token_logprobs: Vec<Option<f32>>,
    /// The likeliest tokens in each place, and the token itself; null for a first token.
    #[schema(value_type = Vec<Option<std::collections::HashMap<String, f32>>>)]
    top_logprobs: Vec<Option<TopOfText>>,
    /// Where each begins in the choice's text, in characters.
    text_offset: Vec<usize>,
}

struct TopOfText(Vec<(String, f32)>);

impl Serialize for TopOfText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

/// Where the next token begins in a choice's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offset {
    /// In characters.
    chars: usize,
}

impl Offset {
    pub fn behind(text: &str) -> Self {
        Self {
            chars: text.chars().count(),
        }
    }

    /// A character counts for the token with its first byte.
    fn place(&mut self, bytes: &[u8]) -> usize {
        let begins = |byte: &&u8| **byte & 0xC0 != 0x80;
        let begin = match bytes.first() {
            Some(first) if !begins(&first) => self.chars.saturating_sub(1),
            _ => self.chars,
        };
        self.chars += bytes.iter().filter(begins).count();
        begin
    }
}

impl TextLogprobs {
    /// Tokens that follow each other from `offset` on.
    pub fn push(&mut self, tokens: &[TokenLogprobs], offset: &mut Offset) {
        for TokenLogprobs { token, top } in tokens {
            let own = value_of(token.logprob);
            self.text_offset.push(offset.place(&token.bytes));
            self.tokens.push(name(&token.bytes));
            self.token_logprobs.push(own);
            self.top_logprobs.push(own.map(|own| {
                let top = top.iter().map(|top| (name(&top.bytes), top.logprob));
                let own = (name(&token.bytes), Some(own));
                let mut names = HashSet::new();
                let all = top.chain([own]);
                // Of tokens with the same text the likelier one.
                let once = all.filter(|(name, _)| names.insert(name.clone()));
                let valued = once.map(|(name, logprob)| (name, value_of(logprob).unwrap_or(LEAST)));
                TopOfText(valued.collect())
            }));
        }
    }
}

fn name(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |mut name, byte| {
            let _ = write!(name, "\\x{byte:02x}");
            name
        }),
    }
}

/// A prompt on its way into the text of an answer, with its tokens as they come.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    prompt: String,
    /// Bytes of it whose tokens have come.
    at: usize,
    /// Bytes of it that were told.
    told: usize,
}

impl Echo {
    pub fn new(prompt: String) -> Self {
        Self {
            prompt,
            at: 0,
            told: 0,
        }
    }

    /// The text of the next tokens, whose bytes become those that the prompt has. A token that the runtime
    /// puts before it is left out.
    pub fn next(&mut self, tokens: &mut Vec<TokenLogprobs>) -> &str {
        tokens.retain_mut(|TokenLogprobs { token, .. }| {
            let rest = &self.prompt.as_bytes()[self.at..];
            let blank = token.bytes.strip_prefix(b" ");
            if rest.starts_with(&token.bytes) {
                self.at += token.bytes.len();
            } else if let Some(bytes) =
                blank.filter(|bytes| self.at == 0 && rest.starts_with(bytes))
            {
                self.at += bytes.len();
                token.bytes = bytes.to_vec();
            } else {
                return self.at > 0;
            }
            true
        });
        self.tell(self.prompt.floor_char_boundary(self.at))
    }

    /// All of it.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// What was not told yet.
    pub fn rest(&mut self) -> &str {
        self.at = self.prompt.len();
        self.tell(self.prompt.len())
    }

    fn tell(&mut self, end: usize) -> &str {
        let from = std::mem::replace(&mut self.told, end);
        &self.prompt[from..end]
    }
}

#[cfg(test)]
mod tests;
