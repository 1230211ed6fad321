//! What Anthropic's clients are refused, before a stream has begun and in its middle, has that API's shape,
//! classes and words.

use std::time::Duration;

use crate::http_support::*;
use rkllmd::generation::GenerationError;
use rkllmd::settings::Settings;
use serde_json::{Value, json};

const PATH: &str = "/v1/messages";

fn body(fields: Value) -> String {
    let mut body = json!({"model": "tiny", "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}]});
    let all = body.as_object_mut().expect("an object");
    all.extend(fields.as_object().expect("fields").clone());
    body.to_string()
}

async fn ask(server: &Server, fields: Value) -> Answer {
    server.post(PATH, body(fields)).await
}

#[tokio::test]
async fn an_error_has_its_status_or_is_the_last_event() {
    let server = Server::whose_worker_dies().await;
    let early = ask(&server, json!({"stream": true})).await;
    assert_eq!(early.status, 503);
    let error = early.json();
    assert_eq!(
        (
            &error["type"],
            &error["error"]["type"],
            &error["error"]["code"]
        ),
        (&"error".into(), &"api_error".into(), &"worker_died".into())
    );
    assert_eq!(
        error["request_id"],
        early.header("request-id").expect("an id")
    );
    let late = json!({"stream": true, "messages": [{"role": "user", "content": "late"}]});
    let late = ask(&server, late).await;
    assert_eq!(late.status, 200);
    let heard = heard(&late);
    assert_eq!(heard.message["content"][0]["text"], "x");
    let error = heard.error.expect("an error");
    assert_eq!(error["error"]["code"], "worker_died");
    assert_eq!(
        error["request_id"],
        late.header("request-id").expect("an id")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn every_class_of_errors_is_that_apis() {
    let error = |name: &str| match name {
        "full" => GenerationError::QueueFull {
            model: "m".to_owned(),
            waiting: 3,
            retry_after: Duration::from_secs(7),
        },
        "long" => GenerationError::ContextLengthExceeded {
            prompt_tokens: 5000,
            limit_tokens: 4096,
        },
        "down" => GenerationError::ShuttingDown,
        "slow" => GenerationError::QueueDeadline {
            model: "m".to_owned(),
            waited: Duration::from_secs(1),
        },
        "late" => GenerationError::DeadlineExceeded {
            deadline: rkllmd::generation::Deadline::Prefill,
            limit: Duration::from_secs(1),
        },
        "bug" => GenerationError::Internal("x".to_owned()),
        _ => GenerationError::PoisonRequest {
            cause: "x".to_owned(),
        },
    };
    let server = Server::start(Settings::default(), move |request| {
        let names = ["full", "long", "down", "slow", "late", "bug"];
        let name = names.iter().find(|name| request.prompt.contains(**name));
        Err(error(name.unwrap_or(&"poison")))
    })
    .await;
    for (name, status, class, code) in [
        ("full", 429, "rate_limit_error", "queue_full"),
        (
            "long",
            400,
            "invalid_request_error",
            "context_length_exceeded",
        ),
        ("down", 503, "overloaded_error", "shutting_down"),
        ("slow", 503, "overloaded_error", "queue_deadline"),
        ("late", 503, "timeout_error", "deadline_exceeded"),
        ("bug", 500, "api_error", "internal_error"),
        ("poison", 422, "invalid_request_error", "poison_request"),
    ] {
        let answer = ask(
            &server,
            json!({"messages": [{"role": "user", "content": name}]}),
        )
        .await;
        assert_eq!(answer.status, status, "{name}");
        let error = answer.json();
        assert_eq!(
            (&error["error"]["type"], &error["error"]["code"]),
            (&class.into(), &code.into()),
            "{error}"
        );
        let retry = (name == "full").then_some("7");
        assert_eq!(answer.header("retry-after"), retry);
        if name == "long" {
            let said = "prompt is too long: 5000 tokens > 4095 maximum";
            assert_eq!(error["error"]["message"], said);
        }
    }
    for (request, status, class) in [
        (post(PATH, "{"), 400, "invalid_request_error"),
        (
            post(PATH, body(json!({"model": "no/such"}))),
            404,
            "not_found_error",
        ),
        (post("/v1/messages/batches", "{}"), 404, "not_found_error"),
        (
            b"GET /v1/messages HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
            405,
            "invalid_request_error",
        ),
        (
            b"POST /v1/messages?beta=true HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\nexpect: 100-continue\r\n\r\n"
                .to_vec(),
            413,
            "request_too_large",
        ),
        (
            b"POST /v1/messages HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0\r\n\r\n".to_vec(),
            403,
            "permission_error",
        ),
        (
            b"GET /v1/models/no/such HTTP/1.1\r\nhost: localhost\r\nanthropic-version: 2023-06-01\r\n\r\n"
                .to_vec(),
            404,
            "not_found_error",
        ),
    ] {
        let answer = server.ask(&request).await;
        let error = answer.json();
        assert_eq!(answer.status, status, "{error}");
        assert_eq!(error["error"]["type"], class, "{error}");
        assert_eq!(answer.header("request-id"), error["request_id"].as_str());
        assert_eq!(answer.header("allow").is_some(), status == 405);
    }
    server.shut_down().await;
}
