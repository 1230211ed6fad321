//! The router of llama.cpp's server: an administrator loads and unloads models, and a key that may use them can
//! follow it.

use crate::daemon_support::{EventStream, Setup, chat, children, eventually};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// The next event about a model that is this one's.
fn told(events: &mut EventStream, model: &str) -> Value {
    loop {
        let data = events.next_data().expect("an event");
        let event: Value = serde_json::from_str(&data).expect("JSON");
        if event["model"] == model {
            return event;
        }
    }
}

#[test]
fn a_model_is_loaded_and_unloaded_while_others_look_on() {
    let scenario = "tokens = [\"one \"]\neos-token-id = 2\nload-delay-ms = 300\n";
    let daemon = Setup::new()
        .settings("models.max-loaded = 2")
        .scenario("m", scenario)
        .scenario("n", scenario)
        .start();
    let status = || daemon.get("/models").json()["data"][0]["status"]["value"].clone();
    assert_eq!(status(), "unloaded");
    let mut events = EventStream::of_get(daemon.address, "/models/sse");
    let mut expect = |status: &str| {
        let event = told(&mut events, "m");
        assert_eq!(
            event,
            json!({"model": "m", "event": "model_status", "data": {"status": status}})
        );
    };
    expect("unloaded");
    for path in ["/models/load", "/v1/models/load"] {
        let loaded = daemon.post(path, &json!({"model": "m:latest"}));
        assert_eq!(
            (loaded.status, loaded.json()),
            (200, json!({"success": true}))
        );
        assert_eq!(status(), "loaded", "it is there when it is answered");
    }
    expect("loading");
    expect("loaded");
    let slots = daemon.get("/slots?model=m").json();
    assert_eq!(
        (&slots[0]["id"], &slots[0]["is_processing"]),
        (&json!(0), &json!(false))
    );
    let worker = daemon.worker_pid();
    let unloaded = daemon.post("/models/unload", &json!({"model": "m"}));
    assert_eq!(
        (unloaded.status, unloaded.json()),
        (200, json!({"success": true}))
    );
    assert!(
        !children(daemon.pid()).contains(&worker),
        "its end was waited for"
    );
    assert_eq!(status(), "unloaded");
    expect("unloaded");
    assert_eq!(daemon.get("/slots?model=m").json(), json!([]));
    let again = daemon.post("/v1/models/unload", &json!({"model": "m"}));
    assert_eq!(again.status, 200, "there is none any more");
    assert_eq!(daemon.phase("n"), "unloaded");
}

#[test]
fn a_model_in_use_stays() {
    let scenario = "tokens = [\"one \", \"two \"]\ntoken-delay-us = 400000\neos-token-id = 2\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let mut answer = daemon.stream(CHAT, &chat("m", "hi", json!({"stream": true})));
    assert_eq!(answer.next_content().as_deref(), Some("one "));
    let slots = daemon.get("/slots").json();
    assert_eq!(slots[0]["is_processing"], true, "{slots}");
    assert!(!slots.to_string().contains("hi"), "{slots}");
    let kept = daemon.post("/models/unload", &json!({"model": "m"}));
    assert_eq!(
        (kept.status, kept.error_code().as_str()),
        (409, "model_in_use")
    );
    assert_eq!(answer.next_content().as_deref(), Some("two "));
    drop(answer);
    eventually("the end of its use", || {
        let answer = daemon.post("/models/unload", &json!({"model": "m"}));
        (answer.status == 200).then_some(())
    });
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let daemon = Setup::new().scenario("m", "no-such-key = 1\n").start();
    let refused = daemon.post("/models/load", &json!({"model": "m"}));
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (503, "model_unavailable")
    );
    let status = &daemon.get("/models").json()["data"][0]["status"];
    assert_eq!(*status, json!({"value": "unloaded", "failed": true}));
    for (body, status) in [
        (json!({}), 400),
        (json!({"model": ""}), 400),
        (json!({"model": 1}), 400),
        (json!({"model": "other"}), 404),
    ] {
        for path in ["/models/load", "/models/unload"] {
            assert_eq!(daemon.post(path, &body).status, status, "{path} {body}");
        }
    }
}
