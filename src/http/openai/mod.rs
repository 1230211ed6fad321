//! The OpenAI dialect: its requests become a `GenerationRequest`, its answers are made of token
//! events. What OpenAI knows and this daemon does not do is refused by name; what nobody here has
//! heard of is ignored; null and neutral values count as absent.

pub(crate) mod answer;
pub(crate) mod chat;
mod chunk;
pub(crate) mod completions;
mod embedding_input;
pub(crate) mod embeddings;
pub(crate) mod generate;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod parameters;
pub(crate) mod sse_body;

use std::time::SystemTime;

/// Seconds since the epoch, as OpenAI's `created`. A clock before the epoch reads as the epoch.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Which of the two endpoints is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Chat,
    Text,
}

impl Endpoint {
    /// The field the prompt comes from, blamed when it is too long.
    fn prompt_param(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Text => "prompt",
        }
    }
}
