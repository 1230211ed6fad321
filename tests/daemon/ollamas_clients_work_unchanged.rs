//! The `ollama` package from PyPI talks to the daemon as it would to Ollama; models come and go by its
//! empty requests.

use std::process::Command;

use crate::daemon_support::{Daemon, Setup, children, eventually, keys, python_package, request};
use crate::doors::{Door, bearer, doors};
use crate::function_calls::{HARD, TEMPLATE, scenario, two_calls};
use serde_json::{Value, json};

/// Pinned, so that a new release changes nothing by itself.
const PACKAGE: &str = "ollama==0.6.3";

/// Thinks as Qwen does.
fn thinking_template() -> String {
    TEMPLATE.replace(
        "{{ message.content }}\n{%- for call",
        "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}\
         {{ message.content }}\n{%- for call",
    )
}

#[test]
fn a_whole_session() {
    let calls = format!("<think>\nso\n</think>\n\n{}", two_calls());
    let answers = [
        ("first of", "All done."),
        ("slow", "one two three four five "),
        ("both", calls.as_str()),
    ];
    let mut answers = scenario(&answers, 7);
    // One token a word, to be counted.
    let words = r#"["one ", "two ", "three ", "four ", "five "]"#;
    let pieces = crate::function_calls::tokens("one two three four five ", 7);
    assert!(answers.contains(&pieces), "{answers}");
    answers = answers.replace(&pieces, words);
    let daemon = Setup::new()
        .model_file("m", "model.rkllm", &answers)
        .model_file("m", "chat_template.jinja", &thinking_template())
        .start();
    let session = Command::new("python3")
        .arg("tests/ollama_client.py")
        .args([
            format!("http://{}", daemon.address),
            "m".to_owned(),
            HARD.to_owned(),
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PYTHONPATH", python_package(PACKAGE))
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&session.stderr);
    assert!(session.status.success(), "{said}");
    assert_eq!(
        String::from_utf8_lossy(&session.stdout).trim(),
        "whole session ok",
        "{said}"
    );
}

fn empty(fields: Value) -> Value {
    let mut body = json!({"model": "m", "prompt": ""});
    let fields = fields.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

#[test]
fn a_model_in_use_is_not_unloaded() {
    let scenario = "tokens = [\"one \", \"two \"]\ntoken-delay-us = 400000\neos-token-id = 2\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let mut answer = daemon.stream(
        "/v1/chat/completions",
        &crate::daemon_support::chat("m", "hi", json!({"stream": true})),
    );
    assert_eq!(answer.next_content().as_deref(), Some("one "));
    let kept = daemon.post("/api/generate", &empty(json!({"keep_alive": 0})));
    assert_eq!(kept.json()["done_reason"], "load", "{}", kept.body);
    assert_eq!(kept.header("x-rkllmd-not-applied"), Some("keep_alive"));
    assert_eq!(answer.next_content().as_deref(), Some("two "));
    drop(answer);
    let worker = daemon.worker_pid();
    let unloaded = eventually("the end of its use", || {
        let answer = daemon.post("/api/generate", &empty(json!({"keep_alive": 0})));
        (answer.json()["done_reason"] == "unload").then_some(answer)
    });
    assert_eq!(unloaded.header("x-rkllmd-not-applied"), None);
    assert!(
        !children(daemon.pid()).contains(&worker),
        "its end was waited for"
    );
    assert_eq!(daemon.phase("m"), "unloaded");
    let again = daemon.post("/api/generate", &empty(json!({"keep_alive": "0s"})));
    assert_eq!(
        again.json()["done_reason"],
        "unload",
        "there is none any more"
    );
    let loaded = daemon.post("/api/generate", &empty(json!({"keep_alive": "5m"})));
    assert_eq!(loaded.json()["done_reason"], "load");
    assert!(
        loaded.json()["load_duration"]
            .as_u64()
            .is_some_and(|took| took > 0)
    );
    assert_eq!(loaded.header("x-rkllmd-not-applied"), Some("keep_alive"));
    daemon.wait_for_phase("m", "ready");
}

#[test]
fn only_administrators_load_and_unload_for_nothing_else() {
    let daemon = Setup::new().scenario("m", "tokens = ['x']\n").start();
    let user = keys(daemon.folder(), "add user");
    let admin = keys(daemon.folder(), "add admin --role admin");
    eventually("keys being asked for", || {
        (daemon.get("/api/tags").status == 401).then_some(())
    });
    let door = &doors(&daemon, 1)[0];
    for (path, body) in [
        ("/api/generate", r#"{"model":"m"}"#),
        ("/api/generate", r#"{"model":"m","keep_alive":0}"#),
        ("/api/chat", r#"{"model":"m","messages":[]}"#),
    ] {
        let refused = door.ask("POST", path, &bearer(Some(&user)), body);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "role_not_allowed"),
            "{body}"
        );
        let done = door.ask("POST", path, &bearer(Some(&admin)), body);
        assert_eq!(done.status, 200, "{body}: {}", done.body);
    }
    let body = r#"{"model":"m","prompt":"hi","stream":false,"keep_alive":0}"#;
    let answered = door.ask("POST", "/api/generate", &bearer(Some(&user)), body);
    assert_eq!(answered.status, 200, "{}", answered.body);
    assert!(
        answered
            .head
            .to_lowercase()
            .contains("x-rkllmd-not-applied: keep_alive")
    );
    // What others may use stays.
    daemon.wait_for_phase("m", "ready");
}

/// A door beyond loopback that asks for no key, with these settings of `[http]` besides.
fn open_to_all(settings: &str) -> (Daemon, Door) {
    let daemon = Setup::new()
        .scenario("m", "tokens = ['x']\n")
        .listen(&["0.0.0.0:0"])
        .settings("http.auth = 'none'")
        .settings(settings)
        .start();
    let door = doors(&daemon, 1).remove(0);
    (daemon, door)
}

#[test]
fn not_every_client_of_the_network_loads_and_unloads() {
    let requests = [
        ("/api/generate", r#"{"model":"m"}"#),
        ("/api/generate", r#"{"model":"m","keep_alive":0}"#),
        ("/api/chat", r#"{"model":"m","messages":[],"keep_alive":0}"#),
    ];
    let (daemon, door) = open_to_all("");
    for (path, body) in requests {
        let refused = door.ask("POST", path, "", body);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "role_not_allowed"),
            "{body}"
        );
    }
    assert_eq!(daemon.phase("m"), "unloaded");
    // A question loads it, which is no one's to decide but the queue's.
    let body = r#"{"model":"m","prompt":"hi","stream":false}"#;
    assert_eq!(door.ask("POST", "/api/generate", "", body).status, 200);
    drop(daemon);
    let (_daemon, door) = open_to_all("http.open-admin = true");
    for (path, body) in requests {
        let done = door.ask("POST", path, "", body);
        assert_eq!(done.status, 200, "{body}: {}", done.body);
    }
}

/// On every listener, also one that a page reaches by any name.
#[test]
fn no_page_of_another_site_loads_and_unloads() {
    let folder = Setup::new().scenario("m", "tokens = ['x']\n");
    let socket = folder.folder().join("http.sock");
    let daemon = folder
        .settings(&format!("http.unix-socket = '{}'", socket.display()))
        .settings("http.cors-origins = ['https://ui.lan']")
        .start();
    let door = &doors(&daemon, 2)[1];
    let body = r#"{"model":"m","keep_alive":0}"#;
    for origin in ["http://evil.example", "null"] {
        let headers = format!("origin: {origin}\r\n");
        let refused = door.ask("POST", "/api/generate", &headers, body);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "host_not_allowed"),
            "{origin}"
        );
    }
    for headers in [
        "",
        "origin: https://ui.lan\r\n",
        "origin: http://localhost\r\n",
    ] {
        let done = door.ask("POST", "/api/generate", headers, body);
        assert_eq!(done.status, 200, "{headers}: {}", done.body);
    }
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let daemon = Setup::new().scenario("m", "no-such-key = 1\n").start();
    let refused = request(
        daemon.address,
        "POST",
        "/api/chat",
        Some(&json!({"model": "m"})),
    );
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (503, &"model_unavailable".into())
    );
}
