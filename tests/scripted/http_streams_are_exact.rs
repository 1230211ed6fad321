//! What a streamed answer looks like on the wire, byte for byte.

use crate::http_support::*;
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{FinishReason, GenerationError, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::Value;

fn two_tokens() -> Vec<ReplyEvent> {
    vec![
        started(&[]),
        text("Hel\"lo"),
        text(" wörld 😀\n"),
        finished(),
    ]
}

/// An answer's body with its id and time replaced, both checked for their form.
fn normalised(answer: &Answer, prefix: &str) -> String {
    let body = answer.text();
    let first = body.split_once("data: ").expect("an event").1;
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let id = first["id"].as_str().unwrap();
    let digits = id.strip_prefix(prefix).expect("the id's kind");
    assert_eq!(digits.len(), 24);
    assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(answer.header("x-request-id"), Some(id));
    let created = first["created"].as_u64().unwrap();
    assert!(created > 1_700_000_000);
    body.replace(id, "ID").replace(&created.to_string(), "0")
}

#[tokio::test]
async fn a_chat_stream_is_exactly_these_bytes() {
    let server = Server::replaying(Settings::default(), two_tokens).await;
    let answer = server.ask(chat(r#","stream":true"#)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    let head = r#"{"id":"ID","object":"chat.completion.chunk","created":0,"model":"test/model-1.0","choices":["#;
    let expected = [
        format!(
            r#"{head}{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}"#
        ),
        format!(r#"{head}{{"index":0,"delta":{{"content":"Hel\"lo"}},"finish_reason":null}}]}}"#),
        format!(
            r#"{head}{{"index":0,"delta":{{"content":" wörld 😀\n"}},"finish_reason":null}}]}}"#
        ),
        format!(
            r#"{head}{{"index":0,"delta":{{}},"finish_reason":"stop"}}],"timings":{{"prompt_n":5,"prompt_ms":10.0,"prompt_per_second":500.0,"predicted_n":2,"predicted_ms":4.0,"predicted_per_second":250.0,"runtime_memory_mb":128.5,"queue_ms":0.5,"queue_position":3,"resumptions":1}}}}"#
        ),
        "[DONE]".to_owned(),
    ];
    let expected: String = expected
        .iter()
        .map(|data| format!("data: {data}\n\n"))
        .collect();
    assert_eq!(normalised(&answer, "chatcmpl-"), expected);
    server.shut_down().await;
}

#[tokio::test]
async fn usage_comes_in_a_chunk_of_its_own_and_is_null_before() {
    let server = Server::replaying(Settings::default(), two_tokens).await;
    let answer = server
        .ask(chat(
            r#","stream":true,"stream_options":{"include_usage":true}"#,
        ))
        .await;
    let events: Vec<Value> = answer
        .text()
        .split("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .collect();
    assert_eq!(events.len(), 5);
    for event in &events[..4] {
        assert_eq!(event.get("usage"), Some(&Value::Null));
        assert_eq!(event["choices"].as_array().unwrap().len(), 1);
    }
    assert_eq!(events[4]["choices"], serde_json::json!([]));
    assert_eq!(
        events[4]["usage"],
        serde_json::json!({"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,
            "prompt_tokens_details":{"cached_tokens":4}})
    );
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_known_is_absent_and_usage_is_null_as_a_whole() {
    let server = Server::replaying(Settings::default(), || {
        vec![
            started(&[]),
            text("x"),
            finished_unmeasured(FinishReason::Length),
        ]
    })
    .await;
    let answer = server
        .ask(text_request(
            r#","stream":true,"stream_options":{"include_usage":true}"#,
        ))
        .await;
    let head = r#"{"id":"ID","object":"text_completion","created":0,"model":"raw","choices":["#;
    let expected = [
        format!(
            r#"{head}{{"index":0,"text":"x","logprobs":null,"finish_reason":null}}],"usage":null}}"#
        ),
        format!(
            r#"{head}{{"index":0,"text":"","logprobs":null,"finish_reason":"length"}}],"usage":null}}"#
        ),
        format!(r#"{head}],"usage":null}}"#),
        "[DONE]".to_owned(),
    ];
    let expected: String = expected
        .iter()
        .map(|data| format!("data: {data}\n\n"))
        .collect();
    assert_eq!(normalised(&answer, "cmpl-"), expected);
    server.shut_down().await;
}

#[tokio::test]
async fn an_early_error_has_its_true_status() {
    let server = Server::replaying(Settings::default(), || {
        vec![
            started(&[]),
            ReplyEvent::Failed(GenerationError::WorkerDied {
                cause: "killed by SIGSEGV".to_owned(),
            }),
        ]
    })
    .await;
    let answer = server.ask(chat(r#","stream":true"#)).await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.error(),
        ("server_error".into(), None, "worker_died".into())
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_generation_that_just_stops_is_an_error_event() {
    let server = Server::replaying(Settings::default(), || vec![started(&[]), text("x")]).await;
    let answer = server.ask(chat(r#","stream":true"#)).await;
    let last = answer.text().trim_end().rsplit("\n\n").next().unwrap();
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error_object(&last).2, "internal_error");
    server.shut_down().await;
}

#[tokio::test]
async fn what_the_runtime_cannot_vary_is_listed() {
    let server = Server::replaying(Settings::default(), || {
        vec![
            started(&["temperature", "top_k", "seed"]),
            text("x"),
            finished(),
        ]
    })
    .await;
    for stream in ["true", "false"] {
        let fields = format!(r#","stream":{stream},"temperature":0,"seed":7"#);
        let answer = server.ask(chat(&fields)).await;
        assert_eq!(
            answer.header("x-rkllmd-not-applied"),
            Some("temperature, seed"),
            "top_k was not asked for"
        );
        let fields = format!(r#","stream":{stream},"temperature":1,"top_k":3,"seed":7"#);
        let answer = server.ask(chat(&fields)).await;
        assert_eq!(
            answer.header("x-rkllmd-not-applied"),
            Some("temperature, top_k, seed")
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn whole_answers_carry_the_same() {
    let server = Server::replaying(Settings::default(), two_tokens).await;
    let answer = server.ask(chat("")).await;
    assert_eq!(answer.status, 200);
    let mut json = answer.json();
    assert_eq!(json["id"].as_str(), answer.header("x-request-id"));
    json["id"] = "ID".into();
    json["created"] = 0.into();
    let timings = serde_json::json!({"prompt_n":5,"prompt_ms":10.0,"prompt_per_second":500.0,
        "predicted_n":2,"predicted_ms":4.0,"predicted_per_second":250.0,
        "runtime_memory_mb":128.5,"queue_ms":0.5,"queue_position":3,"resumptions":1});
    let usage = serde_json::json!({"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,
        "prompt_tokens_details":{"cached_tokens":4}});
    assert_eq!(
        json,
        serde_json::json!({"id":"ID","object":"chat.completion","created":0,
            "model":"test/model-1.0",
            "choices":[{"index":0,"message":{"role":"assistant","content":"Hel\"lo wörld 😀\n",
                "refusal":null},"logprobs":null,"finish_reason":"stop"}],
            "usage":usage,"timings":timings})
    );
    let answer = server.ask(text_request("")).await;
    let mut json = answer.json();
    json["id"] = "ID".into();
    json["created"] = 0.into();
    assert_eq!(
        json,
        serde_json::json!({"id":"ID","object":"text_completion","created":0,"model":"raw",
            "choices":[{"index":0,"text":"Hel\"lo wörld 😀\n","logprobs":null,
                "finish_reason":"stop"}],
            "usage":usage,"timings":timings})
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_whole_answer_of_which_nothing_is_known_says_so() {
    let server = Server::replaying(Settings::default(), || {
        vec![text("x"), finished_unmeasured(FinishReason::Length)]
    })
    .await;
    let json = server.ask(chat("")).await.json();
    assert_eq!(json["usage"], Value::Null);
    assert!(json.get("timings").is_none());
    assert_eq!(json["choices"][0]["finish_reason"], "length");
    server.shut_down().await;
}

#[tokio::test]
async fn thoughts_have_a_second_name_if_the_settings_say_so() {
    let events = || {
        let thought = ReplyPiece::Reasoning("so \"it\" is".to_owned());
        vec![ReplyEvent::Piece(thought), text("yes"), finished()]
    };
    for also in [false, true] {
        let mut settings = Settings::default();
        settings.chat.also_reasoning = also;
        let server = Server::replaying(settings, events).await;
        let streamed = server.ask(chat(r#","stream":true"#)).await;
        let chunks: Vec<Value> = streamed
            .text()
            .lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect();
        let whole = server.ask(chat("")).await.json();
        for said in [
            &chunks[1]["choices"][0]["delta"],
            &whole["choices"][0]["message"],
        ] {
            assert_eq!(said["reasoning_content"], "so \"it\" is", "{said}");
            let second = said.get("reasoning").and_then(Value::as_str);
            assert_eq!(second, also.then_some("so \"it\" is"), "{said}");
        }
        let content = &chunks[2]["choices"][0]["delta"];
        assert_eq!(*content, serde_json::json!({"content": "yes"}));
        server.shut_down().await;
    }
}
