//! A call that the budget cuts before its arguments is told with none, in each dialect as far as its shape can.

use crate::http_support::*;
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{FinishReason, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

const AS_CONTENT: &str = r#"{"name": "f", "arguments": "#;

async fn server() -> Server {
    Server::replaying(Settings::default(), || {
        vec![
            started(&[]),
            ReplyEvent::Piece(ReplyPiece::ToolCall {
                index: 0,
                id: Some("c1".to_owned()),
                name: "f".to_owned(),
            }),
            finished_unmeasured(FinishReason::Length),
        ]
    })
    .await
}

#[tokio::test]
async fn openais_clients_get_no_arguments() {
    let server = server().await;
    let whole = server.ask(chat("")).await.json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}])
    );
    let stream = server.ask(chat(r#","stream":true"#)).await;
    let mut arguments = String::new();
    let mut reason = Value::Null;
    let events = stream.text().split("\n\n");
    let events = events.filter_map(|event| event.strip_prefix("data: "));
    for event in events.filter(|event| *event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event).expect("JSON");
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"]["tool_calls"][0]["function"]["arguments"];
        arguments.push_str(delta.as_str().unwrap_or_default());
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    assert_eq!((arguments.as_str(), &reason), ("", &"length".into()));
    server.shut_down().await;
}

#[tokio::test]
async fn anthropics_clients_get_text_or_an_input_without_deltas() {
    let server = server().await;
    let ask = |fields: &str| {
        let body =
            r#"{"model":"tiny","max_tokens":100,"messages":[{"role":"user","content":"hi"}]"#;
        post("/v1/messages", format!("{body}{fields}}}"))
    };
    let whole = server.ask(ask("")).await.json();
    assert_eq!(
        whole["content"],
        json!([{"type": "text", "text": AS_CONTENT}])
    );
    assert_eq!(whole["stop_reason"], "max_tokens");
    let heard = heard(&server.ask(ask(r#","stream":true"#)).await);
    let block = json!({"type": "tool_use", "id": "c1", "name": "f", "input": {}});
    assert_eq!(heard.message["content"], json!([block]));
    assert_eq!(heard.message["stop_reason"], "max_tokens");
    server.shut_down().await;
}

#[tokio::test]
async fn ollamas_clients_get_content() {
    let server = server().await;
    let ask = |fields: &str| {
        let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]"#;
        post("/api/chat", format!("{body}{fields}}}"))
    };
    let whole = server.ask(ask(r#","stream":false"#)).await.json();
    assert_eq!(
        whole["message"],
        json!({"role": "assistant", "content": AS_CONTENT})
    );
    assert_eq!(whole["done_reason"], "length");
    let streamed = said(&server.ask(ask("")).await);
    assert_eq!(
        (streamed.content.as_str(), streamed.calls.len()),
        (AS_CONTENT, 0)
    );
    let last = streamed.last.expect("an end");
    assert_eq!(last["done_reason"], "length");
    server.shut_down().await;
}
