//! The shapes of answers: whole ones and what goes into chunks. What is not known is absent; usage
//! that is not wholly known is null as a whole.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Endpoint, unix_seconds};
use crate::generation::{Completion, FinishReason, ModelId, RequestId, Timings, Usage};

/// What the chunks of one stream, or one whole answer, have in common.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub endpoint: Endpoint,
    pub id: RequestId,
    pub created: u64,
    pub model: ModelId,
}

impl Identity {
    pub fn new(endpoint: Endpoint, id: RequestId, model: ModelId) -> Self {
        Self {
            endpoint,
            id,
            created: unix_seconds(),
            model,
        }
    }

    /// The whole answer as JSON.
    pub fn whole(&self, text: String, completion: &Completion) -> serde_json::Result<Vec<u8>> {
        let finish_reason = finish_reason(completion.reason);
        let usage = completion.usage.map(UsageBody::of);
        let timings = TimingsBody::of(&completion.timings);
        let (id, model) = (Arc::clone(&self.id.0), Arc::clone(&self.model));
        match self.endpoint {
            Endpoint::Chat => serde_json::to_vec(&ChatCompletion {
                id,
                object: "chat.completion",
                created: self.created,
                model,
                choices: [ChatChoice {
                    index: 0,
                    message: AssistantMessage {
                        role: "assistant",
                        content: text,
                        refusal: None,
                    },
                    logprobs: None,
                    finish_reason,
                }],
                usage,
                timings,
            }),
            Endpoint::Text => serde_json::to_vec(&TextCompletion {
                id,
                object: "text_completion",
                created: self.created,
                model,
                choices: [TextChoice {
                    index: 0,
                    text,
                    logprobs: None,
                    finish_reason: Some(finish_reason),
                }],
                usage,
                timings,
            }),
        }
    }
}

pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Token counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageBody {
    /// Tokens of the prompt, cached ones included.
    prompt_tokens: u32,
    /// Tokens generated.
    completion_tokens: u32,
    /// The sum of both.
    total_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptTokensDetails>,
}

/// Where prompt tokens came from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PromptTokensDetails {
    /// Prompt tokens found in the KV cache and not evaluated again.
    cached_tokens: u32,
}

impl UsageBody {
    pub fn of(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
            prompt_tokens_details: usage
                .cached_prompt_tokens
                .map(|cached_tokens| PromptTokensDetails { cached_tokens }),
        }
    }
}

/// Measured times. A figure that was not measured is absent.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct TimingsBody {
    /// Prompt tokens evaluated in prefill.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_n: Option<u32>,
    /// Milliseconds of prefill.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_ms: Option<f32>,
    /// `prompt_n` per second of `prompt_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_per_second: Option<f32>,
    /// Tokens generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_n: Option<u32>,
    /// Milliseconds for the tokens after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_ms: Option<f32>,
    /// Tokens after the first per second of `predicted_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_per_second: Option<f32>,
    /// Peak resident memory of the worker as the runtime reports it, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_memory_mb: Option<f32>,
    /// Milliseconds in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f32>,
    /// Requests that were to be served before this one when it entered the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<u32>,
    /// How often the answer went on with another worker because its own had died; absent where it
    /// did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumptions: Option<u32>,
}

impl TimingsBody {
    /// `None` when nothing was measured.
    pub fn of(timings: &Timings) -> Option<Self> {
        let finite = |value: Option<f32>| value.filter(|value| value.is_finite());
        let body = Self {
            prompt_n: timings.prompt_n,
            prompt_ms: finite(timings.prompt_ms),
            prompt_per_second: per_second(timings.prompt_n, timings.prompt_ms),
            predicted_n: timings.predicted_n,
            predicted_ms: finite(timings.predicted_ms),
            predicted_per_second: finite(timings.predicted_per_second),
            runtime_memory_mb: finite(timings.runtime_memory_mb),
            queue_ms: finite(timings.queue_ms),
            queue_position: timings.queue_position,
            resumptions: (timings.resumptions > 0).then_some(timings.resumptions),
        };
        (body != Self::default()).then_some(body)
    }
}

fn per_second(tokens: Option<u32>, ms: Option<f32>) -> Option<f32> {
    let rate = tokens? as f32 / ms? * 1000.0;
    rate.is_finite().then_some(rate)
}

/// A whole answer of `/v1/chat/completions`.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatCompletion {
    /// Also in the `x-request-id` header.
    #[schema(value_type = String, example = "chatcmpl-5a0c7d1e93b24f6ab8d01c2f")]
    id: Arc<str>,
    /// Always `chat.completion`.
    #[schema(example = "chat.completion")]
    object: &'static str,
    /// Seconds since the epoch.
    created: u64,
    /// Id of the model that answered.
    #[schema(value_type = String)]
    model: Arc<str>,
    /// Always one.
    #[schema(value_type = Vec<ChatChoice>)]
    choices: [ChatChoice; 1],
    /// Null when a count is not known.
    #[schema(required)]
    usage: Option<UsageBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsBody>,
}

/// The answer itself.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    /// Always 0.
    index: u32,
    message: AssistantMessage,
    /// Always null.
    #[schema(required, value_type = Option<Object>)]
    logprobs: Option<()>,
    /// `stop`: the model ended or a stop string was reached; `length`: the token budget or the
    /// context is used up.
    #[schema(example = "stop")]
    finish_reason: &'static str,
}

/// What the model said.
#[derive(Serialize, ToSchema)]
pub(crate) struct AssistantMessage {
    /// Always `assistant`.
    #[schema(example = "assistant")]
    role: &'static str,
    /// The answer.
    content: String,
    /// Always null.
    #[schema(required, value_type = Option<String>)]
    refusal: Option<()>,
}

/// A whole answer of `/v1/completions`.
#[derive(Serialize, ToSchema)]
pub(crate) struct TextCompletion {
    /// Also in the `x-request-id` header.
    #[schema(value_type = String, example = "cmpl-5a0c7d1e93b24f6ab8d01c2f")]
    id: Arc<str>,
    /// Always `text_completion`.
    #[schema(example = "text_completion")]
    object: &'static str,
    /// Seconds since the epoch.
    created: u64,
    /// Id of the model that answered.
    #[schema(value_type = String)]
    model: Arc<str>,
    /// Always one.
    #[schema(value_type = Vec<TextChoice>)]
    choices: [TextChoice; 1],
    /// Null when a count is not known.
    #[schema(required)]
    usage: Option<UsageBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsBody>,
}

/// The continuation, or a piece of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct TextChoice {
    /// Always 0.
    index: u32,
    /// The text; in a chunk one token's.
    text: String,
    /// Always null.
    #[schema(required, value_type = Option<Object>)]
    logprobs: Option<()>,
    /// Null in all chunks but the last.
    #[schema(required, example = "stop")]
    finish_reason: Option<&'static str>,
}
