//! The shapes of answers: whole ones and what goes into chunks. What is not known is absent; usage
//! that is not wholly known is null as a whole.

mod text;

pub(crate) use text::{TextChoice, TextCompletion, TextForm};

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::logprobs::ChatLogprobs;
use crate::chat::{WholeCall, WholeReply};
use crate::generation::{Completion, FinishReason, Usage};
use crate::http::dialects::chat_dialect::Identity;
use crate::http::dialects::timings::TimingsBody;
use crate::http::request::id;

/// How calls are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallForm {
    Tools,
    /// One, as `function_call`.
    Old,
}

/// By which names thoughts are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThoughtFields {
    ReasoningContent,
    /// As `reasoning` as well.
    Both,
}

/// The form of a chat's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChatForm {
    pub calls: CallForm,
    /// The function was the client's choice: an answer that calls it has simply ended, as OpenAI has it.
    pub is_named: bool,
    pub thoughts: ThoughtFields,
    pub tells_logprobs: bool,
}

pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Of an answer that may have made calls.
pub(super) fn chat_finish_reason(
    reason: FinishReason,
    has_calls: bool,
    form: ChatForm,
) -> &'static str {
    let has_calls = has_calls && !form.is_named;
    match (reason, form.calls) {
        (FinishReason::Stop, CallForm::Tools) if has_calls => "tool_calls",
        (FinishReason::Stop, CallForm::Old) if has_calls => "function_call",
        _ => finish_reason(reason),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionTokensDetails>,
}

/// What generated tokens were for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionTokensDetails {
    /// Tokens of thoughts, their markers included.
    reasoning_tokens: u32,
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
            completion_tokens_details: usage
                .reasoning_tokens
                .map(|reasoning_tokens| CompletionTokensDetails { reasoning_tokens }),
        }
    }
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
    /// What made the answer; `-varies` and `-resumed` at its end say that the same seed need not repeat it,
    /// and before it stands of how many slots its worker was: `-slots4-varies`. Absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<String>,
    /// As many as `n` asks for.
    choices: Vec<ChatChoice>,
    /// Null when a count is not known.
    #[schema(required)]
    usage: Option<UsageBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsBody>,
}

impl ChatCompletion {
    pub fn of(
        identity: &Identity,
        replies: Vec<(WholeReply, Completion)>,
        all: &Completion,
        form: ChatForm,
    ) -> Self {
        let choices = replies.into_iter().zip(0..);
        Self {
            id: Arc::clone(&identity.id.0),
            object: "chat.completion",
            created: identity.created,
            model: Arc::clone(&identity.model),
            system_fingerprint: identity.fingerprint(all.timings.resumptions),
            choices: choices
                .map(|((reply, completion), index)| ChatChoice::of(index, reply, &completion, form))
                .collect(),
            usage: all.usage.map(UsageBody::of),
            timings: TimingsBody::of(&all.timings),
        }
    }
}

impl ChatChoice {
    fn of(index: u32, reply: WholeReply, completion: &Completion, form: ChatForm) -> Self {
        let reasoning_content = Some(reply.reasoning).filter(|text| !text.is_empty());
        let reasoning = match form.thoughts {
            ThoughtFields::ReasoningContent => None,
            ThoughtFields::Both => reasoning_content.clone(),
        };
        let logprobs = form
            .tells_logprobs
            .then(|| ChatLogprobs::of(&reply.logprobs));
        let has_calls = !reply.calls.is_empty();
        let mut calls = reply.calls.into_iter();
        let function_call = match form.calls {
            CallForm::Tools => None,
            CallForm::Old => calls.next().map(AnsweredFunction::of),
        };
        let tool_calls = match form.calls {
            CallForm::Tools => calls.map(AnsweredCall::of).collect(),
            CallForm::Old => Vec::new(),
        };
        Self {
            index,
            message: AssistantMessage {
                role: "assistant",
                content: Some(reply.text).filter(|text| !has_calls || !text.is_empty()),
                reasoning_content,
                reasoning,
                tool_calls,
                function_call,
                refusal: None,
            },
            logprobs,
            finish_reason: chat_finish_reason(completion.reason, reply.whole_calls > 0, form),
        }
    }
}

impl AnsweredCall {
    fn of(mut call: WholeCall) -> Self {
        Self {
            id: call.id.take().unwrap_or_else(id::for_call),
            r#type: "function",
            function: AnsweredFunction::of(call),
        }
    }
}

impl AnsweredFunction {
    fn of(call: WholeCall) -> Self {
        Self {
            name: call.name,
            arguments: call.arguments,
        }
    }
}

/// The answer itself.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    /// Which of the answers it is.
    index: u32,
    message: AssistantMessage,
    /// Null unless the request asks for them.
    #[schema(required)]
    logprobs: Option<ChatLogprobs>,
    /// `stop`: the model ended or a stop string was reached; `length`: the token budget or the
    /// context is used up; `tool_calls`: the model ended and made calls.
    #[schema(example = "stop")]
    finish_reason: &'static str,
}

/// What the model said.
#[derive(Serialize, ToSchema)]
pub(crate) struct AssistantMessage {
    /// Always `assistant`.
    #[schema(example = "assistant")]
    role: &'static str,
    /// The answer; null where the model only called functions.
    #[schema(required)]
    content: Option<String>,
    /// What the model thought before, where it can be told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// The same, where the setting `chat.also-reasoning` is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    /// The calls that the model makes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<AnsweredCall>,
    /// The call, where the request gave `functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<AnsweredFunction>,
    /// Always null.
    #[schema(required, value_type = Option<String>)]
    refusal: Option<()>,
}

/// A call that the model makes.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnsweredCall {
    /// What its result is to name.
    #[schema(example = "call_5a0c7d1e93b24f6ab8d01c2f")]
    id: String,
    /// Always `function`.
    #[schema(example = "function")]
    r#type: &'static str,
    function: AnsweredFunction,
}

/// The function, and what it is called with.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnsweredFunction {
    /// As the model wrote it, whether or not there is such a function.
    name: String,
    /// JSON text as the model wrote it, or made of what it wrote in another form; not whole where the
    /// answer was cut.
    #[schema(example = "{}")]
    arguments: String,
}
