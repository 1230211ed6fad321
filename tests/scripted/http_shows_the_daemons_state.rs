//! Health, readiness, models, loading progress, and the OpenAPI document.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http_support::*;
use rkllmd::settings::Settings;
use rkllmd::supervisor::{ModelStatus, Phase, RuntimeFacts};
use serde_json::{Value, json};

async fn server() -> Server {
    Server::replaying(Settings::default(), Vec::new).await
}

fn failed() -> Phase {
    Phase::Failed {
        reason: "E rkllm: model version is too old".to_owned(),
        retry_at: Instant::now() + Duration::from_secs(30),
    }
}

#[tokio::test]
async fn health_says_that_the_process_lives() {
    let server = server().await;
    let answer = server.get("/health").await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"status":"ok"}))
    );
    server.shut_down().await;
}

#[tokio::test]
async fn ready_when_a_request_would_be_served() {
    let server = server().await;
    let answer = server.get("/v1/ready").await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["status"], "ready");
    assert_eq!(body["models"][0]["id"], "test/model-1.0");
    assert_eq!(body["models"][0]["phase"], "ready");
    assert!(body["models"][0]["since_ms"].is_u64());
    assert_eq!(
        body["models"][0]["queue"],
        json!({"waiting":0,"capacity":4})
    );
    assert_eq!(body["models"][1]["phase"], "unloaded");
    assert!(
        body["models"][1].get("since_ms").is_none(),
        "it was never touched"
    );

    server.set_queue(4, 4);
    let answer = server.get("/v1/ready").await;
    assert_eq!(
        (answer.status, answer.error().2.as_str()),
        (503, "not_ready")
    );
    server.set_queue(3, 4);

    server.status.send_replace(snapshot([
        ("test/model-1.0", status_of(failed())),
        ("raw", status_of(Phase::Unloaded)),
    ]));
    assert_eq!(
        server.get("/v1/ready").await.status,
        200,
        "`raw` is loaded on demand"
    );
    let answer = server.get("/v1/ready?model=tiny").await;
    assert_eq!(answer.status, 503);
    let retry: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&retry));
    let body = answer.json();
    assert_eq!(error_object(&body).2, "not_ready");
    assert_eq!(body["models"].as_array().unwrap().len(), 1);
    assert_eq!(body["models"][0]["phase"], "failed");
    assert_eq!(
        body["models"][0]["reason"],
        "E rkllm: model version is too old"
    );
    assert!(
        body["models"][0]["retry_after"]
            .as_u64()
            .is_some_and(|s| (1..=30).contains(&s))
    );
    assert_eq!(server.get("/v1/ready?model=raw").await.status, 200);

    let answer = server.get("/v1/ready?model=nope").await;
    assert_eq!(
        (answer.status, answer.error().2.as_str()),
        (404, "model_not_found")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn models_are_listed_with_what_is_known() {
    let server = server().await;
    let facts = RuntimeFacts {
        library_path: Some("/usr/lib/librkllmrt.so".to_owned()),
        runtime_version: Some("1.3.1".to_owned()),
        context_length: Some(2048),
        ..RuntimeFacts::default()
    };
    let status = ModelStatus {
        facts: Some(Arc::new(facts)),
        ..status_of(Phase::Running)
    };
    server
        .status
        .send_replace(snapshot([("test/model-1.0", status)]));
    let list = server.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), 4);
    for name in ["test/model-1.0", "test%2Fmodel-1.0", "tiny"] {
        let model = server.get(&format!("/v1/models/{name}")).await.json();
        assert_eq!(model["id"], "test/model-1.0");
        assert_eq!(model["object"], "model");
        assert_eq!(model["created"], 1_700_000_000);
        assert_eq!(model["owned_by"], "rkllmd");
        let details = &model["rkllmd"];
        assert_eq!(details["aliases"], json!(["tiny"]));
        assert_eq!(details["state"]["phase"], "running");
        assert_eq!(details["context_length"], 2048);
        assert_eq!(
            details["runtime"],
            json!({"runtime_version":"1.3.1","context_length":2048})
        );
    }
    for name in ["nope", "test", "%ff"] {
        let answer = server.get(&format!("/v1/models/{name}")).await;
        assert_eq!(
            (answer.status, answer.error().2.as_str()),
            (404, "model_not_found")
        );
    }
    server.shut_down().await;
}

fn event(bytes: &[u8]) -> Value {
    let text = std::str::from_utf8(bytes).unwrap();
    let data = text
        .strip_prefix("id: end\n")
        .unwrap_or(text)
        .strip_prefix("data: ")
        .unwrap()
        .strip_suffix("\n\n")
        .unwrap();
    serde_json::from_str(data).unwrap()
}

#[tokio::test]
async fn loading_is_followed_with_measured_bytes_until_it_ends() {
    for (end, name) in [(Phase::Ready, "ready"), (failed(), "failed")] {
        let server = server().await;
        let loading = ModelStatus {
            // A process that surely exists: this one.
            pid: Some(std::process::id()),
            ..status_of(Phase::Loading)
        };
        server
            .status
            .send_replace(snapshot([("test/model-1.0", loading)]));
        let mut client = server.client().await;
        client
            .send("GET /v1/loading/progress HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await;
        let head = client.head().await;
        assert_eq!(
            head.header("content-type"),
            Some("text/event-stream; charset=utf-8")
        );
        let mut elapsed = Vec::new();
        for _ in 0..3 {
            let event = event(&client.chunk().await);
            assert_eq!(event["model"], "test/model-1.0");
            assert_eq!(event["phase"], "loading");
            assert_eq!(event["file_bytes"], 4096);
            assert!(
                event["resident_bytes"]
                    .as_u64()
                    .is_some_and(|bytes| bytes > 0)
            );
            assert!(event["read_bytes"].as_u64().is_some());
            elapsed.push(event["elapsed_ms"].as_u64().unwrap());
        }
        assert!(
            elapsed.is_sorted() && elapsed[2] > elapsed[0],
            "{elapsed:?}"
        );
        server
            .status
            .send_replace(snapshot([("test/model-1.0", status_of(end))]));
        loop {
            let event = event(&client.chunk().await);
            if event["phase"] != "loading" {
                assert_eq!(event["phase"], name);
                assert!(event.get("elapsed_ms").is_none());
                break;
            }
        }
        assert!(client.chunk().await.is_empty(), "the stream ends");
        server.shut_down().await;
    }
}

#[tokio::test]
async fn with_nothing_loading_the_state_is_reported_once() {
    let server = server().await;
    let answer = server.get("/v1/loading/progress").await;
    let events: Vec<Value> = answer
        .text()
        .split_inclusive("\n\n")
        .map(|text| event(text.as_bytes()))
        .collect();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["phase"], "ready");
    assert_eq!(events[1]["phase"], "unloaded");
    assert_eq!(answer.text().matches("id: end\n").count(), 1);
    let last = answer.text().trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("id: end\n"), "{last}");
    let answer = server.get("/v1/loading/progress?model=tiny").await;
    assert_eq!(event(&answer.body)["phase"], "ready");
    assert!(answer.text().starts_with("id: end\n"));
    let answer = server.get("/v1/loading/progress?model=nope").await;
    assert_eq!(answer.error().2, "model_not_found");
    server.shut_down().await;
}

#[tokio::test]
async fn a_model_that_is_not_loaded_is_waited_for() {
    let mut settings = Settings::default();
    settings.http.keep_alive = Duration::from_millis(100);
    let server = Server::replaying(settings, Vec::new).await;
    let tell = |phase| {
        server
            .status
            .send_replace(snapshot([("raw", status_of(phase))]));
    };
    let mut client = server.client().await;
    let asked = "GET /v1/loading/progress?model=raw HTTP/1.1\r\nhost: localhost\r\n";
    client.send(format!("{asked}\r\n")).await;
    client.head().await;
    assert_eq!(event(&client.chunk().await)["phase"], "unloaded");
    // It says nothing of the model until there is something to say.
    for _ in 0..3 {
        assert_eq!(client.chunk().await, b": \n\n");
    }
    tell(Phase::Unloading);
    let mut phases = Vec::new();
    for next in [Phase::Spawning, Phase::Loading, Phase::Ready] {
        tell(next.clone());
        loop {
            let chunk = client.chunk().await;
            if chunk.starts_with(b": ") {
                continue;
            }
            let event = event(&chunk);
            let phase = event["phase"].as_str().unwrap().to_owned();
            phases.push(phase.clone());
            if phase == next.name() {
                break;
            }
        }
    }
    phases.dedup();
    assert_eq!(
        phases[phases.len() - 3..],
        ["spawning", "loading", "ready"],
        "{phases:?}"
    );
    assert!(client.chunk().await.is_empty(), "the stream ends");
    // An EventSource comes back with the id that it saw last.
    client
        .send(format!("{asked}last-event-id: end\r\n\r\n"))
        .await;
    assert_eq!(client.answer().await.status, 204);
    client
        .send(format!("{asked}last-event-id: 7\r\n\r\n"))
        .await;
    assert_eq!(client.answer().await.status, 200);
    server.shut_down().await;
}

/// A client that waits for a load does not hold up the daemon's end.
#[tokio::test]
async fn waiting_for_a_load_ends_with_the_daemon() {
    let server = server().await;
    let mut client = server.client().await;
    let asked = "GET /v1/loading/progress?model=raw HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.send(asked).await;
    client.head().await;
    assert_eq!(event(&client.chunk().await)["phase"], "unloaded");
    let begun = std::time::Instant::now();
    server.shut_down().await;
    assert!(begun.elapsed() < Settings::default().deadlines.drain / 2);
    assert!(client.chunk().await.is_empty(), "the stream ends");
}

/// Every `$ref` of a JSON document.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("$ref", Value::String(target)) => found.push(target.clone()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_openapi_document_is_whole() {
    let server = server().await;
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for path in [
        CHAT,
        TEXT,
        "/v1/embeddings",
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/v1/models",
        "/v1/models/{id}",
        "/health",
        "/v1/ready",
        "/v1/loading/progress",
        "/metrics",
        "/v1/status",
        "/openapi.json",
    ] {
        assert!(paths.contains(&path), "{path} is missing");
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for target in found {
        let pointer = target.strip_prefix('#').expect("a local reference");
        assert!(
            document.pointer(pointer).is_some(),
            "{target} leads nowhere"
        );
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let Some(properties) = schema["properties"].as_object() else {
            continue;
        };
        for (property, schema) in properties {
            // A reference leads to a schema with a description of its own.
            let mut targets = Vec::new();
            references(schema, &mut targets);
            let described = schema.get("description").is_some() || !targets.is_empty();
            assert!(described, "{name}.{property} is not described");
        }
    }
    server.shut_down().await;
}

/// The parameters that the document names are the ones that are read: each gets its own refusal.
#[tokio::test]
async fn documented_parameters_are_read() {
    let server = server().await;
    let document = server.get("/openapi.json").await.json();
    let schemas = &document["components"]["schemas"];
    for (path, names) in [
        (CHAT, ["ChatParameters", "SharedParameters"]),
        (TEXT, ["TextParameters", "SharedParameters"]),
    ] {
        for name in names {
            for parameter in schemas[name]["properties"].as_object().unwrap().keys() {
                let mut body = json!({"model":"tiny","prompt":"x",
                    "messages":[{"role":"user","content":"x"}]});
                // No parameter takes this.
                body[parameter] = json!([[{"neither": "this"}]]);
                let answer = server.post(path, body.to_string()).await;
                assert_eq!(answer.status, 400, "{parameter}");
                let blamed = answer.error().1.unwrap_or_default();
                assert!(
                    blamed.starts_with(parameter.as_str()),
                    "{parameter}: {blamed}"
                );
            }
        }
    }
    server.shut_down().await;
}
