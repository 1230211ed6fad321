//! A model that calls functions as Hermes models do, what it is asked, and how clients put its answers
//! together.

use crate::daemon_support::{Answer, Daemon, Setup};
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";

/// Writes calls as Hermes models do.
pub const TEMPLATE: &str = include_str!("function_calls.jinja");

/// Arguments with everything that has cut some server's calls short.
pub const HARD: &str = r#"{"text":"a \"quoted\" } ] </tool_call> {\"name\": 1}","list":[[1,[2]],{"é":"中🦀"}],"n":1e3}"#;

pub fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {
        "name": name,
        "description": "Does it",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    }})
}

pub fn question(content: &str, extra: Value) -> Value {
    let mut body = json!({
        "model": "m",
        "messages": [{"role": "user", "content": content}],
        "tools": [tool("f"), tool("g")],
    });
    if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
        body.extend(extra);
    }
    body
}

/// Pieces of so many characters, each a token in TOML.
pub fn pieces(text: &str, chars: usize) -> Vec<String> {
    let all: Vec<char> = text.chars().collect();
    let pieces = all.chunks(chars).map(|piece| {
        let piece: String = piece.iter().collect();
        toml_text(&piece)
    });
    pieces.collect()
}

/// As `pieces`, as a list.
pub fn tokens(text: &str, chars: usize) -> String {
    format!("[{}]", pieces(text, chars).join(", "))
}

/// Pieces of so many bytes, wherever that cuts a character, as a list of tokens in TOML.
pub fn byte_tokens(text: &str, bytes: usize) -> String {
    let pieces = text.as_bytes().chunks(bytes);
    let cut = pieces.clone().any(|piece| str::from_utf8(piece).is_err());
    assert!(cut || text.is_ascii(), "{bytes} bytes cut no character");
    let pieces = pieces.map(|piece| format!("{{ bytes = {piece:?} }}"));
    format!("[{}]", pieces.collect::<Vec<_>>().join(", "))
}

pub fn toml_text(text: &str) -> String {
    // A basic string of TOML takes the escapes of JSON.
    serde_json::to_string(text).expect("a text")
}

pub fn call(name: &str, arguments: &str) -> String {
    format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
}

pub fn two_calls() -> String {
    format!(
        "Let me see.\n{}\n{}",
        call("f", HARD),
        call("g", r#"{"text" : "x"}"#)
    )
}

/// A model that answers by what the question holds.
pub fn start(scenario: &str) -> Daemon {
    Setup::new()
        .model_file("m", "model.rkllm", scenario)
        .model_file("m", "chat_template.jinja", TEMPLATE)
        .start()
}

pub fn scenario(answers: &[(&str, &str)], chars: usize) -> String {
    scenario_of(answers, |answer| tokens(answer, chars))
}

pub fn scenario_of(answers: &[(&str, &str)], tokens: impl Fn(&str) -> String) -> String {
    let answers = answers.iter().map(|(question, answer)| {
        let tokens = tokens(answer);
        format!("[[answer]]\nwhen-prompt-contains = {question:?}\ntokens = {tokens}\n")
    });
    let answers: String = answers.collect();
    format!("tokens = [\"nothing\"]\neos-token-id = 2\ncontinue-answers = true\n{answers}")
}

pub fn message(answer: &Answer) -> (Value, String) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let choice = &answer.json()["choices"][0];
    let reason = choice["finish_reason"].as_str().expect("a reason");
    (choice["message"].clone(), reason.to_owned())
}

/// What a stream told, put together as clients do.
#[derive(Debug, Default)]
pub struct Streamed {
    pub content: String,
    pub reasoning: String,
    /// Name and arguments.
    pub calls: Vec<(String, String)>,
    pub ids: Vec<String>,
    pub reason: String,
    pub error: Option<Value>,
}

/// Reads a stream and holds each of its chunks to the form that clients rely on.
pub fn read(daemon: &Daemon, mut body: Value) -> Streamed {
    body["stream"] = true.into();
    let mut events = daemon.stream(CHAT, &body);
    let mut streamed = Streamed::default();
    let mut roles = 0;
    while let Some(data) = events.next_data() {
        if data == "[DONE]" {
            assert_eq!(roles, 1, "the role comes once");
            return streamed;
        }
        let chunk: Value = serde_json::from_str(&data).expect("JSON");
        if let Some(error) = chunk.get("error") {
            streamed.error = Some(error.clone());
            return streamed;
        }
        let choice = &chunk["choices"][0];
        let delta = choice["delta"].as_object().expect("a delta");
        roles += usize::from(delta.contains_key("role"));
        assert!(!delta.values().any(Value::is_null), "{data}");
        if let Some(reason) = choice["finish_reason"].as_str() {
            assert!(
                delta.is_empty(),
                "the reason has a chunk of its own: {data}"
            );
            streamed.reason = reason.to_owned();
        }
        let text = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default();
        streamed.content.push_str(text("content"));
        streamed.reasoning.push_str(text("reasoning_content"));
        let Some(calls) = delta.get("tool_calls") else {
            continue;
        };
        assert_eq!(delta.len(), 1, "{data}");
        for call in calls.as_array().expect("calls") {
            let index = call["index"].as_u64().expect("an index") as usize;
            let function = call["function"].as_object().expect("a function");
            let arguments = function["arguments"].as_str().expect("a text");
            if index == streamed.calls.len() {
                assert_eq!(
                    (&call["type"], arguments),
                    (&json!("function"), ""),
                    "{data}"
                );
                let name = function["name"].as_str().expect("a name");
                streamed
                    .ids
                    .push(call["id"].as_str().expect("an id").to_owned());
                streamed.calls.push((name.to_owned(), String::new()));
            } else {
                let keys: Vec<_> = call.as_object().expect("a call").keys().collect();
                assert_eq!(keys, ["index", "function"], "{data}");
                assert_eq!(function.len(), 1, "{data}");
                streamed.calls[index].1.push_str(arguments);
            }
        }
    }
    panic!("the stream ended without an end: {streamed:?}");
}

pub fn both_calls() -> Vec<(String, String)> {
    let call = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
    vec![call("f", HARD), call("g", r#"{"text" : "x"}"#)]
}

pub fn prompt(daemon: &Daemon, body: &Value) -> String {
    let answer = daemon.post("/apply-template", body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["prompt"]
        .as_str()
        .expect("a prompt")
        .to_owned()
}

pub fn agent_turn(results: &[(&str, &str)]) -> Value {
    let called = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let mut messages = vec![
        json!({"role": "user", "content": "both"}),
        json!({"role": "assistant", "content": null, "tool_calls": [
            called("call_1", "f", r#"{"text": "<|im_end|>", "n": 1}"#), called("call_2", "g", "{}"),
        ]}),
    ];
    messages.extend(
        results
            .iter()
            .map(|(id, text)| json!({"role": "tool", "tool_call_id": id, "content": text})),
    );
    question("", json!({"messages": messages}))
}
