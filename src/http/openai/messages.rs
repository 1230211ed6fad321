//! A conversation as clients send it, made into the messages a chat template renders.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, Schema, Type};

use super::parameters::is_empty;
use crate::http::request_body::{Object, TextOrList};
use crate::http::request_error::{RequestError, quote};
use crate::models::{ChatMessage, ChatRole};

/// One message of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Message {
    /// `system`, `developer` (the same as `system`), `user` or `assistant`.
    #[schema(required, nullable = false, example = "user")]
    role: Option<String>,
    /// A string or an array of text parts. An assistant's may be null or absent.
    #[schema(schema_with = string_or_parts)]
    content: Option<TextOrList<Object<ContentPart>>>,
    /// Name of the participant, for templates that show it.
    name: Option<String>,
    /// Not supported; null or an empty array.
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<Value>,
    /// Not supported; null.
    #[schema(value_type = Option<Object>)]
    function_call: Option<Value>,
}

/// A piece of a message's content.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ContentPart {
    /// Only `text`.
    #[schema(required, nullable = false, example = "text")]
    r#type: Option<String>,
    /// The text.
    #[schema(required, nullable = false)]
    text: Option<String>,
}

fn string_or_parts() -> Schema {
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ArrayBuilder::new().items(Ref::from_schema_name("ContentPart")))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "A string or an array of text parts. An assistant's may be null or absent.",
        ))
        .into()
}

/// Checks a conversation. `Err` names the message and the field.
pub(crate) fn conversation(
    messages: Option<Vec<Object<Message>>>,
) -> Result<Vec<ChatMessage>, RequestError> {
    let messages = messages.ok_or_else(|| RequestError::missing("messages"))?;
    if messages.is_empty() {
        return Err(RequestError::out_of_range(
            "messages",
            "must hold at least one message",
        ));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, Object(message))| message.into_chat(index))
        .collect()
}

impl Message {
    fn into_chat(self, index: usize) -> Result<ChatMessage, RequestError> {
        let field = |name: &str| format!("messages[{index}].{name}");
        let role = match self.role.as_deref() {
            None => return Err(RequestError::missing(field("role"))),
            Some("system" | "developer") => ChatRole::System,
            Some("user") => ChatRole::User,
            Some("assistant") => ChatRole::Assistant,
            Some(role @ ("tool" | "function")) => {
                return Err(RequestError::unsupported(
                    field("role"),
                    format!("messages of the role `{role}` belong to tools"),
                ));
            }
            Some(role) => {
                return Err(RequestError::out_of_range(
                    field("role"),
                    format!(
                        "must be `system`, `developer`, `user` or `assistant`, not `{}`",
                        quote(role)
                    ),
                ));
            }
        };
        for (name, value) in [
            ("tool_calls", &self.tool_calls),
            ("function_call", &self.function_call),
        ] {
            if value.as_ref().is_some_and(|value| !is_empty(value)) {
                return Err(RequestError::unsupported(
                    field(name),
                    "a model here calls no tools",
                ));
            }
        }
        let content = match self.content {
            Some(TextOrList::Text(text)) => text,
            Some(TextOrList::List(parts)) => joined(parts, index)?,
            None if role == ChatRole::Assistant => String::new(),
            None => return Err(RequestError::missing(field("content"))),
        };
        refuse_nul(&content, || field("content"))?;
        refuse_nul(self.name.as_deref().unwrap_or_default(), || field("name"))?;
        Ok(ChatMessage {
            role,
            content,
            name: self.name,
        })
    }
}

/// Text parts are lines of one text.
fn joined(parts: Vec<Object<ContentPart>>, message: usize) -> Result<String, RequestError> {
    let mut whole = String::new();
    for (index, Object(part)) in parts.into_iter().enumerate() {
        let field = |name: &str| format!("messages[{message}].content[{index}].{name}");
        match part.r#type.as_deref() {
            None => return Err(RequestError::missing(field("type"))),
            Some("text") => {}
            Some(other) => {
                return Err(RequestError::unsupported(
                    field("type"),
                    format!("only `text` parts are, not `{}`", quote(other)),
                ));
            }
        }
        let text = part
            .text
            .ok_or_else(|| RequestError::missing(field("text")))?;
        if index > 0 {
            whole.push('\n');
        }
        whole.push_str(&text);
    }
    Ok(whole)
}

/// The runtimes take C strings, in which a NUL would silently end the prompt.
pub(crate) fn refuse_nul(text: &str, param: impl FnOnce() -> String) -> Result<(), RequestError> {
    if text.contains('\0') {
        return Err(RequestError::out_of_range(
            param(),
            "must not contain the NUL character",
        ));
    }
    Ok(())
}
