//! What llama.cpp's server tells of models beside OpenAI's API, in its shapes. What is not known is absent.

use std::sync::Arc;

use crate::http_support::*;
use rkllmd::generation::ReplyEvent;
use rkllmd::settings::Settings;
use rkllmd::supervisor::{ModelStatus, Phase, RuntimeFacts};
use rkllmd::telemetry::Slots;
use serde_json::{Value, json};

async fn server(events: fn() -> Vec<ReplyEvent>) -> Server {
    Server::replaying(Settings::default(), events).await
}

fn answer() -> Vec<ReplyEvent> {
    vec![started(&[]), text("on"), text("ce"), finished()]
}

#[tokio::test]
async fn one_list_of_models_is_for_every_client() {
    let server = server(answer).await;
    let failed = Phase::Failed {
        reason: "no".to_owned(),
        retry_at: std::time::Instant::now(),
    };
    for (phase, value, has_failed) in [
        (Phase::Unloaded, "unloaded", false),
        (Phase::Spawning, "loading", false),
        (Phase::Loading, "loading", false),
        (Phase::Ready, "loaded", false),
        (Phase::Running, "loaded", false),
        (Phase::Unloading, "unloaded", false),
        (failed, "unloaded", true),
    ] {
        let status = snapshot([("test/model-1.0", status_of(phase))]);
        server.status.send_replace(status);
        for path in ["/models", "/v1/models"] {
            let list = server.get(path).await.json();
            let model = &list["data"][0];
            assert_eq!(model["object"], "model");
            assert_eq!(model["status"]["value"], value);
            assert_eq!(model["status"]["failed"] == true, has_failed, "{model}");
            assert_eq!(model["architecture"]["input_modalities"], json!(["text"]));
            assert_eq!(model["meta"], json!({"size": 4096}), "all that is known");
        }
    }
    let asked = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nanthropic-version: 2023-06-01\r\n\r\n")
    };
    let list = server.ask(asked("/v1/models")).await.json();
    let tiny = json!({
        "type": "model", "id": "test/model-1.0", "display_name": "test/model-1.0",
        "created_at": "2023-11-14T22:13:20Z", "lifecycle": "active", "max_input_tokens": 4096,
    });
    assert_eq!(list["data"][0], tiny);
    assert_eq!(
        (&list["has_more"], &list["first_id"], &list["last_id"]),
        (&json!(false), &json!("test/model-1.0"), &json!("thinker"))
    );
    assert_eq!(server.ask(asked("/v1/models/tiny")).await.json(), tiny);
    server.shut_down().await;
}

#[tokio::test]
async fn props_say_what_is_known() {
    let server = server(answer).await;
    let facts = RuntimeFacts {
        context_length: Some(2048),
        slots: Some(3),
        ..RuntimeFacts::default()
    };
    let status = ModelStatus {
        facts: Some(Arc::new(facts)),
        ..status_of(Phase::Ready)
    };
    let status = snapshot([("test/model-1.0", status)]);
    server.status.send_replace(status);
    let props = server.get("/props?model=tiny").await.json();
    let settings = &props["default_generation_settings"];
    assert_eq!(settings["n_ctx"], 2048);
    assert_eq!(settings["params"], json!({"n_predict": -1, "stop": []}));
    assert_eq!(props["total_slots"], 3);
    assert_eq!(props["model_alias"], "test/model-1.0");
    assert_eq!(
        props["modalities"],
        json!({"vision": false, "audio": false})
    );
    let props = server.get("/props?model=raw").await.json();
    assert_eq!(props["default_generation_settings"]["n_ctx"], 4096);
    assert_eq!(props.get("total_slots"), None);
    let router = server.get("/props").await.json();
    assert_eq!(
        (&router["role"], &router["models_autoload"]),
        (&json!("router"), &json!(true))
    );
    assert_eq!(server.get("/props?model=nope").await.status, 404);
    assert_eq!(server.get("/props?model=a&model=b").await.status, 400);
    server.shut_down().await;
}

#[tokio::test]
async fn slots_say_which_of_them_are_busy_and_nothing_of_what_they_hold() {
    let server = server(answer).await;
    let facts = RuntimeFacts {
        context_length: Some(2048),
        ..RuntimeFacts::default()
    };
    let status = ModelStatus {
        facts: Some(Arc::new(facts)),
        slots: Some(Slots {
            all: 3,
            busy: 0b101,
        }),
        ..status_of(Phase::Running)
    };
    let unloaded = ("raw", status_of(Phase::Unloaded));
    let status = snapshot([("test/model-1.0", status), unloaded]);
    server.status.send_replace(status);
    let slot = |id: u8, is_processing: bool| json!({"id": id, "model": "test/model-1.0", "n_ctx": 2048, "is_processing": is_processing});
    let all = json!([slot(0, true), slot(1, false), slot(2, true)]);
    assert_eq!(server.get("/slots").await.json(), all);
    assert_eq!(server.get("/slots?model=tiny").await.json(), all);
    assert_eq!(server.get("/slots?model=raw").await.json(), json!([]));
    assert_eq!(server.get("/slots?model=nope").await.status, 404);
    server.shut_down().await;
}

#[tokio::test]
async fn what_becomes_of_models_is_told_as_it_happens() {
    let server = server(answer).await;
    let mut client = server.client().await;
    client
        .send("GET /models/sse HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 200);
    let event = |bytes: Vec<u8>| -> Value {
        let text = String::from_utf8(bytes).expect("text");
        let data = text.strip_prefix("data: ").expect("data");
        serde_json::from_str(data).expect("JSON")
    };
    let told = |model: &str, status: &str| json!({"model": model, "event": "model_status", "data": {"status": status}});
    for (model, status) in [
        ("test/model-1.0", "loaded"),
        ("raw", "unloaded"),
        ("picky", "unloaded"),
        ("thinker", "unloaded"),
    ] {
        assert_eq!(event(client.chunk().await), told(model, status));
    }
    let ready = || ("test/model-1.0", status_of(Phase::Running));
    for (phase, status) in [
        (Phase::Spawning, "loading"),
        // Another phase, and no news.
        (Phase::Loading, ""),
        (Phase::Ready, "loaded"),
        (Phase::Unloading, "unloaded"),
    ] {
        let status_now = snapshot([ready(), ("raw", status_of(phase))]);
        server.status.send_replace(status_now);
        if !status.is_empty() {
            assert_eq!(event(client.chunk().await), told("raw", status));
        }
    }
    server.shut_down().await;
}
