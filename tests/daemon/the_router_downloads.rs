//! Models come and go as clients of llama.cpp's router have it: a download goes on without its client, `/models/sse`
//! tells how it goes and how it ends, and what has come can be removed.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::daemon_support::{
    Answer, Daemon, EventStream, Setup, all_children, eventually, keys, request,
};
use crate::doors::{Door, bearer};
use crate::hub_support::{Hub, Reply, Repo, listed_gguf};
use serde_json::{Value, json};

const MODEL: &str = "model-Q4_1.gguf";
const SIZE: usize = 300_000;

fn start(hub: &Hub) -> Daemon {
    Setup::new()
        .scenario("other", "tokens = [\"fine\"]\n")
        .settings(&format!("hub.endpoint = {:?}", hub.endpoint()))
        .settings("hub.retry-wait = \"0s\"\nhub.keep-free-bytes = 0\nhub.max-pulls = 1")
        .start()
}

fn repo() -> Repo {
    Repo::new(&[(MODEL, &listed_gguf(SIZE))])
}

fn follow(daemon: &Daemon) -> EventStream {
    let mut events = EventStream::of_get(daemon.address, "/models/sse");
    let first = next(&mut events);
    assert_eq!(first["event"], "model_status", "{first}");
    events
}

fn next(events: &mut EventStream) -> Value {
    let data = events.next_data().expect("the stream goes on");
    serde_json::from_str(&data).expect("JSON")
}

/// The next event of what is downloaded.
fn next_of_download(events: &mut EventStream) -> Value {
    loop {
        let event = next(events);
        let name = event["event"].as_str().expect("a text");
        if name.starts_with("download_") {
            return event;
        }
    }
}

fn ids(daemon: &Daemon) -> Vec<String> {
    let json = daemon.get("/models").json();
    let models = json["data"].as_array().expect("models").iter();
    models
        .map(|model| model["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn download(daemon: &Daemon) -> Answer {
    daemon.post("/models", &json!({"model": "owner/name"}))
}

#[test]
fn a_download_is_told_and_what_has_come_can_go() {
    let hub = Hub::of(repo());
    let daemon = start(&hub);
    let mut events = follow(&daemon);
    let answer = download(&daemon);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"success": true}))
    );
    let mut done = Vec::new();
    loop {
        let event = next_of_download(&mut events);
        assert_eq!(event["model"], "owner/name");
        match event["event"].as_str() {
            Some("download_progress") => {
                if let Some(of_model) = event["data"].get(MODEL) {
                    assert_eq!(of_model["total"], SIZE);
                    done.push(of_model["done"].as_u64().expect("a number"));
                }
            }
            Some("download_finished") => break,
            _ => panic!("{event}"),
        }
    }
    assert!(
        done.is_sorted() && done.last() == Some(&(SIZE as u64)),
        "{done:?}"
    );
    assert_eq!(ids(&daemon), ["other", "owner/name"]);
    let remove = |query: &str| request(daemon.address, "DELETE", &format!("/models{query}"), None);
    // What no pull has brought is its administrator's.
    assert_eq!(remove("?model=other").status, 400);
    assert_eq!(remove("").status, 400);
    let removed = remove("?model=owner/name");
    assert_eq!(
        (removed.status, removed.json()),
        (200, json!({"success": true}))
    );
    assert_eq!(ids(&daemon), ["other"]);
    assert!(!daemon.folder().join("models/owner").exists());
    assert_eq!(remove("?model=owner/name").status, 404);
}

#[test]
fn a_download_that_fails_says_why() {
    let hub = Hub::start(|_, _| Reply::status(404).header("x-error-code", "RepoNotFound"));
    let daemon = start(&hub);
    let mut events = follow(&daemon);
    assert_eq!(download(&daemon).status, 200);
    let event = next_of_download(&mut events);
    assert_eq!(event["event"], "download_failed", "{event}");
    let error = event["data"]["error"].as_str().expect("a text");
    assert!(error.contains("owner/name"), "{error}");
    // What is no name of a hub's is refused at once.
    assert_eq!(
        daemon.post("/models", &json!({"model": "nothing"})).status,
        400
    );
    assert_eq!(daemon.post("/models", &json!({})).status, 400);
}

fn wait_for_end(daemon: &Daemon) {
    eventually("the transfer's end", || {
        let mut children = all_children(daemon.pid()).into_iter();
        let is_one = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "rkllmd-transfer")
        };
        (!children.any(|pid| is_one(&pid))).then_some(())
    });
}

/// A hub that stops in the middle of the file the first time.
fn holding_hub() -> Hub {
    let files = AtomicUsize::new(0);
    Hub::start(move |request, _| {
        let reply = repo().answer(request);
        let is_first = request.is_for_file() && files.fetch_add(1, Ordering::Relaxed) == 0;
        Reply {
            hold_at: is_first.then_some(100_000),
            ..reply
        }
    })
}

#[test]
fn a_key_of_some_models_keeps_to_them() {
    let hub = holding_hub();
    let daemon = start(&hub);
    let all = keys(daemon.folder(), "add all --role admin");
    let some = keys(daemon.folder(), "add some --role admin --model other");
    let door = Door::Tcp(daemon.address);
    eventually("the keys being known", || {
        let is_known = |key: &str| door.get("/v1/models", Some(key)).status == 200;
        let are_asked_for = daemon.get("/v1/models").status == 401;
        (are_asked_for && is_known(&all) && is_known(&some)).then_some(())
    });
    let ask = |key: &str, method: &str, path: &str| {
        let body = r#"{"model":"owner/name"}"#;
        let answer = door.ask(method, path, &bearer(Some(key)), body);
        let code = match answer.status {
            200 => String::new(),
            _ => answer.code(),
        };
        (answer.status, code)
    };
    let refused = (403, "model_not_allowed".to_owned());
    assert_eq!(ask(&some, "POST", "/models"), refused);
    assert_eq!(ask(&all, "POST", "/models"), (200, String::new()));
    hub.wait_for_hold(0);
    // To a key of other models there is no such download.
    assert_eq!(ask(&some, "POST", "/models/unload").0, 404);
    assert_eq!(ask(&all, "POST", "/models/unload"), (200, String::new()));
    wait_for_end(&daemon);
    assert_eq!(ask(&all, "POST", "/models/unload").0, 404);
    // The next one comes whole.
    assert_eq!(ask(&all, "POST", "/models"), (200, String::new()));
    eventually("the model", || {
        let listed = door.get("/models", Some(&all)).body;
        listed.contains("\"owner/name\"").then_some(())
    });
    let model = "/models?model=owner/name";
    assert_eq!(ask(&some, "DELETE", model), refused);
    assert!(daemon.folder().join("models/owner/name").exists());
    assert_eq!(ask(&all, "DELETE", model), (200, String::new()));
    assert!(!daemon.folder().join("models/owner").exists());
}

#[test]
fn a_download_ends_when_it_is_unloaded() {
    let hub = holding_hub();
    let daemon = start(&hub);
    let mut events = follow(&daemon);
    assert_eq!(download(&daemon).status, 200);
    let folder = daemon.folder().join("models/.pulls/owner/name");
    eventually("a part of the file", || {
        let parts = fs::read_dir(&folder).ok()?.flatten();
        let mut sizes = parts.filter_map(|part| Some(part.metadata().ok()?.len()));
        sizes.any(|size| size == 100_000).then_some(())
    });
    // It has the only place; the same one is the same.
    assert_eq!(download(&daemon).status, 200);
    let other = daemon.post("/models", &json!({"model": "owner/another"}));
    assert_eq!(other.status, 409, "{}", other.body);
    let unload = json!({"model": "owner/name"});
    let ended = daemon.post("/models/unload", &unload);
    assert_eq!(
        (ended.status, ended.json()),
        (200, json!({"success": true}))
    );
    loop {
        let event = next_of_download(&mut events);
        if event["event"] == "download_failed" {
            break;
        }
        assert_eq!(event["event"], "download_progress", "{event}");
    }
    wait_for_end(&daemon);
    assert_eq!(daemon.post("/models/unload", &unload).status, 404);
    // What has come is gone on with.
    assert_eq!(download(&daemon).status, 200);
    loop {
        let event = next_of_download(&mut events);
        if event["event"] == "download_finished" {
            break;
        }
        assert_eq!(event["event"], "download_progress", "{event}");
    }
    assert_eq!(ids(&daemon), ["other", "owner/name"]);
}
