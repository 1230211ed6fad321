//! What Ollama's clients get: lines by default, a whole answer where they ask for one, calls in one piece
//! with objects as arguments, and figures that were measured.

use std::time::Duration;

use crate::http_support::*;
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{FinishReason, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

const ASK: &str = r#"{"model":"TINY:latest","messages":[{"role":"user","content":"hi"}]"#;

fn ask(fields: &str) -> Vec<u8> {
    post("/api/chat", format!("{ASK}{fields}}}"))
}

/// A thought, words and two calls.
fn all_there_is() -> Vec<ReplyEvent> {
    let mut first = call(0, Some("c1"), "f", &["{\"a\": ", "\"x\\n}\",\n\"n\": 1e3}"]);
    first.push(ReplyPiece::ToolCallEnd { index: 0 });
    let second = call(1, None, "g", &[]);
    vec![
        started(&[]),
        piece(ReplyPiece::Reasoning("so".to_owned())),
        text("Hel\"lo"),
        text(" wörld 😀\n"),
        ReplyEvent::Pieces(first),
        ReplyEvent::Pieces(second),
        piece(ReplyPiece::ToolCallEnd { index: 1 }),
        finished(),
    ]
}

fn without(value: &Value, names: &[&str]) -> Value {
    let mut value = value.clone();
    for name in names {
        value.as_object_mut().expect("an object").remove(*name);
    }
    value
}

#[tokio::test]
async fn a_chat_is_lines_of_which_the_last_has_the_figures() {
    let server = Server::replaying(Settings::default(), all_there_is).await;
    let answer = server.ask(ask("")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    let said = said(&answer);
    assert_eq!(
        (said.thinking.as_str(), said.content.as_str()),
        ("so", "Hel\"lo wörld 😀\n")
    );
    let calls = vec![
        ("f".to_owned(), json!({"a": "x\n}", "n": 1e3})),
        ("g".to_owned(), json!({})),
    ];
    assert_eq!(said.calls, calls);
    assert!(
        answer
            .text()
            .contains(r#""arguments":{"a":"x\n}","n":1e3}"#),
        "as it was written"
    );
    let last = said.last.expect("an end");
    assert!(
        last["total_duration"]
            .as_u64()
            .is_some_and(|total| total > 0)
    );
    assert_eq!(
        without(&last, &["created_at", "total_duration"]),
        json!({
            "model": "TINY:latest", "message": {"role": "assistant", "content": ""},
            "done": true, "done_reason": "stop", "load_duration": 500_000,
            "prompt_eval_count": 9, "prompt_eval_duration": 10_000_000,
            "eval_count": 2, "eval_duration": 4_000_000,
        })
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_token_is_exactly_this_line() {
    let server = Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await;
    for (request, expected) in [
        (
            ask(""),
            r#"{"model":"TINY:latest","created_at":"T","message":{"role":"assistant","content":"x"},"done":false}"#,
        ),
        (
            post("/api/generate", r#"{"model":"raw","prompt":"once"}"#),
            r#"{"model":"raw","created_at":"T","response":"x","done":false}"#,
        ),
    ] {
        let answer = server.ask(request).await;
        let line = answer.text().lines().next().expect("a line").to_owned();
        let value: Value = serde_json::from_str(&line).expect("JSON");
        let time = value["created_at"].as_str().expect("a time");
        assert_eq!(line.replace(time, "T"), expected);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_whole_answer_says_what_its_lines_would() {
    let server = Server::replaying(Settings::default(), all_there_is).await;
    let answer = server.ask(ask(r#","stream":false"#)).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let whole = answer.json();
    let message = &whole["message"];
    assert_eq!(
        (&message["thinking"], &message["content"]),
        (&"so".into(), &"Hel\"lo wörld 😀\n".into())
    );
    assert_eq!(message["tool_calls"][0]["id"], "c1");
    assert_eq!(
        message["tool_calls"][0]["function"],
        json!({"index": 0, "name": "f", "arguments": {"a": "x\n}", "n": 1e3}})
    );
    assert_eq!(message["tool_calls"][1]["function"]["arguments"], json!({}));
    assert_eq!(
        (&whole["done"], &whole["done_reason"]),
        (&true.into(), &"stop".into())
    );
    assert_eq!(whole["eval_count"], 2);
    server.shut_down().await;
}

#[tokio::test]
async fn a_generated_text_has_its_thoughts_beside_it() {
    let server = Server::replaying(Settings::default(), || {
        vec![
            started(&[]),
            piece(ReplyPiece::Reasoning("so".to_owned())),
            text("x"),
            finished_unmeasured(FinishReason::Length),
        ]
    })
    .await;
    let body = r#"{"model":"thinker","prompt":"once","think":true}"#;
    let streamed = said(&server.post("/api/generate", body).await);
    assert_eq!(
        (streamed.thinking.as_str(), streamed.content.as_str()),
        ("so", "x")
    );
    let last = streamed.last.expect("an end");
    assert_eq!(
        without(&last, &["created_at", "total_duration"]),
        json!({"model": "thinker", "response": "", "done": true, "done_reason": "length"}),
        "what is not known is absent"
    );
    let body = r#"{"model":"thinker","prompt":"once","stream":false}"#;
    let whole = server.post("/api/generate", body).await.json();
    assert_eq!(
        (&whole["response"], &whole["thinking"]),
        (&"x".into(), &"so".into())
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_call_that_was_cut_is_content_as_far_as_it_came() {
    let server = Server::replaying(Settings::default(), || {
        vec![
            started(&[]),
            text("ok "),
            ReplyEvent::Pieces(call(0, None, "f", &["{\"a\": \"b"])),
            finished_unmeasured(FinishReason::Length),
        ]
    })
    .await;
    let expected = r#"ok {"name": "f", "arguments": {"a": "b"#;
    let streamed = said(&server.ask(ask("")).await);
    assert_eq!(
        (streamed.content.as_str(), streamed.calls.len()),
        (expected, 0)
    );
    let whole = server.ask(ask(r#","stream":false"#)).await.json();
    assert_eq!(
        whole["message"],
        json!({"role": "assistant", "content": expected})
    );
    server.shut_down().await;
}

#[tokio::test]
async fn an_error_has_its_status_or_is_the_last_line() {
    let server = Server::whose_worker_dies().await;
    let early = server.ask(ask("")).await;
    assert_eq!(early.status, 503);
    assert_eq!(early.header("content-type"), Some("application/json"));
    assert_eq!(early.json()["code"], "worker_died");
    assert!(
        early.json()["error"]
            .as_str()
            .is_some_and(|text| text.contains("signal 11"))
    );
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"late"}]}"#;
    let late = server.post("/api/chat", body).await;
    assert_eq!(late.status, 200);
    let late = said(&late);
    assert_eq!(late.content, "x");
    assert_eq!(late.error.expect("an error")["code"], "worker_died");
    server.shut_down().await;
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_lives_and_stays_one_of_lines() {
    let mut settings = Settings::default();
    settings.http.header_delay = Duration::from_millis(10);
    settings.http.keep_alive = Duration::from_millis(20);
    let (server, sender) = Server::fed_by_hand(settings).await;
    let mut client = server.client().await;
    client.send(ask("")).await;
    let head = client.head().await;
    assert_eq!(head.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(client.chunk().await, b" ", "before there is a token");
    sender.send(started(&[])).await.expect("it is read");
    sender.send(text("x")).await.expect("it is read");
    sender.send(finished()).await.expect("it is read");
    let mut rest = Vec::new();
    loop {
        let chunk = client.chunk().await;
        if chunk.is_empty() {
            break;
        }
        rest.extend(chunk);
    }
    let lines: Vec<Value> = String::from_utf8(rest)
        .expect("a text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON, with white space before it"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["message"]["content"], "x");
    server.shut_down().await;
}

#[tokio::test]
async fn a_request_takes_from_its_arrival_on() {
    let server = Server::replaying(Settings::default(), all_there_is).await;
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"stream":false}"#;
    let mut client = server.client().await;
    let length = body.len();
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
         content-length: {length}\r\n\r\n"
    );
    client.send(head).await;
    // The body is asked for, so the rest has arrived.
    assert_eq!(client.head().await.status, 100);
    let waited = Duration::from_millis(50);
    tokio::time::sleep(waited).await;
    client.send(body).await;
    let answer = client.answer().await.json();
    let took = answer["total_duration"].as_u64().expect("nanoseconds");
    assert!(u128::from(took) >= waited.as_nanos(), "{answer}");
    server.shut_down().await;
}
