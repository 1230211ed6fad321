//! Models come and go by requests of Ollama's clients that ask for nothing else.

use std::net::TcpStream;

use crate::daemon_support::{Daemon, Setup, children, eventually, keys, request, send};
use crate::doors::{Door, bearer, doors};
use serde_json::{Value, json};

fn empty(fields: Value) -> Value {
    let mut body = json!({"model": "m", "prompt": ""});
    let fields = fields.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

#[test]
fn a_model_in_use_is_unloaded_after_it() {
    let scenario = "tokens = [\"one \", \"two \"]\ntoken-delay-us = 400000\neos-token-id = 2\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let mut answer = daemon.stream(
        "/v1/chat/completions",
        &crate::daemon_support::chat("m", "hi", json!({"stream": true})),
    );
    assert_eq!(answer.next_content().as_deref(), Some("one "));
    let worker = daemon.worker_pid();
    let body = empty(json!({"keep_alive": 0}));
    let unloaded = std::thread::scope(|scope| {
        let unloaded = scope.spawn(|| daemon.post("/api/generate", &body));
        assert_eq!(answer.next_content().as_deref(), Some("two "));
        answer.collect();
        unloaded.join().expect("an answer")
    });
    assert_eq!(
        unloaded.json()["done_reason"],
        "unload",
        "{}",
        unloaded.body
    );
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
    assert_eq!(loaded.header("x-rkllmd-not-applied"), None);
    daemon.wait_for_phase("m", "ready");
}

/// Waits until the model is to be unloaded once it is idle.
fn is_to_go(daemon: &Daemon) {
    eventually("its wish", || {
        let running = daemon.get("/api/ps").json();
        let expires = running["models"][0]["expires_at"].as_str()?;
        let expires: jiff::Timestamp = expires.parse().expect("a time");
        (expires <= jiff::Timestamp::now()).then_some(())
    });
}

#[test]
fn what_is_waited_for_is_unloaded_after_it_whoever_asked() {
    let scenario = "tokens = [\"one \", \"two \"]\ntoken-delay-us = 300000\neos-token-id = 2\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let asked = crate::daemon_support::chat("m", "hi", json!({"stream": true}));
    let mut first = daemon.stream("/v1/chat/completions", &asked);
    assert_eq!(first.next_content().as_deref(), Some("one "));
    let worker = daemon.worker_pid();
    let body = empty(json!({"keep_alive": 0}));
    let mut client = TcpStream::connect(daemon.address).expect("a connection");
    send(&mut client, "POST", "/api/generate", Some(&body)).expect("a request");
    is_to_go(&daemon);
    drop(client);
    // Who came later is answered all the same, by the same worker.
    let second = daemon.stream("/v1/chat/completions", &asked);
    let last = second.collect();
    assert_eq!(last.last().map(|(_, data)| data.as_str()), Some("[DONE]"));
    eventually("the worker's end", || {
        (!children(daemon.pid()).contains(&worker)).then_some(())
    });
    daemon.wait_for_phase("m", "unloaded");
}

#[test]
fn a_model_that_stays_is_written_down_as_nothing_that_was_changed() {
    let scenario = "repeat = { token = \"w \", times = 2000000000 }\ntoken-delay-us = 20000\n\
        max-context-limit = 2000000000\n";
    let model = "template = \"chatml\"\ncontext-length = 1999999968\n";
    let daemon = Setup::new()
        .scenario("m", scenario)
        .model_file("m", "model.toml", model)
        .start();
    let asked = crate::daemon_support::chat("m", "hi", json!({"stream": true}));
    let mut running = daemon.stream("/v1/chat/completions", &asked);
    assert_eq!(running.next_content().as_deref(), Some("w "));
    let unload = empty(json!({"keep_alive": 0}));
    let stays = std::thread::scope(|scope| {
        let stays = scope.spawn(|| daemon.post("/api/generate", &unload));
        is_to_go(&daemon);
        // Which overtakes that.
        let kept = daemon.post("/api/generate", &empty(json!({"keep_alive": "5m"})));
        assert_eq!(kept.json()["done_reason"], "load", "{}", kept.body);
        stays.join().expect("an answer")
    });
    assert_eq!(stays.json()["done_reason"], "load", "{}", stays.body);
    assert_eq!(stays.header("x-rkllmd-not-applied"), Some("keep_alive"));
    let lines = eventually("both ends", || {
        let lines = daemon.log.lines();
        let ended = lines
            .iter()
            .filter(|line| line.contains("path=/api/generate"));
        (ended.count() == 2).then_some(lines)
    });
    let changes = lines.iter().filter(|line| line.contains("administrator "));
    let changes: Vec<&String> = changes.collect();
    assert!(
        changes.len() == 1 && changes[0].contains("administrator kept a model loaded"),
        "{changes:?}"
    );
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
    // An admin has loaded it and keeps it.
    let running = door.get("/api/ps", Some(&admin)).json();
    assert_eq!(running["models"][0]["model"], "m:latest", "{running}");
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
        (
            "/api/create",
            r#"{"model":"kind","from":"m","system":"Be kind."}"#,
        ),
        ("/api/copy", r#"{"source":"m","destination":"other"}"#),
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
