//! A conversation of blocks, made into the messages that a chat template renders. Messages of one role that
//! follow each other are one, the results of calls come before what else their message says, and blocks of
//! kinds that are not known are left out and told.

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::blocks::{TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock, kind, said};
use super::thinking::thought;
use crate::conversation::{Message, Role, ToolCall};
use crate::http::request::body::{Object, TextOrList};
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::fields_within;
use crate::http::request::nul::refuse_nul;
use crate::http::response::notices;
use crate::models::InstalledModel;

/// Where a message stands that is none of the request's: the system's own field.
pub(super) const OF_SYSTEM: usize = usize::MAX;
/// What begins a text of the system's that Claude Code writes for those who bill it: no model is to read it,
/// and it differs from one conversation to the next, before everything that they have in common.
const BILLING: &str = "x-anthropic-billing-header:";

/// One message of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MessageParam {
    /// `user`, `assistant` or `system`.
    #[schema(required, nullable = false, example = "user")]
    role: Option<String>,
    /// A string or blocks.
    #[schema(schema_with = super::blocks::message_content)]
    content: Option<TextOrList<Box<RawValue>>>,
}

/// A text, as content and as the system's.
pub(super) type Content = TextOrList<Box<RawValue>>;

/// A checked conversation.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub messages: Vec<Message>,
    /// Where each of them stood in what the client sent.
    pub places: Vec<usize>,
    /// Kinds of blocks that are not known.
    pub unread: Vec<String>,
}

/// Messages of one role that follow each other.
struct Joined {
    role: Role,
    /// Where the first of them stands.
    at: usize,
    results: Vec<(usize, Message)>,
    parts: Vec<String>,
    thoughts: Vec<String>,
    calls: Vec<ToolCall>,
}

/// Checks a conversation. `Err` names the message, the block and the field.
pub(super) fn conversation(
    system: Option<Content>,
    messages: Option<Vec<Object<MessageParam>>>,
    model: &InstalledModel,
) -> Result<Conversation, RequestError> {
    let messages = messages.ok_or_else(|| RequestError::missing("messages"))?;
    if messages.is_empty() {
        return Err(RequestError::out_of_range(
            "messages",
            "must hold at least one message",
        ));
    }
    let mut reading = Reading {
        model,
        made: Conversation::default(),
    };
    if let Some(system) = system {
        let mut joined = Joined::new(Role::System, OF_SYSTEM);
        reading.texts(system, "system", &mut joined.parts)?;
        joined.parts.retain(|text| !text.starts_with(BILLING));
        if !joined.parts.is_empty() {
            reading.ends(joined);
        }
    }
    let mut joined: Option<Joined> = None;
    for (at, Object(message)) in messages.into_iter().enumerate() {
        let role = message.role(at)?;
        let mut current = match joined.take() {
            Some(joined) if joined.role == role => joined,
            ended => {
                ended.into_iter().for_each(|joined| reading.ends(joined));
                Joined::new(role, at)
            }
        };
        let content = message.content;
        let content =
            content.ok_or_else(|| RequestError::missing(format!("messages[{at}].content")))?;
        reading.message(at, content, &mut current)?;
        joined = Some(current);
    }
    joined.into_iter().for_each(|joined| reading.ends(joined));
    Ok(reading.made)
}

impl MessageParam {
    fn role(&self, at: usize) -> Result<Role, RequestError> {
        let field = || format!("messages[{at}].role");
        match self.role.as_deref() {
            None => Err(RequestError::missing(field())),
            Some("user") => Ok(Role::User),
            Some("assistant") => Ok(Role::Assistant),
            Some("system") => Ok(Role::System),
            Some(role) => Err(RequestError::out_of_range(
                field(),
                format!(
                    "must be `user`, `assistant` or `system`, not `{}`",
                    quote(role)
                ),
            )),
        }
    }
}

impl Joined {
    fn new(role: Role, at: usize) -> Self {
        Self {
            role,
            at,
            results: Vec::new(),
            parts: Vec::new(),
            thoughts: Vec::new(),
            calls: Vec::new(),
        }
    }
}

struct Reading<'m> {
    model: &'m InstalledModel,
    made: Conversation,
}

impl Reading<'_> {
    fn ends(&mut self, joined: Joined) {
        let has_more = !joined.results.is_empty() || !joined.calls.is_empty();
        for (at, result) in joined.results {
            self.made.messages.push(result);
            self.made.places.push(at);
        }
        let mut parts = joined.parts;
        if parts.is_empty() {
            match (joined.role, has_more) {
                (Role::User, true) => return,
                (Role::Assistant, true) => {}
                _ => parts.push(String::new()),
            }
        }
        self.made.messages.push(Message {
            parts,
            reasoning: (!joined.thoughts.is_empty()).then(|| joined.thoughts.join("\n")),
            tool_calls: joined.calls,
            ..Message::text(joined.role, "")
        });
        self.made.places.push(joined.at);
    }

    fn message(
        &mut self,
        at: usize,
        content: Content,
        joined: &mut Joined,
    ) -> Result<(), RequestError> {
        let field = format!("messages[{at}].content");
        let blocks = match content {
            TextOrList::Text(text) => return said(text, &field, &mut joined.parts),
            TextOrList::List(blocks) => blocks,
        };
        for (place, block) in blocks.iter().enumerate() {
            let field = format!("{field}[{place}]");
            let kind = kind(block, &field)?;
            match (kind.as_str(), joined.role) {
                ("tool_use", Role::Assistant) => {
                    let call: ToolUseBlock = fields_within(block, &field)?;
                    joined.calls.push(call.checked(&field)?);
                }
                ("tool_result", Role::User) => {
                    let result = self.result(block, &field)?;
                    joined.results.push((at, result));
                }
                ("tool_use" | "tool_result", _) => {
                    let role = if kind == "tool_use" {
                        "assistant"
                    } else {
                        "user"
                    };
                    return Err(RequestError::out_of_range(
                        format!("{field}.type"),
                        format!("is `{kind}`, which belongs to messages of the role `{role}`"),
                    ));
                }
                ("thinking", Role::Assistant) => {
                    let block: ThinkingBlock = fields_within(block, &field)?;
                    let text = block.thinking.unwrap_or_default();
                    let text = thought(text, block.signature.as_deref());
                    said(text, &format!("{field}.thinking"), &mut joined.thoughts)?;
                }
                _ => self.text(block, &kind, &field, &mut joined.parts)?,
            }
        }
        Ok(())
    }

    fn result(&mut self, block: &RawValue, field: &str) -> Result<Message, RequestError> {
        let result: ToolResultBlock = fields_within(block, field)?;
        let id_field = || format!("{field}.tool_use_id");
        let id = result.tool_use_id.filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| RequestError::missing(id_field()))?;
        refuse_nul(&id, id_field)?;
        let mut parts = Vec::new();
        if let Some(content) = result.content {
            self.texts(content, &format!("{field}.content"), &mut parts)?;
        }
        if parts.is_empty() {
            parts.push(String::new());
        }
        if result.is_error == Some(true) {
            // No template has a place of its own for it.
            parts[0].insert_str(0, "Error: ");
        }
        Ok(Message {
            parts,
            tool_call_id: Some(id),
            ..Message::text(Role::Tool, "")
        })
    }

    /// What may be nothing but text.
    fn texts(
        &mut self,
        content: Content,
        field: &str,
        parts: &mut Vec<String>,
    ) -> Result<(), RequestError> {
        let blocks = match content {
            TextOrList::Text(text) => return said(text, field, parts),
            TextOrList::List(blocks) => blocks,
        };
        for (place, block) in blocks.iter().enumerate() {
            let field = format!("{field}[{place}]");
            let kind = kind(block, &field)?;
            self.text(block, &kind, &field, parts)?;
        }
        Ok(())
    }

    fn text(
        &mut self,
        block: &RawValue,
        kind: &str,
        field: &str,
        parts: &mut Vec<String>,
    ) -> Result<(), RequestError> {
        match kind {
            "text" => {
                let block: TextBlock = fields_within(block, field)?;
                let field = format!("{field}.text");
                let text = block.text.ok_or_else(|| RequestError::missing(&*field))?;
                said(text, &field, parts)
            }
            "image" | "document" => {
                let problem = format!("\"{}\" does not support {kind}s", self.model.id);
                Err(RequestError::unsupported(format!("{field}.type"), problem))
            }
            _ => {
                notices::tell_unread(&mut self.made.unread, &format!("content[].{kind}"));
                Ok(())
            }
        }
    }
}
