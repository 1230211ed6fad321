//! A conversation as clients send it, made into the messages a chat template renders.

use std::collections::HashMap;

use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, Schema, Type};

use crate::conversation::{self, Role, ToolCall};
use crate::http::request::body::{Object, TextOrList};
use crate::http::request::error::{RequestError, quote};
use crate::http::request::nul::refuse_nul;

/// One message of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Message {
    /// `system`, `developer` (the same as `system`), `user`, `assistant`, `tool`, or the older
    /// `function`.
    #[schema(required, nullable = false, example = "user")]
    role: Option<String>,
    /// A string or an array of text parts. An assistant's may be null or absent.
    #[schema(schema_with = string_or_parts)]
    content: Option<TextOrList<Object<ContentPart>>>,
    /// Name of the participant, for templates that show it; of a result, that of the function.
    name: Option<String>,
    /// The calls that an assistant made.
    #[schema(value_type = Option<Vec<MessageCall>>)]
    tool_calls: Option<Vec<Object<MessageCall>>>,
    /// The call whose result a message of the role `tool` is.
    tool_call_id: Option<String>,
    /// The older form of `tool_calls`.
    #[schema(value_type = Option<CalledFunction>)]
    function_call: Option<Object<CalledFunction>>,
    /// What an assistant thought before it answered.
    reasoning_content: Option<String>,
    /// Another name of `reasoning_content`.
    reasoning: Option<String>,
    /// Another name of `reasoning_content`.
    thinking: Option<String>,
}

/// A call that an assistant made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MessageCall {
    /// As the answer had it.
    #[schema(required, nullable = false)]
    id: Option<String>,
    /// Only `function`.
    #[schema(example = "function")]
    r#type: Option<String>,
    #[schema(value_type = CalledFunction, required, nullable = false)]
    function: Option<Object<CalledFunction>>,
}

/// A function, and what it was called with.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CalledFunction {
    /// As the conversation's functions are named.
    #[schema(required, nullable = false)]
    name: Option<String>,
    /// JSON text; absent or empty where it takes none.
    #[schema(example = "{}")]
    arguments: Option<String>,
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
) -> Result<Vec<conversation::Message>, RequestError> {
    let messages = messages.ok_or_else(|| RequestError::missing("messages"))?;
    if messages.is_empty() {
        return Err(RequestError::out_of_range(
            "messages",
            "must hold at least one message",
        ));
    }
    let mut checked: Vec<conversation::Message> = Vec::with_capacity(messages.len());
    // The last call of each function, for results of the older form.
    let mut last_calls: HashMap<String, String> = HashMap::new();
    for (index, Object(message)) in messages.into_iter().enumerate() {
        let message = message.checked(index, &last_calls)?;
        let calls = message.tool_calls.iter();
        last_calls.extend(calls.map(|call| (call.name.clone(), call.id.clone())));
        checked.push(message);
    }
    Ok(checked)
}

impl Message {
    fn checked(
        mut self,
        index: usize,
        last_calls: &HashMap<String, String>,
    ) -> Result<conversation::Message, RequestError> {
        let field = |name: &str| format!("messages[{index}].{name}");
        let role = match self.role.as_deref() {
            None => return Err(RequestError::missing(field("role"))),
            Some("system") => Role::System,
            Some("developer") => Role::Developer,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("tool" | "function") => Role::Tool,
            Some(role) => {
                return Err(RequestError::out_of_range(
                    field("role"),
                    format!(
                        "must be `system`, `developer`, `user`, `assistant` or `tool`, not `{}`",
                        quote(role)
                    ),
                ));
            }
        };
        let tool_call_id = match self.role.as_deref() {
            Some("tool") => {
                let id = self.tool_call_id.take().filter(|id| !id.is_empty());
                Some(id.ok_or_else(|| RequestError::missing(field("tool_call_id")))?)
            }
            Some("function") => {
                let name = self.name.as_deref().filter(|name| !name.is_empty());
                let name = name.ok_or_else(|| RequestError::missing(field("name")))?;
                let call = last_calls.get(name).cloned();
                Some(call.unwrap_or_else(|| "call_0".to_owned()))
            }
            _ => None,
        };
        let tool_calls = self.calls(index, role)?;
        let content = match self.content {
            Some(TextOrList::Text(text)) => vec![text],
            Some(TextOrList::List(parts)) => texts(parts, index)?,
            None if role == Role::Assistant => Vec::new(),
            None => return Err(RequestError::missing(field("content"))),
        };
        for text in &content {
            refuse_nul(text, || field("content"))?;
        }
        let reasoning = [
            ("reasoning_content", self.reasoning_content),
            ("reasoning", self.reasoning),
            ("thinking", self.thinking),
        ];
        let mut reasoning = reasoning
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.filter(|text| !text.is_empty())?)));
        let reasoning = reasoning.next().filter(|_| role == Role::Assistant);
        for (name, text) in [("name", &self.name), ("tool_call_id", &tool_call_id)] {
            refuse_nul(text.as_deref().unwrap_or_default(), || field(name))?;
        }
        if let Some((name, text)) = &reasoning {
            refuse_nul(text, || field(name))?;
        }
        Ok(conversation::Message {
            role,
            parts: content,
            reasoning: reasoning.map(|(_, text)| text),
            tool_calls,
            tool_call_id,
            name: self.name,
        })
    }

    fn calls(&mut self, index: usize, role: Role) -> Result<Vec<ToolCall>, RequestError> {
        let calls = self.tool_calls.take().unwrap_or_default();
        let old = self.function_call.take();
        let field = |name: &str| format!("messages[{index}].{name}");
        if role != Role::Assistant && (!calls.is_empty() || old.is_some()) {
            let name = match calls.is_empty() {
                true => "function_call",
                false => "tool_calls",
            };
            return Err(RequestError::out_of_range(
                field(name),
                "belongs to messages of the role `assistant`",
            ));
        }
        let mut checked = Vec::with_capacity(calls.len() + 1);
        for (place, Object(call)) in calls.into_iter().enumerate() {
            let field = |name: &str| format!("messages[{index}].tool_calls[{place}].{name}");
            if let Some(kind) = call.r#type.filter(|kind| kind != "function") {
                return Err(RequestError::unsupported(
                    field("type"),
                    format!("only `function` is, not `{}`", quote(&kind)),
                ));
            }
            let id = call.id.filter(|id| !id.is_empty());
            let id = id.ok_or_else(|| RequestError::missing(field("id")))?;
            refuse_nul(&id, || field("id"))?;
            let Object(function) = call
                .function
                .ok_or_else(|| RequestError::missing(field("function")))?;
            checked.push(function.checked(id, &field("function"))?);
        }
        if let Some(Object(function)) = old {
            // Its result names the function and no id.
            checked.push(function.checked(format!("call_{index}"), &field("function_call"))?);
        }
        Ok(checked)
    }
}

impl CalledFunction {
    fn checked(self, id: String, param: &str) -> Result<ToolCall, RequestError> {
        let field = |name: &str| format!("{param}.{name}");
        let name = self.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| RequestError::missing(field("name")))?;
        let arguments = self.arguments.unwrap_or_default();
        refuse_nul(&name, || field("name"))?;
        refuse_nul(&arguments, || field("arguments"))?;
        Ok(ToolCall {
            id,
            name,
            // Some clients send nothing where a function takes nothing.
            arguments: match arguments.trim().is_empty() {
                true => "{}".to_owned(),
                false => arguments,
            },
        })
    }
}

fn texts(parts: Vec<Object<ContentPart>>, message: usize) -> Result<Vec<String>, RequestError> {
    let text = |(index, Object(part)): (usize, Object<ContentPart>)| {
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
        let text = part.text;
        text.ok_or_else(|| RequestError::missing(field("text")))
    };
    parts.into_iter().enumerate().map(text).collect()
}
