//! Administrators manage keys and requests over HTTP, and see what the daemon does: with real keys, workers and log.

use std::collections::BTreeSet;

use crate::daemon_support::{
    Answer, Daemon, EventStream, Setup, begin, chat, eventually, find_model, keys, request,
};
use crate::doors::{Door, bearer, doors, setup};
use serde_json::{Value, json};

/// What ends it is the administrator.
const ENDLESS: &str = "repeat = { token = \"w \", times = 2000000000 }\ntoken-delay-us = 20000\n\
    max-context-limit = 2000000000\n";
const WIDE: &str = "template = \"chatml\"\ncontext-length = 1999999968\n";
const KEYS: &str = "/v1/admin/keys";

fn ask(door: &Door, (method, path): (&str, &str), key: Option<&str>, body: &Value) -> Value {
    let text = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = door.ask(method, path, &bearer(key), &text);
    let mut json = answer.json();
    json["status"] = answer.status.into();
    json
}

#[test]
fn a_key_that_is_made_works_at_once_and_a_revoked_one_is_refused_at_once() {
    let setup = setup();
    let admin = keys(setup.folder(), "add admin --role admin");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    let admin = Some(admin.as_str());
    for round in 0..5 {
        let name = format!("made-{round}");
        let wanted = json!({"name": name, "models": ["own"], "weight": 3, "tenant": "guests"});
        let made = door.ask("POST", KEYS, &bearer(admin), &wanted.to_string());
        assert_eq!(made.status, 201, "{}", made.body);
        let head = made.head.to_lowercase();
        assert!(head.contains("cache-control: no-store"), "{head}");
        let made = made.json();
        let secret = made["secret"].as_str().expect("a key").to_owned();
        assert_eq!(
            (&made["in_force"], &made["auth"]),
            (&json!(true), &json!("keys"))
        );
        // No look of the follower's own is waited for.
        assert_eq!(door.get("/v1/models", Some(&secret)).status, 200);
        assert_eq!(door.get("/v1/models/other", Some(&secret)).status, 403);

        let listed = door.get(KEYS, admin);
        let list = listed.json();
        let found = list["keys"].as_array().expect("keys").iter();
        let found: Vec<&Value> = found.filter(|key| key["name"] == *name).collect();
        assert_eq!(found, [&made["key"]]);
        assert_eq!(found[0]["role"], "user");
        assert_eq!(
            (&found[0]["weight"], &found[0]["tenant"]),
            (&json!(3), &json!("guests"))
        );
        let digits = secret.trim_start_matches("rkllmd-");
        let file = std::fs::read_to_string(daemon.folder().join("keys.toml")).unwrap();
        let digest = file
            .lines()
            .filter_map(|line| line.strip_prefix("sha256 = \""));
        for hidden in digest.map(|it| it.trim_end_matches('"')).chain([digits]) {
            assert!(!listed.body.contains(hidden), "{}", listed.body);
        }

        let again = ask(door, ("POST", KEYS), admin, &wanted);
        assert_eq!(
            (&again["status"], &again["error"]["code"]),
            (&json!(409), &json!("key_name_taken"))
        );
        let path = format!("{KEYS}/{name}");
        let revoked = ask(door, ("DELETE", &path), admin, &Value::Null);
        assert_eq!(
            (&revoked["status"], &revoked["in_force"]),
            (&json!(200), &json!(true))
        );
        assert_eq!(door.get("/v1/models", Some(&secret)).status, 401);
        let gone = ask(door, ("DELETE", &path), admin, &Value::Null);
        assert_eq!(
            (&gone["status"], &gone["error"]["code"]),
            (&json!(404), &json!("key_not_found"))
        );
        for did in ["administrator added a key", "administrator revoked a key"] {
            let line = daemon.log.wait_for(&format!("{did} "));
            assert!(
                line.contains("key=\"admin\"") && line.contains("client=127.0.0.1"),
                "{line}"
            );
        }
        let log = daemon.log.lines().join("\n");
        assert!(!log.contains(digits), "a key in the log");
        let told = door.get("/v1/admin/logs?limit=10000", admin).body;
        assert!(told.contains(&format!("\"what\":\"{name}\"")) && !told.contains(digits));
    }
}

#[test]
fn the_last_key_of_an_admin_stays() {
    let setup = setup();
    let admin = keys(setup.folder(), "add admin --role admin");
    keys(setup.folder(), "add user");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    let admin = Some(admin.as_str());
    let revoke = |key: Option<&str>, name: &str| {
        let answer = ask(
            door,
            ("DELETE", &format!("{KEYS}/{name}")),
            key,
            &Value::Null,
        );
        let code = answer["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (answer["status"].as_u64().unwrap(), code)
    };
    let is_last = || (409, "last_admin_key".to_owned());
    assert_eq!(revoke(admin, "admin"), is_last());
    let body = json!({"name": "next", "role": "admin"});
    let next = ask(door, ("POST", KEYS), admin, &body)["secret"].take();
    let next = next.as_str();
    assert_eq!(revoke(next, "admin").0, 200);
    assert_eq!(door.get("/metrics", admin).status, 401);
    assert_eq!(revoke(next, "next"), is_last());
    assert_eq!(revoke(next, "user").0, 200);
}

#[test]
fn what_is_wrong_with_a_key_is_told_and_nothing_is_made() {
    let setup = setup();
    let admin = keys(setup.folder(), "add admin --role admin");
    let bound = keys(setup.folder(), "add bound --role admin --model own");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    for (body, status, code) in [
        (json!({}), 400, "missing_required_parameter"),
        (json!({"name": ""}), 400, "invalid_value"),
        (json!({"name": "a b"}), 400, "invalid_value"),
        (json!({"name": 7}), 400, "invalid_type"),
        (json!({"name": "a", "role": "root"}), 400, "invalid_value"),
        (json!({"name": "a", "weight": 0}), 400, "invalid_value"),
        (json!({"name": "a", "weight": 101}), 400, "invalid_value"),
        (json!({"name": "a", "models": []}), 400, "invalid_value"),
        (json!({"name": "a", "tenant": "-"}), 400, "invalid_value"),
        (
            json!({"name": "a", "wieght": 2}),
            400,
            "unsupported_parameter",
        ),
        (json!({"name": "admin"}), 409, "key_name_taken"),
    ] {
        let answer = ask(door, ("POST", KEYS), Some(&admin), &body);
        assert_eq!(answer["status"], status, "{body}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{body}: {answer}");
    }
    // An admin of one model makes no key for others.
    for body in [
        json!({"name": "a"}),
        json!({"name": "a", "models": ["own", "other"]}),
    ] {
        let answer = ask(door, ("POST", KEYS), Some(&bound), &body);
        assert_eq!(answer["status"], 403, "{body}: {answer}");
        assert_eq!(answer["error"]["code"], "model_not_allowed", "{body}");
    }
    let listed = ask(door, ("GET", KEYS), Some(&admin), &Value::Null);
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(2));
    let body = json!({"name": "a", "models": ["own"]});
    assert_eq!(
        ask(door, ("POST", KEYS), Some(&bound), &body)["status"],
        201
    );
}

fn endless() -> Daemon {
    Setup::new()
        .scenario("m", ENDLESS)
        .model_file("m", "model.toml", WIDE)
        .start()
}

fn listed(daemon: &Daemon) -> Vec<Value> {
    let list = daemon.get("/v1/admin/requests").json();
    list["requests"].as_array().expect("requests").clone()
}

fn abort(daemon: &Daemon, id: &str) -> Answer {
    let path = format!("/v1/admin/requests/{id}");
    request(daemon.address, "DELETE", &path, None)
}

fn waiting(daemon: &Daemon) -> u64 {
    let ready = daemon.get("/v1/ready").json();
    let waiting = &find_model(&ready, "m")["queue"]["waiting"];
    waiting.as_u64().expect("a number")
}

#[test]
fn aborting_a_running_and_a_waiting_request_frees_their_places() {
    let daemon = endless();
    let path = "/v1/chat/completions";
    let mut running = daemon.stream(path, &chat("m", "x", json!({"stream": true})));
    assert_eq!(running.next_content().as_deref(), Some("w "));
    let worker = daemon.worker_pid();
    let address = daemon.address;
    let queued: Vec<_> = (1..=2)
        .map(|count| {
            let queued = std::thread::spawn(move || {
                request(address, "POST", path, Some(&chat("m", "x", json!({}))))
            });
            eventually("one more waiting", || {
                (waiting(&daemon) == count).then_some(())
            });
            queued
        })
        .collect();
    let requests = eventually("all are listed", || {
        Some(listed(&daemon))
            .filter(|it| it.iter().filter(|it| it["state"] == "waiting").count() == 2)
    });
    let states: Vec<_> = requests
        .iter()
        .map(|it| (it["state"].as_str().unwrap(), it["position"].as_u64()))
        .collect();
    assert_eq!(
        states,
        [
            ("running", None),
            ("waiting", Some(0)),
            ("waiting", Some(1))
        ]
    );
    for (queued, listed) in queued.into_iter().zip(&requests[1..]).rev() {
        let answer = abort(&daemon, listed["id"].as_str().unwrap());
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = queued.join().expect("no panic");
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert_eq!(answer.error_code(), "aborted_by_administrator");
    }
    assert_eq!(waiting(&daemon), 0);
    assert_eq!(daemon.phase("m"), "running", "the other one goes on");
    let id = requests[0]["id"].as_str().unwrap();
    assert_eq!(abort(&daemon, id).status, 200);
    let last = std::iter::from_fn(|| running.next_data()).last();
    let last: Value = serde_json::from_str(&last.expect("an end")).expect("JSON");
    assert_eq!(last["error"]["code"], "aborted_by_administrator");
    daemon.wait_for_phase("m", "ready");
    assert_eq!(daemon.worker_pid(), worker, "the same worker goes on");
    let next = daemon.post(path, &chat("m", "x", json!({"max_tokens": 2})));
    assert_eq!(next.content(), "w w ");
    let line = daemon.log.wait_for("administrator aborted a request");
    assert!(line.contains("what="), "{line}");
    assert_eq!(abort(&daemon, id).status, 404);
}

#[test]
fn ollamas_lines_end_with_the_error() {
    let daemon = endless();
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    let stream = std::net::TcpStream::connect(daemon.address).expect("a connection");
    let begun = begin(stream, "POST", "/api/chat", Some(&body)).expect("a header");
    assert_eq!(begun.status, 200);
    let requests = eventually("it runs", || {
        Some(listed(&daemon)).filter(|it| it.iter().any(|it| it["state"] == "running"))
    });
    assert_eq!(
        abort(&daemon, requests[0]["id"].as_str().unwrap()).status,
        200
    );
    let answer = begun.into_answer().expect("an end");
    let last: Value = serde_json::from_str(answer.body.lines().last().unwrap()).expect("JSON");
    assert_eq!(last["code"], "aborted_by_administrator", "{last}");
    daemon.wait_for_phase("m", "ready");
}

#[test]
fn what_happens_is_told_as_it_happens() {
    // Else the first key would end what came without one.
    let daemon = Setup::new()
        .settings("http.auth = 'none'")
        .scenario("m", "tokens = ['Hello']\n")
        .start();
    let mut events = EventStream::of_get(daemon.address, "/v1/admin/events");
    let snapshot: Value = serde_json::from_str(&events.next_data().unwrap()).unwrap();
    let model = json!({"model": "m", "state": "unloaded", "pid": null, "waiting": 0});
    assert_eq!(snapshot["models"], json!([model]));
    assert_eq!(snapshot["keys"], Value::Null);
    let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.status, 200);
    let mut states = Vec::new();
    let mut told = BTreeSet::new();
    // Until the model rests again and the request has ended.
    while !(states.last().is_some_and(|state| state == "ready") && told.contains("status")) {
        let event: Value = serde_json::from_str(&events.next_data().unwrap()).unwrap();
        if let Some(state) = event["state"].as_str() {
            states.push(state.to_owned());
        }
        told.extend(event.as_object().unwrap().keys().cloned());
    }
    for state in ["spawning", "loading", "ready", "running"] {
        assert!(states.iter().any(|it| it == state), "{state}: {states:?}");
    }
    for field in ["pid", "waiting", "request", "path", "status"] {
        assert!(told.contains(field), "{field}: {told:?}");
    }
    keys(daemon.folder(), "add one");
    while let Some(data) = events.next_data() {
        let event: Value = serde_json::from_str(&data).unwrap();
        if event["keys"] == 1 {
            return;
        }
        assert_eq!(event["keys"], Value::Null);
    }
    panic!("the stream has ended and the new key was not told");
}

#[test]
fn the_doctor_examines_on_request() {
    let daemon = Setup::new().start();
    let address = daemon.address;
    let asking: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || request(address, "GET", "/v1/doctor", None)))
        .collect();
    for asked in asking {
        let answer = asked.join().expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let report = answer.json();
        let checks = report["checks"].as_array().expect("checks").iter();
        let ids: Vec<_> = checks.map(|check| check["id"].as_str().unwrap()).collect();
        assert_eq!(ids, rkllmd::doctor::ids().collect::<Vec<_>>());
    }
}
