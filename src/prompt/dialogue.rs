//! A conversation as it is told everywhere becomes the messages that templates know.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{ChatMessage, ChatRole, PromptEnd, RenderRequest};
use crate::conversation::{Message, Role, Tool};

impl RenderRequest {
    /// Asks for an answer to `messages`, or for the rest of one where the last message is an
    /// assistant's text.
    pub fn of(messages: Vec<Message>, tools: Vec<Tool>, now: jiff::civil::DateTime) -> Self {
        let last_has_calls = messages
            .last()
            .is_some_and(|last| !last.tool_calls.is_empty());
        let (sent_at, messages): (_, Vec<_>) = results_in_order(messages).into_iter().unzip();
        let mut request = Self::new(messages.into_iter().map(chat_message).collect(), now);
        request.sent_at = sent_at;
        if last_has_calls {
            request.end = PromptEnd::Answer;
        }
        request.arguments_are_text = true;
        request.tools = (!tools.is_empty()).then(|| tools.into_iter().map(function).collect());
        request
    }
}

/// As OpenAI's API describes functions, which is what templates were written for.
fn function(tool: Tool) -> Value {
    let mut function = Map::new();
    function.insert("name".to_owned(), tool.name.into());
    if let Some(description) = tool.description {
        function.insert("description".to_owned(), description.into());
    }
    let parameters = match tool.parameters {
        Some(parameters) => Value::Object(parameters),
        None => json!({"type": "object", "properties": {}}),
    };
    function.insert("parameters".to_owned(), parameters);
    json!({"type": "function", "function": function})
}

fn chat_message(message: Message) -> ChatMessage {
    let mut more = Map::new();
    if let Some(reasoning) = message.reasoning {
        more.insert("reasoning_content".to_owned(), reasoning.into());
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.into_iter().map(|call| {
            json!({"id": call.id, "type": "function", "function": {
                "name": call.name,
                "arguments": call.arguments,
            }})
        });
        more.insert("tool_calls".to_owned(), calls.collect());
    }
    if let Some(id) = message.tool_call_id {
        more.insert("tool_call_id".to_owned(), id.into());
    }
    ChatMessage {
        role: match message.role {
            Role::System | Role::Developer => ChatRole::System,
            Role::User => ChatRole::User,
            Role::Assistant => ChatRole::Assistant,
            Role::Tool => ChatRole::Tool,
        },
        // Parts are lines of one text.
        content: message.parts.join("\n"),
        name: message.name,
        more,
    }
}

/// Puts the results of an answer's calls into the calls' order, and names the functions that they are
/// of: some formats tell them apart by nothing else. Each message comes with the place that it had.
fn results_in_order(messages: Vec<Message>) -> Vec<(usize, Message)> {
    let mut messages: Vec<(usize, Message)> = messages.into_iter().enumerate().collect();
    // The calls of the last answer that made any, by their ids.
    let mut calls: HashMap<String, (usize, String)> = HashMap::new();
    let mut at = 0;
    while at < messages.len() {
        let (_, message) = &messages[at];
        if message.role != Role::Tool {
            let made = &message.tool_calls;
            if !made.is_empty() {
                let places = made.iter().enumerate();
                calls = places
                    .map(|(place, call)| (call.id.clone(), (place, call.name.clone())))
                    .collect();
            }
            at += 1;
            continue;
        }
        let run = messages[at..].iter();
        let run = run.take_while(|(_, message)| message.role == Role::Tool);
        let run = run.count();
        let results = &mut messages[at..at + run];
        let call = |result: &Message| calls.get(result.tool_call_id.as_deref()?);
        let of_call = |result: &Message| call(result).map_or(usize::MAX, |(place, _)| *place);
        results.sort_by_key(|(_, result)| of_call(result));
        for (_, result) in results {
            if result.name.is_none() {
                result.name = call(result).map(|(_, name)| name.clone());
            }
        }
        at += run;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::ToolCall;

    fn result(id: &str) -> Message {
        Message {
            tool_call_id: Some(id.to_owned()),
            ..Message::text(Role::Tool, format!("of {id}"))
        }
    }

    #[test]
    fn results_follow_the_order_of_their_calls_and_have_their_names() {
        let call = |id: &str, name: &str| ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: "{}".to_owned(),
        };
        let answer = Message {
            tool_calls: vec![call("a", "f"), call("b", "g")],
            ..Message::text(Role::Assistant, "")
        };
        let messages = vec![
            Message::text(Role::User, "q"),
            answer,
            result("x"),
            result("b"),
            result("a"),
            Message::text(Role::User, "r"),
        ];
        let ordered = results_in_order(messages);
        let shown: Vec<_> = ordered[2..5]
            .iter()
            .map(|(place, message)| {
                (
                    *place,
                    message.tool_call_id.as_deref().unwrap(),
                    message.name.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [(4, "a", Some("f")), (3, "b", Some("g")), (2, "x", None)]
        );
        assert_eq!((ordered[5].0, ordered[5].1.role), (5, Role::User));
    }
}
