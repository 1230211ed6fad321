use serde_json::json;

use super::*;
use crate::prompt::{ChatMessage, ChatRole, RenderRequest};

mod language;
mod limits;

/// With the prompt `p`, the system's `s` and the answer `r`.
fn turn() -> TurnTexts {
    TurnTexts {
        system: "s".to_owned(),
        prompt: "p".to_owned(),
        response: String::new(),
        suffix: String::new(),
    }
}

fn nothing() -> RenderRequest {
    RenderRequest::new(
        Vec::new(),
        jiff::civil::DateTime::constant(2025, 3, 1, 0, 0, 0, 0),
    )
}

fn budget() -> Budget {
    Budget {
        steps: 1_000_000,
        bytes: 1 << 20,
    }
}

fn run(template: &GoTemplate, root: Value, ends: bool) -> Result<Written, RunError> {
    let mut written = Written::within(1 << 16);
    let today = nothing().now.date();
    template.write(root, ends, today, &mut budget(), &mut written)?;
    Ok(written)
}

fn written(source: &str, turn: &TurnTexts, ends_with_answer: bool) -> String {
    let template = GoTemplate::parse(source).expect(source);
    let root = of_turn(turn, &nothing());
    let written = run(&template, root, ends_with_answer);
    written
        .unwrap_or_else(|error| panic!("{source}: {error:?}"))
        .text
}

/// What a conversation of five messages with calls is written as.
fn of_messages(source: &str) -> Result<String, RunError> {
    let template = GoTemplate::parse(source).expect(source);
    run(&template, of_conversation(&conversation()), false).map(|written| written.text)
}

fn conversation() -> RenderRequest {
    let mut calling = ChatMessage::new(ChatRole::Assistant, "");
    calling.more.insert(
        "tool_calls".to_owned(),
        json!([{"id": "c1", "function": {"name": "sum", "arguments": {"b": 2, "a": "<1>", "c": [true, null, 1.5]}}}]),
    );
    calling.more.insert("thinking".to_owned(), json!("hm"));
    let mut result = ChatMessage::new(ChatRole::Tool, "3");
    result.name = Some("sum".to_owned());
    let messages = vec![
        ChatMessage::new(ChatRole::System, "kind"),
        ChatMessage::new(ChatRole::User, "add"),
        ChatMessage::new(ChatRole::User, "up"),
        calling,
        result,
        ChatMessage::new(ChatRole::User, "and?"),
    ];
    RenderRequest {
        tools: Some(json!([{
            "type": "function",
            "function": {"name": "sum", "description": "adds", "parameters": {
                "type": "object", "required": ["a"], "properties": {
                    "b": {"type": "integer"},
                    "a": {"type": ["string", "null"], "description": "one", "enum": ["x", "y"]},
                },
            }},
        }])),
        ..RenderRequest::new(messages, nothing().now)
    }
}
