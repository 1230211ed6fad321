//! What the events of streams look like in the OpenAPI document.

#![allow(dead_code, reason = "the writers of `chunk` write what these describe")]

use utoipa::ToSchema;

use super::answer::{TextChoice, UsageBody};
use super::logprobs::ChatLogprobs;
use crate::http::dialects::timings::TimingsBody;

/// An event of a streamed chat answer.
#[derive(ToSchema)]
pub(crate) struct ChatChunk {
    /// The same in every chunk of a stream.
    id: String,
    /// Always `chat.completion.chunk`.
    #[schema(example = "chat.completion.chunk")]
    object: String,
    /// Seconds since the epoch, the same in every chunk.
    created: u64,
    /// Id of the model that answers.
    model: String,
    /// What makes the answer; `-varies`, and in the last chunk `-resumed`, at its end say that the same seed
    /// need not repeat it, and before it stands of how many slots its worker is: `-slots4-varies`. Absent where
    /// that is not known.
    #[schema(required = false)]
    system_fingerprint: Option<String>,
    /// One, or none in the usage chunk.
    choices: Vec<ChunkChoice>,
    /// Only with `stream_options.include_usage`: null in every chunk but the last.
    #[schema(required = false)]
    usage: Option<UsageBody>,
    /// In the chunk with a finish reason.
    #[schema(required = false)]
    timings: Option<TimingsBody>,
}

/// A piece of the answer.
#[derive(ToSchema)]
pub(crate) struct ChunkChoice {
    /// Which of the answers it is of.
    index: u32,
    delta: Delta,
    /// Only where the request asks for them, in chunks of content.
    #[schema(required = false)]
    logprobs: Option<ChatLogprobs>,
    /// Null in all chunks but the last one with a choice: `stop`, `length` or
    /// `tool_calls`.
    #[schema(required, example = "stop")]
    finish_reason: Option<String>,
}

/// What is new.
#[derive(ToSchema)]
pub(crate) struct Delta {
    /// In the first chunk: `assistant`.
    #[schema(required = false)]
    role: Option<String>,
    /// One token's text, or empty in the first chunk.
    #[schema(required = false)]
    content: Option<String>,
    /// A piece of what the model thinks.
    #[schema(required = false)]
    reasoning_content: Option<String>,
    /// The same, where the setting `chat.also-reasoning` is on.
    #[schema(required = false)]
    reasoning: Option<String>,
    /// A call that begins, or a piece of one.
    #[schema(required = false)]
    tool_calls: Option<Vec<ToolCallDelta>>,
    /// The same, where the request gave `functions`.
    #[schema(required = false)]
    function_call: Option<ToolFunctionDelta>,
}

/// A piece of a call. Its first one has `id`, `type` and the name, and empty arguments.
#[derive(ToSchema)]
pub(crate) struct ToolCallDelta {
    /// Which call it is, from 0.
    index: u32,
    /// What its result is to name.
    #[schema(required = false)]
    id: Option<String>,
    /// Always `function`.
    #[schema(required = false)]
    r#type: Option<String>,
    function: ToolFunctionDelta,
}

/// A piece of a called function.
#[derive(ToSchema)]
pub(crate) struct ToolFunctionDelta {
    /// All of it, in a call's first piece.
    #[schema(required = false)]
    name: Option<String>,
    /// What is new of the arguments, which all together are JSON text.
    arguments: String,
}

/// An event of a streamed `/v1/completions` answer.
#[derive(ToSchema)]
pub(crate) struct TextChunk {
    /// The same in every chunk of a stream.
    id: String,
    /// Always `text_completion`.
    #[schema(example = "text_completion")]
    object: String,
    /// Seconds since the epoch, the same in every chunk.
    created: u64,
    /// Id of the model that answers.
    model: String,
    /// What makes the answer; `-varies`, and in the last chunk `-resumed`, at its end say that the same seed
    /// need not repeat it, and before it stands of how many slots its worker is: `-slots4-varies`. Absent where
    /// that is not known.
    #[schema(required = false)]
    system_fingerprint: Option<String>,
    /// One, or none in the usage chunk.
    choices: Vec<TextChoice>,
    /// Only with `stream_options.include_usage`: null in every chunk but the last.
    #[schema(required = false)]
    usage: Option<UsageBody>,
    /// In the chunk with a finish reason.
    #[schema(required = false)]
    timings: Option<TimingsBody>,
}
