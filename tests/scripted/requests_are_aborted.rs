//! An administrator ends a request: its client is told so in its dialect, wherever it was, and what it had is given
//! back at once.

use std::time::Duration;

use crate::http_support::*;
use rkllmd::generation::ReplyEvent;
use rkllmd::settings::Settings;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const CODE: &str = "aborted_by_administrator";

fn ollama(fields: &str) -> Vec<u8> {
    let message = r#"{"role":"user","content":"hi"}"#;
    post(
        "/api/chat",
        format!(r#"{{"model":"tiny","messages":[{message}]{fields}}}"#),
    )
}

fn anthropic(fields: &str) -> Vec<u8> {
    let message = r#"{"role":"user","content":"hi"}"#;
    post(
        "/v1/messages",
        format!(r#"{{"model":"tiny","max_tokens":9,"messages":[{message}]{fields}}}"#),
    )
}

fn responses(fields: &str) -> Vec<u8> {
    let body = format!(r#"{{"model":"tiny","input":"hi"{fields}}}"#);
    post("/v1/responses", body)
}

async fn listed(server: &Server) -> Vec<Value> {
    let answer = server.get("/v1/admin/requests").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = answer.json()["requests"].take();
    requests.as_array().expect("a list").clone()
}

async fn abort(server: &Server, id: &str) -> Answer {
    let head = format!("DELETE /v1/admin/requests/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    server.ask(head).await
}

/// Aborts the only request there is, which is in this state.
async fn abort_the_only(server: &Server, path: &str, state: &str) {
    let requests = listed(server).await;
    let [request] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!(request["path"], path);
    assert_eq!(request["state"], state);
    assert_eq!(request["model"], "test/model-1.0");
    assert_eq!(request["client"], "127.0.0.1");
    assert_eq!(request["key"], Value::Null);
    let id = request["id"].as_str().expect("an id");
    let answer = abort(server, id).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json(), json!({"id": id, "aborted": true}));
}

/// What it had is given back, and it is listed no more.
async fn is_over(server: &Server, sender: mpsc::Sender<ReplyEvent>) {
    within("the end of the generation", sender.closed()).await;
    within("the end of the request", async {
        while !listed(server).await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn before_its_answer_it_gets_a_status_that_no_client_repeats() {
    let (server, mut generations) = endless(Settings::default()).await;
    for (path, request) in [
        (CHAT, chat("")),
        (CHAT, chat(r#","stream":true"#)),
        ("/api/chat", ollama("")),
        ("/api/chat", ollama(r#","stream":false"#)),
        ("/v1/messages", anthropic("")),
        ("/v1/messages", anthropic(r#","stream":true"#)),
        ("/v1/responses", responses("")),
        ("/v1/responses", responses(r#","stream":true"#)),
    ] {
        let mut client = server.client().await;
        client.send(request).await;
        let sender = within("a generation", generations.recv()).await;
        let sender = sender.expect("the server lives");
        abort_the_only(&server, path, "waiting").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 422, "{path}: {}", answer.text());
        let body = answer.json();
        let code = body["error"]["code"].as_str().or(body["code"].as_str());
        assert_eq!(code, Some(CODE), "{path}: {body}");
        is_over(&server, sender).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_error_in_its_dialect() {
    let (server, mut generations) = endless(Settings::default()).await;
    for (path, request) in [
        (CHAT, chat(r#","stream":true"#)),
        ("/api/chat", ollama("")),
        ("/v1/messages", anthropic(r#","stream":true"#)),
        ("/v1/responses", responses(r#","stream":true"#)),
    ] {
        let mut client = server.client().await;
        client.send(request).await;
        let sender = within("a generation", generations.recv()).await;
        let sender = sender.expect("the server lives");
        sender.send(started(&[])).await.expect("a reader");
        sender.send(text("so far")).await.expect("a reader");
        let head = client.head().await;
        assert_eq!(head.status, 200);
        let mut stream = String::new();
        while !stream.contains("so far") {
            stream += std::str::from_utf8(&client.chunk().await).expect("text");
        }
        abort_the_only(&server, path, "running").await;
        let mut end = String::new();
        loop {
            let chunk = client.chunk().await;
            if chunk.is_empty() {
                break;
            }
            end += std::str::from_utf8(&chunk).expect("text");
        }
        let line = end.lines().find(|line| line.contains(CODE));
        let line = line.unwrap_or_else(|| panic!("{path}: {end}"));
        let body: Value =
            serde_json::from_str(line.strip_prefix("data: ").unwrap_or(line)).expect("JSON");
        let code = body["error"]["code"].as_str().or(body["code"].as_str());
        assert_eq!(code, Some(CODE), "{path}: {body}");
        assert_eq!(line.starts_with("data: "), path != "/api/chat", "{end}");
        // A response that failed ends as every other.
        assert_eq!(end.contains("[DONE]"), path == "/v1/responses", "{end}");
        is_over(&server, sender).await;
    }
    server.shut_down().await;
}

/// Its connection takes no more, so that its client can be told nothing.
#[tokio::test]
async fn a_client_that_does_not_read_loses_its_place_as_well() {
    let (server, mut generations) = endless(Settings::default()).await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    let sender = within("a generation", generations.recv()).await;
    let sender = sender.expect("the server lives");
    sender.send(started(&[])).await.expect("a reader");
    let stall = Duration::from_millis(500);
    let much = || text(&"much ".repeat(20_000));
    while let Ok(sent) = tokio::time::timeout(stall, sender.send(much())).await {
        sent.expect("a reader");
    }
    abort_the_only(&server, CHAT, "running").await;
    // Long before it would count as a slow reader.
    is_over(&server, sender).await;
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_served_cannot_be_aborted() {
    let server = Server::replaying(Settings::default(), || {
        vec![started(&[]), text("hi"), finished()]
    })
    .await;
    let answer = server.ask(chat("")).await;
    assert_eq!(answer.status, 200);
    let id = answer.header("x-request-id").expect("an id").to_owned();
    for id in [id.as_str(), "absent", "%ff"] {
        let answer = abort(&server, id).await;
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert_eq!(answer.error().2, "request_not_found");
    }
    assert!(listed(&server).await.is_empty());
    server.shut_down().await;
}
