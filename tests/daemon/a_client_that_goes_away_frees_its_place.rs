//! Dropping is cancelling: streaming or not, queued or running, on the fake and the real runtime.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use crate::daemon_support::{Daemon, FAMILIES_RUN, Setup, chat, eventually};
use serde_json::{Value, json};

/// Eight hours at 50 tokens a second: what ends it is the cancellation.
const ENDLESS: &str = "repeat = { token = \"w \", times = 2000000000 }\ntoken-delay-us = 20000\n\
    max-context-limit = 2000000000\n";
const WIDE: &str = "template = \"chatml\"\ncontext-length = 1999999968\n";

fn endless(family: &str) -> Daemon {
    Setup::with_family(family)
        .scenario("m", ENDLESS)
        .model_file("m", "model.toml", WIDE)
        .start()
}

fn waiting(daemon: &Daemon) -> u64 {
    let ready = daemon.get("/v1/ready").json();
    crate::daemon_support::find_model(&ready, "m")["queue"]["waiting"]
        .as_u64()
        .expect("a number")
}

/// Sends a request and returns the open connection without reading the answer.
fn send_only(daemon: &Daemon, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address).expect("a connection");
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body.as_bytes()).expect("sent");
    stream
}

#[test]
fn a_dropped_stream_ends_its_run_and_the_worker_lives() {
    for family in FAMILIES_RUN {
        let daemon = endless(family);
        let body = chat("m", "x", json!({"stream": true}));
        let mut stream = daemon.stream("/v1/chat/completions", &body);
        assert_eq!(stream.next_content().as_deref(), Some("w "), "{family}");
        let worker = daemon.worker_pid();
        drop(stream);
        daemon.wait_for_phase("m", "ready");
        assert_eq!(
            daemon.worker_pid(),
            worker,
            "{family}: the same worker goes on"
        );
        let next = daemon.post(
            "/v1/chat/completions",
            &chat("m", "x", json!({"max_tokens": 2})),
        );
        assert_eq!(next.content(), "w w ", "{family}");
    }
}

#[test]
fn a_client_that_waits_for_a_whole_answer_can_leave_too() {
    let daemon = endless("1_3_1");
    let connection = send_only(&daemon, &chat("m", "x", json!({})));
    daemon.wait_for_phase("m", "running");
    drop(connection);
    daemon.wait_for_phase("m", "ready");
}

#[test]
fn a_queued_client_that_leaves_is_not_served() {
    let daemon = endless("1_3_1");
    let running = send_only(&daemon, &chat("m", "x", json!({})));
    daemon.wait_for_phase("m", "running");
    let queued: Vec<_> = (0..3)
        .map(|_| send_only(&daemon, &chat("m", "x", json!({}))))
        .collect();
    eventually("three waiting", || (waiting(&daemon) == 3).then_some(()));
    drop(queued);
    eventually("an empty queue", || (waiting(&daemon) == 0).then_some(()));
    assert_eq!(daemon.phase("m"), "running");
    drop(running);
    daemon.wait_for_phase("m", "ready");
}

#[test]
fn nothing_is_loaded_for_a_queued_client_that_left() {
    let daemon = Setup::new()
        .settings("models.minimum-residency = \"0s\"")
        .scenario("a", ENDLESS)
        .model_file("a", "model.toml", WIDE)
        .scenario("b", "tokens = [\"b\"]\n")
        .start();
    let mut running = daemon.stream(
        "/v1/chat/completions",
        &chat("a", "x", json!({"stream": true})),
    );
    assert!(running.next_content().is_some());
    let queued = send_only(&daemon, &chat("b", "x", json!({})));
    let waiting_for_b = || {
        let ready = daemon.get("/v1/ready").json();
        crate::daemon_support::find_model(&ready, "b")["queue"]["waiting"].as_u64()
    };
    eventually("one waiting for b", || {
        (waiting_for_b() == Some(1)).then_some(())
    });
    drop(queued);
    eventually("an empty queue of b", || {
        (waiting_for_b() == Some(0)).then_some(())
    });
    drop(running);
    daemon.wait_for_phase("a", "ready");
    assert_eq!(daemon.phase("b"), "unloaded");
    let next = daemon.post(
        "/v1/chat/completions",
        &chat("a", "x", json!({"max_tokens": 1})),
    );
    assert_eq!(next.content(), "w ");
    assert_eq!(
        daemon.phase("a"),
        "ready",
        "a was not evicted for a client that left"
    );
}

#[test]
fn a_client_can_leave_in_prefill() {
    let scenario =
        format!("{ENDLESS}prefill-delay-ms = 3600000\nabort-interrupts-prefill = true\n");
    let daemon = Setup::new()
        .scenario("m", &scenario)
        .model_file("m", "model.toml", WIDE)
        .start();
    let connection = send_only(&daemon, &chat("m", "x", json!({})));
    daemon.wait_for_phase("m", "running");
    let worker = daemon.worker_pid();
    drop(connection);
    daemon.wait_for_phase("m", "ready");
    assert_eq!(daemon.worker_pid(), worker);
}

#[test]
fn the_real_model_stops_when_its_client_leaves() {
    let daemon = Setup::new().demo_model("m").start();
    let prompt = "Write a very long story about the sea.";
    let body = chat("m", prompt, json!({"stream": true, "max_tokens": 3000}));
    let mut stream = daemon.stream("/v1/chat/completions", &body);
    assert!(stream.next_content().is_some());
    let worker = daemon.worker_pid();
    drop(stream);
    daemon.wait_for_phase("m", "ready");
    assert_eq!(daemon.worker_pid(), worker);
    let next = daemon.post(
        "/v1/chat/completions",
        &chat("m", "Hi", json!({"max_tokens": 4})),
    );
    assert_eq!(next.status, 200, "{}", next.body);
}

#[test]
fn a_client_that_stops_reading_loses_its_run_and_no_other_waits_for_it() {
    let long = "x".repeat(2000);
    let scenario = format!(
        "repeat = {{ token = \"{long}\", times = 100000000 }}\nmax-context-limit = 2000000000\n"
    );
    let daemon = Setup::new()
        .settings("http.slow-reader-timeout = \"300ms\"")
        .scenario("m", &scenario)
        .model_file("m", "model.toml", WIDE)
        .start();
    let stalled = send_only(&daemon, &chat("m", "x", json!({"stream": true})));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            daemon.post(
                "/v1/chat/completions",
                &chat("m", "x", json!({"max_tokens": 1})),
            )
        });
        let answer = other.join().expect("a client");
        assert_eq!(answer.content(), long);
    });
    drop(stalled);
}
