//! Models come from a hub while the daemon serves: by a process of its own, shown as it goes, and served without
//! a reload. What fails says so by status before anything has come, and in its last line after.

use std::fs;
use std::net::TcpStream;
use std::thread;

use crate::daemon_support::{
    Answer, Daemon, Setup, all_children, chat, demo_model, eventually, is_gone, keys,
    python_session, request, send,
};
use crate::doors::{Door, bearer};
use crate::hub_support::{Hub, Reply, Repo, random_bytes};
use serde_json::{Value, json};

const OLLAMA: &str = "ollama==0.6.3";
const TOKEN: &str = "hf_secret0123456789";
pub const MODEL: &str = "model-Q4_1.gguf";
pub const SIZE: usize = 300_000;

pub fn setup(hub: &Hub) -> Setup {
    Setup::new()
        .cpu_runtime()
        .environment("RKLLM_CPU_SEED", "7")
        .settings(&format!("hub.endpoint = {:?}", hub.endpoint()))
        .settings("hub.retry-wait = \"0s\"\nhub.keep-free-bytes = 0")
        // However long a process takes to begin here.
        .settings("http.header-delay = \"30s\"")
}

/// A model that no library can load, and which is pulled all the same.
pub fn repo() -> Repo {
    Repo::new(&[(MODEL, &random_bytes(1, SIZE))])
}

/// One that is held in the middle the first time that it comes.
pub fn holding_hub() -> Hub {
    let files = std::sync::atomic::AtomicUsize::new(0);
    Hub::start(move |request, _| {
        let reply = repo().answer(request);
        let is_first =
            request.is_for_file() && files.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        Reply {
            hold_at: is_first.then_some(100_000),
            ..reply
        }
    })
}

fn lines(answer: &Answer) -> Vec<Value> {
    let lines = answer.body.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// Waits until so much of a file is on the disk.
pub fn wait_for_part(daemon: &Daemon, bytes: u64) {
    let folder = daemon.folder().join("models/.pulls/owner/name");
    eventually("a part of the file", || {
        let parts = fs::read_dir(&folder).ok()?.flatten();
        let mut sizes = parts.filter_map(|part| Some(part.metadata().ok()?.len()));
        sizes.any(|size| size == bytes).then_some(())
    });
}

/// The processes that transfer models.
pub fn transfers(daemon: &Daemon) -> Vec<u32> {
    let all = all_children(daemon.pid()).into_iter();
    all.filter(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "rkllmd-transfer")
    })
    .collect()
}

#[test]
fn a_pulled_model_answers_without_a_reload() {
    let content = fs::read(demo_model()).expect("the demo model");
    let size = content.len();
    let hub = Hub::of(Repo::new(&[
        (MODEL, &content),
        ("generation_config.json", b"{}"),
    ]));
    let daemon = setup(&hub).start();
    // As Open WebUI always asks; the hub's certificate counts all the same.
    let asked = json!({"model": "hf.co/owner/name:Q4_1", "insecure": true});
    let answer = daemon.post("/api/pull", &asked);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(answer.header("x-rkllmd-not-applied"), Some("insecure"));
    let lines = lines(&answer);
    let status = |line: &Value| line["status"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        lines.first().map(status).as_deref(),
        Some("pulling manifest")
    );
    assert!(
        !lines.iter().any(|line| status(line).starts_with("note")),
        "{lines:?}"
    );
    let last: Vec<String> = lines.iter().rev().take(3).map(status).collect();
    assert_eq!(
        last,
        ["success", "writing manifest", "verifying sha256 digest"]
    );
    let of_model = lines.iter().filter(|line| line["total"] == size);
    let completed: Vec<u64> = of_model
        .map(|line| line["completed"].as_u64().expect("a number"))
        .collect();
    assert!(
        completed.is_sorted() && completed.last() == Some(&(size as u64)),
        "{completed:?}"
    );
    // By its id, and by the name that it was asked by.
    for name in ["owner/name", "hf.co/owner/name:Q4_1"] {
        let answer = daemon.post(
            "/v1/chat/completions",
            &chat(name, "Hello!", json!({"max_tokens": 4})),
        );
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    }
    let again = daemon.post(
        "/api/pull",
        &json!({"model": "owner/name", "stream": false}),
    );
    assert_eq!(
        (again.status, again.json()),
        (200, json!({"status": "success"}))
    );
    assert_eq!(again.header("x-rkllmd-not-applied"), None);
    eventually("the end of each transfer with its pull", || {
        transfers(&daemon).is_empty().then_some(())
    });
}

#[test]
fn the_official_client_pulls() {
    let content = fs::read(demo_model()).expect("the demo model");
    let hub = Hub::of(Repo::new(&[(MODEL, &content)]));
    let daemon = setup(&hub).start();
    let host = format!("http://{}", daemon.address);
    let size = content.len().to_string();
    let arguments = [&*host, "owner/name:Q4_1", "owner/absent", &*size];
    python_session(
        "ollama_clients/pull.py",
        OLLAMA,
        &arguments,
        "whole session ok",
    );
}

#[test]
fn what_fails_is_told_by_status_and_later_in_the_last_line() {
    let hub = Hub::start(|request, _| match request.path.contains("gated") {
        true => Reply::status(403).header("x-error-code", "GatedRepo"),
        false => {
            let mut reply = repo().answer(request);
            if request.is_for_file() {
                reply.body[7] ^= 1;
            }
            reply
        }
    });
    let daemon = setup(&hub).start();
    for (asked, status, code) in [
        (json!({"model": "owner/absent"}), 404, "not_on_hub"),
        (
            json!({"model": "owner/absent", "stream": false}),
            404,
            "not_on_hub",
        ),
        (json!({"model": "owner/gated"}), 502, "hub_refused"),
        (json!({"model": "owner/name:Q8_0"}), 400, "no_suitable_file"),
        (
            json!({"model": "owner/name", "stream": false}),
            502,
            "hub_failed",
        ),
        (json!({"model": "../name"}), 400, "invalid_value"),
    ] {
        let answer = daemon.post("/api/pull", &asked);
        let error = answer.json();
        assert_eq!(
            (answer.status, error["code"].as_str()),
            (status, Some(code)),
            "{asked}: {error}"
        );
        assert!(error["error"].is_string(), "{error}");
    }
    let answer = daemon.post("/api/pull", &json!({"name": "owner/name"}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines = lines(&answer);
    let last = lines.last().expect("lines");
    assert_eq!(last["code"], "hub_failed", "{last}");
    assert!(lines.iter().all(|line| line["status"] != "success"));
    let listed = daemon.get("/api/tags").json();
    assert_eq!(listed["models"], json!([]));
}

#[test]
fn one_transfer_serves_all_who_want_the_same() {
    let hub = holding_hub();
    let daemon = setup(&hub).settings("hub.stall-timeout = \"3s\"").start();
    let body = json!({"model": "owner/name"});
    thread::scope(|scope| {
        let ask = || request(daemon.address, "POST", "/api/pull", Some(&body));
        let first = scope.spawn(ask);
        hub.wait_for_hold(0);
        let second = scope.spawn(ask);
        assert_eq!(transfers(&daemon).len(), 1);
        for client in [first, second] {
            let answer = client.join().expect("an answer");
            let last = lines(&answer).pop().expect("a line");
            assert_eq!(last["status"], "success", "{}", answer.body);
        }
    });
    let listings = hub
        .seen()
        .iter()
        .filter(|it| it.path.contains("/api/models/"))
        .count();
    assert!(
        listings <= 2,
        "one for each pull, and one for each client that came after it"
    );
    assert_eq!(hub.sent(), SIZE as u64, "every byte once");
}

#[test]
fn a_pull_ends_with_its_last_client_and_goes_on_with_the_next() {
    let hub = holding_hub();
    let daemon = setup(&hub).start();
    let body = json!({"model": "owner/name"});
    let mut client = TcpStream::connect(daemon.address).expect("a connection");
    send(&mut client, "POST", "/api/pull", Some(&body)).expect("a request");
    hub.wait_for_hold(0);
    let [transfer] = transfers(&daemon)[..] else {
        panic!("one process transfers it");
    };
    wait_for_part(&daemon, 100_000);
    drop(client);
    eventually("the end of the transfer", || {
        is_gone(transfer).then_some(())
    });
    assert!(!daemon.folder().join("models/owner").exists());
    let answer = daemon.post("/api/pull", &body);
    let last = lines(&answer).pop().expect("a line");
    assert_eq!(last["status"], "success", "{}", answer.body);
    assert_eq!(hub.sent(), SIZE as u64, "it went on where it was");
}

#[test]
fn the_token_is_the_hubs_alone() {
    let hub = holding_hub();
    let setup = setup(&hub);
    let file = setup.folder().join("token");
    fs::write(&file, TOKEN).expect("a file");
    let path = file.display().to_string();
    let daemon = setup
        .settings(&format!("hub.token-file = {path:?}"))
        .start();
    let key = keys(daemon.folder(), "add admin --role admin");
    let bound = keys(daemon.folder(), "add bound --role admin --model own");
    eventually("keys being asked for", || {
        (daemon.get("/api/tags").status == 401).then_some(())
    });
    let body = json!({"model": "owner/name"});
    let refused = daemon.post("/api/pull", &body);
    assert_eq!(refused.status, 401, "{}", refused.body);
    // Of one model, who may install no other.
    let door = Door::Tcp(daemon.address);
    let answer = eventually("the key being known", || {
        let answer = door.ask(
            "POST",
            "/api/pull",
            &bearer(Some(&bound)),
            &body.to_string(),
        );
        (answer.status != 401).then_some(answer)
    });
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert_eq!(answer.json()["code"], "model_not_allowed");
    assert!(hub.seen().is_empty());
    let mut client = TcpStream::connect(daemon.address).expect("a connection");
    let text = body.to_string();
    let head = format!(
        "POST /api/pull HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    std::io::Write::write_all(&mut client, head.as_bytes()).expect("a request");
    hub.wait_for_hold(0);
    let [transfer] = transfers(&daemon)[..] else {
        panic!("one process transfers it");
    };
    for file in ["cmdline", "environ"] {
        let shown = fs::read(format!("/proc/{transfer}/{file}")).expect("of a process of ours");
        let shown = String::from_utf8_lossy(&shown);
        assert!(
            !shown.contains(TOKEN) && !shown.contains(&key),
            "{file}: {shown}"
        );
    }
    let bearer = format!("Bearer {TOKEN}");
    let is_shown =
        |it: &crate::hub_support::Request| it.headers.get("authorization") == Some(&bearer);
    assert!(
        hub.seen().iter().all(is_shown),
        "the daemon's own keys are not a hub's"
    );
    let log = daemon.log.lines().join("\n");
    assert!(!log.contains(TOKEN) && !log.contains(&key), "{log}");
}
