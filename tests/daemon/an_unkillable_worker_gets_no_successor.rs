//! A worker that outlives SIGKILL hangs in the NPU's driver, and a successor would hang with it. So
//! there is none: the operator is told to reboot and clients get a typed error at once. Should the
//! process end after all, everything goes on.

use crate::cgroup_support::Freezer;
use crate::daemon_support::{Daemon, EventStream, Setup, chat, children, eventually, find_model};
use rustix::process::Signal;
use serde_json::{Value, json};

const SETTINGS: &str = "models.preload = [\"m\"]\nmodels.max-loaded = 2\n\
    deadlines.inter-token = \"300ms\"\ndeadlines.control-call = \"300ms\"\n\
    deadlines.abort-to-finish = \"300ms\"\ndeadlines.kill = \"1s\"";
/// Long for the test that freezes it, short for one that does not.
const SLOW: &str = "token-delay-us = 10000\nrepeat = { token = \"w \", times = 200 }\n";
const OTHER: &str = "tokens = [\"fine\"]\n";

/// A daemon in the middle of an answer.
fn start() -> (Daemon, EventStream, u32) {
    let daemon = Setup::new()
        .settings(SETTINGS)
        .scenario("m", SLOW)
        .scenario("other", OTHER)
        .start();
    daemon.wait_for_phase("m", "ready");
    let mut stream = daemon.stream(
        "/v1/chat/completions",
        &chat("m", "x", json!({"stream": true})),
    );
    assert_eq!(stream.next_content().as_deref(), Some("w "));
    let worker = daemon.worker_pid();
    (daemon, stream, worker)
}

/// Waits until the daemon has given up a worker, and sees that it has no other one meanwhile.
fn wait_until_unkillable(daemon: &Daemon, worker: u32) -> Value {
    eventually("m being unkillable", || {
        assert_eq!(children(daemon.pid()), [worker], "no successor");
        let ready = daemon.get("/v1/ready");
        let unkillable = find_model(&ready.json(), "m")["phase"] == "unkillable";
        unkillable.then(|| {
            assert_eq!(ready.status, 503, "{}", ready.body);
            ready.json()
        })
    })
}

fn names_the_cure(text: &str, worker: u32) -> bool {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    text.contains("reboot") && numbers.any(|number| number == worker.to_string())
}

#[test]
fn nothing_is_started_on_the_npu_until_it_is_gone() {
    let (daemon, stream, worker) = start();
    // Dropped before the daemon, whose end waits for its worker.
    let freezer = Freezer::new();
    freezer.freeze(worker);

    let ready = wait_until_unkillable(&daemon, worker);
    let entry = find_model(&ready, "m");
    let reason = entry["reason"].as_str().unwrap_or_default();
    assert!(names_the_cure(reason, worker), "{entry}");
    assert_eq!(entry["ready"], false, "{entry}");
    assert_eq!(find_model(&ready, "other")["ready"], false, "{ready}");

    // The answer ends, with an error that says so.
    let events = stream.collect();
    let ended_typed = events.iter().any(|(_, data)| {
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        data["error"]["code"].is_string()
    });
    assert!(ended_typed, "{events:?}");

    for model in ["m", "other"] {
        let answer = daemon.post("/v1/chat/completions", &chat(model, "x", json!({})));
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(answer.error_code(), "model_unavailable");
        assert!(names_the_cure(&answer.body, worker), "{}", answer.body);
    }
    assert_eq!(children(daemon.pid()), [worker], "no successor");

    freezer.thaw();
    eventually("the end of the worker", || {
        (!children(daemon.pid()).contains(&worker)).then_some(())
    });
    eventually("another phase", || {
        (daemon.phase("m") != "unkillable").then_some(())
    });
    for (model, text) in [("other", "fine".to_owned()), ("m", "w ".repeat(200))] {
        let answer = daemon.post("/v1/chat/completions", &chat(model, "x", json!({})));
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.content(), text);
    }
}

#[test]
fn the_daemon_ends_without_it() {
    let (daemon, stream, worker) = start();
    let freezer = Freezer::new();
    freezer.freeze(worker);
    wait_until_unkillable(&daemon, worker);
    drop(stream);

    daemon.signal(Signal::TERM);
    let status = daemon.wait();
    assert!(status.success(), "{status}");
    freezer.thaw();
    // The process that inherited it may take a while to wait for it.
    eventually("the end of the worker", || {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
            .then_some(())
    });
}

/// The end of such a worker is told twice: by the task that waits for the process, and by the load that it
/// was brought up by, which must not be taken for the next one.
#[test]
fn one_that_was_loading_gets_one_successor_once_it_is_gone() {
    let daemon = Setup::new()
        .settings(SETTINGS)
        .settings("deadlines.heartbeat = \"1s\"")
        .scenario("m", "tokens = [\"fine\"]\nload-delay-ms = 3000\n")
        .start();
    daemon.wait_for_phase("m", "loading");
    let worker = daemon.worker_pid();
    let freezer = Freezer::new();
    freezer.freeze(worker);
    wait_until_unkillable(&daemon, worker);

    freezer.thaw();
    let successor = eventually("its successor being ready", || {
        let phase = daemon.phase("m");
        assert_ne!(phase, "failed", "the successor has not failed");
        let mut others = children(daemon.pid());
        others.retain(|&other| other != worker);
        assert!(others.len() <= 1, "two workers of one model: {others:?}");
        (phase == "ready").then(|| others[0])
    });
    let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.content(), "fine", "{}", answer.body);
    assert_eq!(children(daemon.pid()), [successor]);
    let metrics = daemon.get("/metrics").body;
    let failures = "rkllmd_model_load_failures_total{model=\"m\"} 1";
    assert!(metrics.lines().any(|line| line == failures), "{metrics}");
}
