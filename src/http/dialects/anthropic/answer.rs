//! The shapes of answers, whole ones and what events are made of. What is not known is null or absent.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::thinking::{Display, signature};
use crate::chat::{WholePart, WholeReply};
use crate::generation::{Completion, FinishReason, Usage};
use crate::http::dialects::chat_dialect::Identity;
use crate::http::dialects::whole_calls::{as_content, object};
use crate::http::request::id;

/// How a conversation is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerForm {
    pub max_tokens: u32,
    pub display: Display,
    /// Tokens of the prompt, where they are known before it is run.
    pub prompt_tokens: Option<u32>,
}

/// A whole answer of `/v1/messages`.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnsweredMessage {
    /// With the digits of its request's id.
    #[schema(example = "msg_5a0c7d1e93b24f6ab8d01c2f")]
    id: String,
    /// Always `message`.
    #[schema(example = "message")]
    r#type: &'static str,
    /// Always `assistant`.
    #[schema(example = "assistant")]
    role: &'static str,
    /// Id of the model that answered.
    #[schema(value_type = String)]
    model: Arc<str>,
    /// In the order in which the model wrote them.
    content: Vec<AnsweredBlock>,
    /// `end_turn`: the model ended; `tool_use`: likewise, and made calls; `stop_sequence`: one of
    /// `stop_sequences` was reached; `max_tokens`: as many tokens were made;
    /// `model_context_window_exceeded`: the context is used up. Null in a stream's first event.
    #[schema(required, example = "end_turn")]
    stop_reason: Option<&'static str>,
    /// Which one was reached.
    #[schema(required)]
    stop_sequence: Option<String>,
    usage: MessageUsage,
}

/// A block of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum AnsweredBlock {
    /// What the model said.
    Text { text: String },
    /// What it thought; empty where it is not shown.
    Thinking {
        thinking: String,
        /// To be sent back with it.
        signature: String,
    },
    /// A call that it makes.
    ToolUse {
        /// What its result is to name.
        id: String,
        /// As the model wrote it, whether or not there is such a tool.
        name: String,
        /// As the model wrote it but for white space.
        #[schema(value_type = Object)]
        input: Box<RawValue>,
    },
}

/// Token counts. Null is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct MessageUsage {
    /// Tokens of the prompt that were evaluated. In a stream's first event all of them, or 0 as long as they
    /// are not counted.
    #[schema(required)]
    input_tokens: Option<u32>,
    /// Always 0, where the prompt is counted: nothing is kept because a request asks for it.
    #[schema(required)]
    cache_creation_input_tokens: Option<u32>,
    /// Tokens of the prompt that were found in the KV cache and not evaluated again.
    #[schema(required)]
    cache_read_input_tokens: Option<u32>,
    /// Tokens generated.
    #[schema(required)]
    output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputTokensDetails>,
}

/// What generated tokens were for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct OutputTokensDetails {
    /// Tokens of thoughts, their markers included.
    thinking_tokens: u32,
}

impl MessageUsage {
    pub fn of(completion: &Completion) -> Self {
        let Some(usage) = completion.usage else {
            return Self {
                output_tokens: completion.timings.predicted_n,
                ..Self::default()
            };
        };
        let Usage {
            prompt_tokens,
            completion_tokens,
            cached_prompt_tokens,
            reasoning_tokens,
        } = usage;
        let cached = cached_prompt_tokens.unwrap_or(0);
        Self {
            input_tokens: Some(prompt_tokens.saturating_sub(cached)),
            cache_creation_input_tokens: Some(0),
            cache_read_input_tokens: cached_prompt_tokens,
            output_tokens: Some(completion_tokens),
            output_tokens_details: reasoning_tokens
                .map(|thinking_tokens| OutputTokensDetails { thinking_tokens }),
        }
    }

    /// Before anything was made: clients need numbers, and these are all that was counted so far.
    fn begun(prompt_tokens: Option<u32>) -> Self {
        Self {
            input_tokens: Some(prompt_tokens.unwrap_or(0)),
            output_tokens: Some(0),
            ..Self::default()
        }
    }
}

pub(super) fn stop_reason(
    completion: &Completion,
    has_calls: bool,
    max_tokens: u32,
) -> &'static str {
    let made = completion.usage.map(|usage| usage.completion_tokens);
    let made = made.or(completion.timings.predicted_n);
    match (completion.reason, &completion.stop_text) {
        (FinishReason::Stop, _) if has_calls => "tool_use",
        (FinishReason::Stop, Some(_)) => "stop_sequence",
        (FinishReason::Stop, None) => "end_turn",
        (FinishReason::Length, _) if made.is_some_and(|made| made < max_tokens) => {
            "model_context_window_exceeded"
        }
        (FinishReason::Length, _) => "max_tokens",
    }
}

impl AnsweredMessage {
    /// What a stream begins with.
    pub fn begun(identity: &Identity, form: AnswerForm) -> Self {
        Self {
            id: id::for_message(&identity.id),
            r#type: "message",
            role: "assistant",
            model: Arc::clone(&identity.model),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: MessageUsage::begun(form.prompt_tokens),
        }
    }

    pub fn of(
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
        form: AnswerForm,
    ) -> Self {
        let content = content(reply, form.display);
        // A call that is told as text is none to who reads it.
        let is_call = |block: &AnsweredBlock| matches!(block, AnsweredBlock::ToolUse { .. });
        let has_calls = content.iter().any(is_call);
        let reason = stop_reason(completion, has_calls, form.max_tokens);
        Self {
            content,
            stop_reason: Some(reason),
            stop_sequence: stopped_by(reason, completion),
            usage: MessageUsage::of(completion),
            ..Self::begun(identity, form)
        }
    }
}

/// The text that is told with a reason to stop.
pub(super) fn stopped_by(reason: &str, completion: &Completion) -> Option<String> {
    let reached = completion.stop_text.clone();
    reached.filter(|_| reason == "stop_sequence")
}

fn content(reply: WholeReply, display: Display) -> Vec<AnsweredBlock> {
    let mut blocks = Vec::new();
    let (mut thoughts, mut texts) = (reply.reasoning.as_str(), reply.text.as_str());
    let mut calls = reply.calls.into_iter();
    for part in &reply.order {
        match part {
            WholePart::Reasoning(bytes) => {
                let (thought, rest) = thoughts.split_at_checked(*bytes).unwrap_or((thoughts, ""));
                thoughts = rest;
                blocks.push(match display {
                    Display::Shown => AnsweredBlock::Thinking {
                        thinking: thought.to_owned(),
                        signature: signature(None),
                    },
                    Display::Omitted => AnsweredBlock::Thinking {
                        thinking: String::new(),
                        signature: signature(Some(thought)),
                    },
                });
            }
            WholePart::Text { bytes, .. } => {
                let (text, rest) = texts.split_at_checked(*bytes).unwrap_or((texts, ""));
                texts = rest;
                say(text, &mut blocks);
            }
            WholePart::Call => {
                let Some(call) = calls.next() else {
                    continue;
                };
                let input = object(&call.arguments).filter(|_| call.is_whole);
                match input {
                    Some(input) => blocks.push(AnsweredBlock::ToolUse {
                        id: call.id.unwrap_or_else(id::for_tool_use),
                        name: call.name,
                        input,
                    }),
                    None => say(&as_content(&call), &mut blocks),
                }
            }
        }
    }
    blocks
}

fn say(more: &str, blocks: &mut Vec<AnsweredBlock>) {
    match blocks.last_mut() {
        Some(AnsweredBlock::Text { text }) => text.push_str(more),
        _ => blocks.push(AnsweredBlock::Text {
            text: more.to_owned(),
        }),
    }
}

/// The data of a stream's event, by the event's name: `message_start` has the message so far, `ping` nothing,
/// `content_block_start`, `content_block_delta` and `content_block_stop` a block's index and what is new of
/// it, `message_delta` the reason to stop and the counts, `message_stop` nothing.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the writer of `event_writer` writes what it describes"
)]
pub(crate) struct MessageEvent {
    /// The event's name.
    #[schema(example = "content_block_delta")]
    r#type: String,
    /// Of `message_start`.
    #[schema(required = false)]
    message: Option<AnsweredMessage>,
    /// Of a block's events: from 0.
    #[schema(required = false)]
    index: Option<u32>,
    /// Of `content_block_start`: the block, without its text, thought or input.
    #[schema(required = false)]
    content_block: Option<AnsweredBlock>,
    /// Of `content_block_delta` a `text_delta`, `thinking_delta`, `signature_delta` or `input_json_delta`;
    /// of `message_delta` `stop_reason` and `stop_sequence`.
    #[schema(required = false, value_type = Option<Object>)]
    delta: Option<()>,
    /// Of `message_delta`.
    #[schema(required = false)]
    usage: Option<MessageUsage>,
}
