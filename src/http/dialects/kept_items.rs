//! The items that a conversation of OpenAI's responses is made of, checked and in the form in which they are kept. A
//! conversation is made of kept items and of new ones by the same code, so that it makes no difference to the prompt
//! who has kept them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::conversation::{Message, Role, ToolCall};

/// What an item takes beside its texts.
const ITEM_BYTES: usize = 128;

/// One item of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub id: String,
    pub said: Said,
}

/// What an item says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Said {
    Message { role: Role, parts: Vec<String> },
    Reasoning { text: String },
    Call(ToolCall),
    Result { call_id: String, parts: Vec<String> },
}

impl Item {
    /// About so many bytes are held.
    pub fn bytes(&self) -> usize {
        let of = |parts: &[String]| {
            parts
                .iter()
                .map(|part| part.len() + size_of::<String>())
                .sum()
        };
        let said: usize = match &self.said {
            Said::Message { parts, .. } => of(parts),
            Said::Reasoning { text } => text.len(),
            Said::Call(call) => call.id.len() + call.name.len() + call.arguments.len(),
            Said::Result { call_id, parts } => call_id.len() + of(parts),
        };
        ITEM_BYTES + self.id.len() + said
    }

    /// As the API lists it.
    pub fn listed(&self) -> Value {
        let id = &self.id;
        match &self.said {
            Said::Message { role, parts } => {
                let (role, is_answer) = match role {
                    Role::Assistant => ("assistant", true),
                    Role::System => ("system", false),
                    Role::Developer => ("developer", false),
                    Role::User | Role::Tool => ("user", false),
                };
                let content: Vec<Value> = match is_answer {
                    true => (parts.iter())
                        .map(|text| {
                            json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
                        })
                        .collect(),
                    false => input_texts(parts),
                };
                json!({"id": id, "type": "message", "status": "completed", "role": role, "content": content})
            }
            Said::Reasoning { text } => json!({
                "id": id, "type": "reasoning", "summary": [],
                "content": [{"type": "reasoning_text", "text": text}],
                "encrypted_content": null, "status": "completed",
            }),
            Said::Call(ToolCall {
                id: call_id,
                name,
                arguments,
            }) => json!({
                "id": id, "type": "function_call", "status": "completed", "call_id": call_id,
                "name": name, "arguments": arguments,
            }),
            Said::Result { call_id, parts } => {
                let output = match &parts[..] {
                    [only] => Value::from(only.as_str()),
                    parts => input_texts(parts).into(),
                };
                json!({
                    "id": id, "type": "function_call_output", "status": "completed",
                    "call_id": call_id, "output": output,
                })
            }
        }
    }
}

fn input_texts(parts: &[String]) -> Vec<Value> {
    let parts = parts.iter();
    parts
        .map(|text| json!({"type": "input_text", "text": text}))
        .collect()
}

/// Messages as a template renders them, and where the first item of each stands.
#[derive(Debug, Default)]
pub(crate) struct Conversed {
    pub messages: Vec<Message>,
    pub places: Vec<usize>,
}

/// The messages that items come to: an assistant's thoughts, words and calls that follow each other are one.
pub(crate) fn conversed<'i>(items: impl Iterator<Item = &'i Arc<Item>>) -> Conversed {
    let mut made = Conversed::default();
    for (at, item) in items.enumerate() {
        let role = match &item.said {
            Said::Message { role, .. } => *role,
            Said::Reasoning { .. } | Said::Call(_) => Role::Assistant,
            Said::Result { .. } => Role::Tool,
        };
        let goes_on = role == Role::Assistant
            && (made.messages.last()).is_some_and(|last| last.role == Role::Assistant);
        if !goes_on {
            made.messages.push(Message {
                parts: Vec::new(),
                ..Message::text(role, "")
            });
            made.places.push(at);
        }
        let Some(message) = made.messages.last_mut() else {
            continue;
        };
        match &item.said {
            Said::Message { parts, .. } | Said::Result { parts, .. } => {
                message.parts.extend(parts.iter().cloned());
            }
            Said::Reasoning { text } => match &mut message.reasoning {
                Some(before) => {
                    before.push('\n');
                    before.push_str(text);
                }
                none => *none = Some(text.clone()),
            },
            Said::Call(call) => message.tool_calls.push(call.clone()),
        }
        if let Said::Result { call_id, .. } = &item.said {
            message.tool_call_id = Some(call_id.clone());
        }
    }
    for message in &mut made.messages {
        // Only who called functions may have said nothing.
        if message.parts.is_empty() && message.tool_calls.is_empty() {
            message.parts.push(String::new());
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(said: Said) -> Arc<Item> {
        let id = "x_1".to_owned();
        Arc::new(Item { id, said })
    }

    #[test]
    fn what_an_assistant_does_in_a_row_is_one_message() {
        let call = |id: &str| {
            item(Said::Call(ToolCall {
                id: id.to_owned(),
                name: "f".to_owned(),
                arguments: "{}".to_owned(),
            }))
        };
        let text = |role, text: &str| {
            let parts = vec![text.to_owned()];
            item(Said::Message { role, parts })
        };
        let thought = item(Said::Reasoning {
            text: "hm".to_owned(),
        });
        let result = item(Said::Result {
            call_id: "a".to_owned(),
            parts: vec!["1".to_owned()],
        });
        let items = [
            text(Role::User, "one"),
            text(Role::User, "two"),
            thought,
            text(Role::Assistant, "so"),
            call("a"),
            call("b"),
            result,
            call("c"),
        ];
        let made = conversed(items.iter());
        let roles: Vec<Role> = made.messages.iter().map(|message| message.role).collect();
        assert_eq!(
            roles,
            [
                Role::User,
                Role::User,
                Role::Assistant,
                Role::Tool,
                Role::Assistant
            ]
        );
        assert_eq!(made.places, [0, 1, 2, 6, 7]);
        let said = &made.messages[2];
        assert_eq!(said.reasoning.as_deref(), Some("hm"));
        assert_eq!(
            (&said.parts[..], said.tool_calls.len()),
            (&["so".to_owned()][..], 2)
        );
        assert_eq!(made.messages[3].tool_call_id.as_deref(), Some("a"));
        assert!(made.messages[4].parts.is_empty());
    }
}
