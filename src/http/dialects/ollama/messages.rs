//! A conversation as Ollama's clients send it. Calls may have no ids, and results no more than the name of
//! their function, or nothing at all: such a result is that of the first call of that name, or the first
//! call, that has none yet.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::parameters::refuse_images;
use crate::conversation::{self, Role, ToolCall};
use crate::http::request::body::Object;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::Outline;
use crate::http::request::nul::refuse_nul;
use crate::models::InstalledModel;

/// One message of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OllamaMessage {
    /// `system`, `developer` (the same as `system`), `user`, `assistant` or `tool`, in any case.
    #[schema(required, nullable = false, example = "user")]
    role: Option<String>,
    /// Its text; none is an empty one.
    content: Option<String>,
    /// What an assistant thought before it answered.
    thinking: Option<String>,
    /// Not supported; null or empty.
    #[schema(value_type = Option<Vec<String>>)]
    images: Option<Outline>,
    /// The calls that an assistant made.
    #[schema(value_type = Option<Vec<OllamaCall>>)]
    tool_calls: Option<Vec<Object<OllamaCall>>>,
    /// The function whose result a message of the role `tool` is.
    tool_name: Option<String>,
    /// The call whose result it is, where calls have ids.
    tool_call_id: Option<String>,
}

/// A call that an assistant made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OllamaCall {
    /// As the answer had it.
    id: Option<String>,
    #[schema(value_type = OllamaFunction, required, nullable = false)]
    function: Option<Object<OllamaFunction>>,
}

/// A function, and what it was called with.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OllamaFunction {
    /// As the conversation's functions are named.
    #[schema(required, nullable = false, min_length = 1)]
    name: Option<String>,
    /// An object; absent where it takes none.
    #[schema(value_type = Option<Object>)]
    arguments: Option<Box<RawValue>>,
}

/// The calls whose results are still to come: id and name.
type Unanswered = VecDeque<(String, String)>;

/// Checks a conversation. `Err` names the message and the field.
pub(super) fn conversation(
    messages: Vec<Object<OllamaMessage>>,
    model: &InstalledModel,
) -> Result<Vec<conversation::Message>, RequestError> {
    let mut unanswered = Unanswered::new();
    let messages = messages.into_iter().enumerate();
    messages
        .map(|(index, Object(message))| message.checked(index, model, &mut unanswered))
        .collect()
}

impl OllamaMessage {
    fn checked(
        self,
        index: usize,
        model: &InstalledModel,
        unanswered: &mut Unanswered,
    ) -> Result<conversation::Message, RequestError> {
        let field = |name: &str| format!("messages[{index}].{name}");
        let role = self.role.filter(|role| !role.is_empty());
        let role = role.ok_or_else(|| RequestError::missing(field("role")))?;
        let role = match role.to_lowercase().as_str() {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            _ => {
                return Err(RequestError::out_of_range(
                    field("role"),
                    format!(
                        "must be `system`, `user`, `assistant` or `tool`, not `{}`",
                        quote(&role)
                    ),
                ));
            }
        };
        refuse_images(self.images.as_ref(), model, || field("images"))?;
        let texts = [
            ("content", &self.content),
            ("thinking", &self.thinking),
            ("tool_name", &self.tool_name),
            ("tool_call_id", &self.tool_call_id),
        ];
        for (name, text) in texts {
            refuse_nul(text.as_deref().unwrap_or_default(), || field(name))?;
        }
        let calls = self.tool_calls.unwrap_or_default();
        if role != Role::Assistant && !calls.is_empty() {
            return Err(RequestError::out_of_range(
                field("tool_calls"),
                "belongs to messages of the role `assistant`",
            ));
        }
        let tool_calls = calls
            .into_iter()
            .enumerate()
            .map(|(place, Object(call))| call.checked(index, place))
            .collect::<Result<Vec<_>, _>>()?;
        if role == Role::Assistant {
            let calls = tool_calls.iter();
            *unanswered = calls
                .map(|call| (call.id.clone(), call.name.clone()))
                .collect();
        }
        let name = self.tool_name.filter(|name| !name.is_empty());
        let tool_call_id = (role == Role::Tool).then(|| {
            let id = self.tool_call_id.filter(|id| !id.is_empty());
            answered(unanswered, id, name.as_deref())
        });
        let content = self.content.unwrap_or_default();
        let is_mere_call = content.is_empty() && !tool_calls.is_empty();
        Ok(conversation::Message {
            role,
            parts: match is_mere_call {
                true => Vec::new(),
                false => vec![content],
            },
            reasoning: (self.thinking).filter(|text| role == Role::Assistant && !text.is_empty()),
            tool_calls,
            tool_call_id,
            name: name.filter(|_| role == Role::Tool),
        })
    }
}

/// The id of the call that a result is of, which waits for none any more.
fn answered(unanswered: &mut Unanswered, id: Option<String>, name: Option<&str>) -> String {
    let by_id = |id: &str| unanswered.iter().position(|(of, _)| of == id);
    let place = match &id {
        Some(id) => by_id(id),
        None => {
            let named = unanswered
                .iter()
                .position(|(_, of)| Some(of.as_str()) == name);
            named.or((!unanswered.is_empty()).then_some(0))
        }
    };
    let call = place.and_then(|place| unanswered.remove(place));
    id.or(call.map(|(id, _)| id))
        .unwrap_or_else(|| "call_0".to_owned())
}

impl OllamaCall {
    fn checked(self, message: usize, place: usize) -> Result<ToolCall, RequestError> {
        let field = |name: &str| format!("messages[{message}].tool_calls[{place}].{name}");
        let Object(function) = self
            .function
            .ok_or_else(|| RequestError::missing(field("function")))?;
        let name = function.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| RequestError::missing(field("function.name")))?;
        let id = self.id.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| format!("call_{message}_{place}"));
        refuse_nul(&name, || field("function.name"))?;
        refuse_nul(&id, || field("id"))?;
        let arguments = function.arguments.as_deref().map(RawValue::get);
        Ok(ToolCall {
            id,
            name,
            arguments: match arguments {
                None => "{}".to_owned(),
                Some(object) if object.starts_with('{') => object.to_owned(),
                Some(_) => {
                    return Err(RequestError::WrongType {
                        param: field("function.arguments"),
                        reason: "expected an object".to_owned(),
                    });
                }
            },
        })
    }
}
