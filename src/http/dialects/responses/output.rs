//! The items that an answer is made of, in the order in which the model wrote them.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::reasoning::{THOUGHT, sealed};
use crate::auth::SealingKey;
use crate::chat::{WholeCall, WholePart, WholeReply};
use crate::conversation::{Role, ToolCall};
use crate::generation::{Completion, FinishReason};
use crate::http::dialects::kept_items::{Item, Said};
use crate::http::dialects::logprobs::ContentLogprob;
use crate::http::request::id;

/// An item of a response.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputItem {
    /// What the model said.
    Message {
        id: String,
        /// `completed`; `incomplete` where the answer was cut in it; `in_progress` in an event of a stream.
        status: &'static str,
        /// Always `assistant`.
        role: &'static str,
        content: Vec<OutputText>,
    },
    /// What it thought.
    Reasoning {
        id: String,
        status: &'static str,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        summary: Vec<()>,
        content: Vec<ReasoningText>,
        /// The thought for the client to send back, where `include` asks for it.
        #[schema(required)]
        encrypted_content: Option<String>,
    },
    /// A call that it makes.
    FunctionCall {
        id: String,
        /// `completed`; `incomplete` where the answer was cut in it, or the model has left it; `in_progress` in an event
        /// of a stream.
        status: &'static str,
        /// What its result is to name.
        call_id: String,
        /// As the model wrote it, whether or not there is such a function.
        name: String,
        /// JSON text as the model wrote it, or made of what it wrote in another form; not whole where the call is
        /// `incomplete`.
        arguments: String,
    },
}

/// A text of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputText {
    /// Always `output_text`.
    #[schema(example = "output_text")]
    pub r#type: &'static str,
    /// The text.
    pub text: String,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    pub annotations: Vec<()>,
    /// How likely its tokens were, where `include` asks for it.
    pub logprobs: Vec<ContentLogprob>,
}

/// A thought's text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReasoningText {
    /// Always `reasoning_text`.
    #[schema(example = "reasoning_text")]
    pub r#type: &'static str,
    /// The text.
    pub text: String,
}

pub(super) const IN_PROGRESS: &str = "in_progress";
pub(super) const QUEUED: &str = "queued";
pub(super) const COMPLETED: &str = "completed";
pub(super) const INCOMPLETE: &str = "incomplete";

impl OutputText {
    pub fn of(text: String, logprobs: Vec<ContentLogprob>) -> Self {
        Self {
            r#type: "output_text",
            text,
            annotations: Vec::new(),
            logprobs,
        }
    }
}

impl ReasoningText {
    pub fn of(text: String) -> Self {
        Self {
            r#type: "reasoning_text",
            text,
        }
    }
}

impl OutputItem {
    pub fn message(id: String, status: &'static str, content: Vec<OutputText>) -> Self {
        Self::Message {
            id,
            status,
            role: "assistant",
            content,
        }
    }

    /// A thought; with a key it is sealed too.
    pub fn reasoning(
        id: String,
        status: &'static str,
        text: Option<String>,
        sealing: Option<&SealingKey>,
    ) -> Self {
        let encrypted_content =
            (text.as_deref().zip(sealing)).map(|(text, key)| sealed(THOUGHT, text, key));
        Self::Reasoning {
            id,
            status,
            summary: Vec::new(),
            content: text.map(ReasoningText::of).into_iter().collect(),
            encrypted_content,
        }
    }

    /// As it is kept.
    pub fn kept(&self) -> Arc<Item> {
        let (id, said) = match self {
            Self::Message { id, content, .. } => {
                let parts = content.iter().map(|text| text.text.clone()).collect();
                let role = Role::Assistant;
                (id, Said::Message { role, parts })
            }
            Self::Reasoning { id, content, .. } => {
                let text = content.iter().map(|text| text.text.as_str()).collect();
                (id, Said::Reasoning { text })
            }
            Self::FunctionCall {
                id,
                call_id,
                name,
                arguments,
                ..
            } => {
                // As it is read where a client sends it back.
                let arguments = match takes_nothing(arguments) {
                    true => NOTHING,
                    false => arguments.as_str(),
                };
                let call = ToolCall {
                    id: call_id.clone(),
                    name: name.clone(),
                    arguments: arguments.to_owned(),
                };
                (id, Said::Call(call))
            }
        };
        let id = id.clone();
        Arc::new(Item { id, said })
    }
}

/// The items of a whole reply.
pub(super) fn items(
    reply: WholeReply,
    completion: &Completion,
    sealing: Option<&SealingKey>,
) -> Vec<OutputItem> {
    let (mut thoughts, mut texts) = (reply.reasoning.as_str(), reply.text.as_str());
    let mut tokens = reply.logprobs.iter();
    let mut calls = reply.calls.into_iter();
    let last = reply.order.len().saturating_sub(1);
    let mut items = Vec::with_capacity(reply.order.len());
    for (place, part) in reply.order.iter().enumerate() {
        let is_cut = place == last && completion.reason == FinishReason::Length;
        let status = if is_cut { INCOMPLETE } else { COMPLETED };
        items.push(match part {
            WholePart::Reasoning(bytes) => {
                let (thought, rest) = thoughts.split_at_checked(*bytes).unwrap_or((thoughts, ""));
                thoughts = rest;
                let thought = Some(thought.to_owned());
                OutputItem::reasoning(id::for_item("rs"), status, thought, sealing)
            }
            WholePart::Text {
                bytes,
                tokens: scored,
            } => {
                let (text, rest) = texts.split_at_checked(*bytes).unwrap_or((texts, ""));
                texts = rest;
                let logprobs = tokens.by_ref().take(*scored).map(ContentLogprob::of);
                let text = OutputText::of(text.to_owned(), logprobs.collect());
                OutputItem::message(id::for_item("msg"), status, vec![text])
            }
            WholePart::Call => {
                let Some(call) = calls.next() else {
                    continue;
                };
                // One that the model has left is not whole, however its reply ends.
                let status = if call.is_whole { COMPLETED } else { INCOMPLETE };
                function_call(call, status)
            }
        });
    }
    items
}

fn function_call(call: WholeCall, status: &'static str) -> OutputItem {
    let mut arguments = call.arguments;
    if call.is_whole && takes_nothing(&arguments) {
        arguments.push_str(NOTHING);
    }
    OutputItem::FunctionCall {
        id: id::for_item("fc"),
        status,
        call_id: call.id.unwrap_or_else(id::for_call),
        name: call.name,
        arguments,
    }
}

/// What clients read where a function takes nothing.
pub(super) const NOTHING: &str = "{}";

pub(super) fn takes_nothing(arguments: &str) -> bool {
    arguments.trim().is_empty()
}
