//! `/v1/status` says of models, queues and slots what the pages say that have one of them each.

use rkllmd::settings::Settings;
use rkllmd::supervisor::{ModelStatus, Phase, RuntimeFacts};
use rkllmd::telemetry::Slots;
use serde_json::{Value, json};

use crate::http_support::*;

#[tokio::test]
async fn models_queues_and_slots_are_those_of_the_other_pages() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    let facts = RuntimeFacts {
        library_version: Some("1.3.1".to_owned()),
        context_length: Some(2048),
        ..RuntimeFacts::default()
    };
    let status = ModelStatus {
        facts: Some(facts.into()),
        slots: Some(Slots { all: 2, busy: 0b10 }),
        decode_tokens_per_second: Some(11.5),
        ..status_of(Phase::Running)
    };
    let status = snapshot([("test/model-1.0", status)]);
    server.status.send_replace(status);
    server.set_queue(2, 4);

    let answer = server.get("/v1/status").await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["board"], Value::Null, "nobody looks here");
    assert_eq!(
        body["versions"],
        json!({
            "daemon": env!("CARGO_PKG_VERSION"), "kernel": null, "npu_driver": null,
            "libraries": ["1.3.1"],
        })
    );
    let models = body["models"].as_array().unwrap();
    let ready = server.get("/v1/ready").await.json();
    let ready = ready["models"].as_array().unwrap();
    assert_eq!(models.len(), ready.len());
    for (model, ready) in models.iter().zip(ready) {
        for field in ["id", "ready", "phase", "queue", "runtime"] {
            assert_eq!(model.get(field), ready.get(field), "{field}");
        }
    }
    assert_eq!(models[0]["slots"], server.get("/slots").await.json());
    assert_eq!(models[0]["slots"][1]["is_processing"], true);
    assert_eq!(models[0]["decode_tokens_per_second"], 11.5);
    assert_eq!(models[1]["slots"], json!([]), "it is not loaded");
    assert_eq!(models[1]["decode_tokens_per_second"], Value::Null);
    assert_eq!(models[1]["memory_bytes"], Value::Null);
    server.shut_down().await;
}
