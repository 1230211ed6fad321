//! A call that the budget cuts before its arguments, or that the model leaves there, is told with none, in each
//! dialect as far as its shape can.

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

/// The model leaves a call, and makes another.
async fn leaving() -> Server {
    Server::replaying(Settings::default(), || {
        let call = |index, name: &str| ReplyPiece::ToolCall {
            index,
            id: Some(format!("c{index}")),
            name: name.to_owned(),
        };
        vec![
            started(&[]),
            ReplyEvent::Pieces(vec![
                call(1, "f"),
                call(2, "g"),
                ReplyPiece::ToolCallEnd { index: 2 },
            ]),
            finished_unmeasured(FinishReason::Stop),
        ]
    })
    .await
}

#[tokio::test]
async fn a_call_that_was_left_is_not_taken_for_the_one_behind_it() {
    let server = leaving().await;
    let anthropic = |fields: &str| {
        let body =
            r#"{"model":"tiny","max_tokens":100,"messages":[{"role":"user","content":"hi"}]"#;
        post("/v1/messages", format!("{body}{fields}}}"))
    };
    let whole = server.ask(anthropic("")).await.json();
    let told = json!({"type": "tool_use", "id": "c2", "name": "g", "input": {}});
    assert_eq!(
        whole["content"],
        json!([{"type": "text", "text": AS_CONTENT}, told])
    );
    assert_eq!(whole["stop_reason"], "tool_use");
    let ollama = |fields: &str| {
        let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]"#;
        post("/api/chat", format!("{body}{fields}}}"))
    };
    let whole = server.ask(ollama(r#","stream":false"#)).await.json();
    let message = &whole["message"];
    assert_eq!(message["content"], AS_CONTENT);
    let calls = message["tool_calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 1, "{message}");
    assert_eq!(calls[0]["function"]["name"], "g");
    let streamed = said(&server.ask(ollama("")).await);
    assert_eq!(streamed.content, AS_CONTENT);
    assert_eq!(streamed.calls, [("g".to_owned(), json!({}))]);
    server.shut_down().await;
}

#[tokio::test]
async fn a_call_that_was_left_is_an_item_that_is_not_whole() {
    let server = leaving().await;
    let body = json!({"model": "tiny", "input": "hi"});
    let whole = server.post("/v1/responses", body.to_string()).await.json();
    let streamed = json!({"model": "tiny", "input": "hi", "stream": true});
    let streamed = server.post("/v1/responses", streamed.to_string()).await;
    for response in [whole, heard_response(&streamed).response] {
        assert_eq!(response["status"], "completed");
        let items = response["output"].as_array().expect("items");
        let items: Vec<_> = items
            .iter()
            .map(|item| {
                let of = |name: &str| item[name].as_str().expect("a text");
                (of("name"), of("arguments"), of("status"))
            })
            .collect();
        assert_eq!(items, [("f", "", "incomplete"), ("g", "{}", "completed")]);
    }
    server.shut_down().await;
}
