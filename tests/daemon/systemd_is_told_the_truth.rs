//! The service manager hears when requests are served, what the daemon is doing, that its own loop
//! lives, and that it ends. A datagram socket of the test is the service manager.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, Setup, chat, eventually};
use crate::manager::Manager;
use rustix::process::Signal;
use serde_json::json;

const SLOW: &str = "token-delay-us = 20000\nrepeat = { token = \"w \", times = 200 }\n";
const QUICK: &str = "tokens = [\"fine\"]\n";
/// A model file that is no scenario: `rkllm_init` fails.
const BROKEN: &str = "no such key = 1\n";

fn stream_of(daemon: &Daemon, model: &str) -> crate::daemon_support::EventStream {
    let body = chat(model, "x", json!({"stream": true}));
    daemon.stream("/v1/chat/completions", &body)
}

#[test]
fn ready_comes_once_requests_are_served_although_a_model_cannot_load() {
    let manager = Manager::new();
    let setup = Setup::new()
        .settings("models.preload = [\"broken\"]")
        .scenario("broken", BROKEN)
        .scenario("m", QUICK);
    let daemon = manager.attach(setup).start();
    assert_eq!(manager.wait_for("READY="), "READY=1");
    assert_eq!(daemon.get("/health").status, 200);
    let status = manager.wait_for("STATUS=broken: failed (");
    assert!(!status.contains('\n'), "one line: {status:?}");
    let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.content(), "fine");
}

#[test]
fn the_status_tells_model_phase_queue_and_speed() {
    let manager = Manager::new();
    // How hot this machine is would be told, too.
    let setup = Setup::new()
        .settings("board.interval = \"0s\"")
        .scenario("m", SLOW);
    let daemon = manager.attach(setup).start();
    let first = manager.wait_for("STATUS=");
    assert_eq!(
        first,
        "STATUS=1 model is installed; it loads when it is used"
    );
    let mut running = stream_of(&daemon, "m");
    assert_eq!(running.next_content().as_deref(), Some("w "));
    let waiting = std::thread::scope(|scope| {
        scope.spawn(|| {
            let body = chat("m", "x", json!({"max_tokens": 1}));
            daemon.post("/v1/chat/completions", &body)
        });
        manager.wait_for("STATUS=m: running, 1 waiting")
    });
    assert_eq!(waiting, "STATUS=m: running, 1 waiting");
    drop(running);
    let body = chat("m", "x", json!({"max_tokens": 5}));
    daemon.post("/v1/chat/completions", &body);
    let idle = manager.wait_for("STATUS=m: ready, last answer ");
    let rate = idle
        .rsplit("answer ")
        .next()
        .and_then(|rest| rest.split(' ').next());
    let rate: f64 = rate.expect("a rate").parse().expect("a number");
    assert!((20.0..=60.0).contains(&rate), "50 are scripted: {idle}");
    // Nothing happens, so nothing is said.
    let chatter = manager.drain(Duration::from_millis(2500));
    assert!(chatter.len() <= 1, "{chatter:?}");
}

#[test]
fn pings_tell_of_the_daemon_and_not_of_its_workers() {
    let manager = Manager::new();
    let watchdog = Duration::from_millis(400);
    let setup = Setup::new()
        .settings("deadlines.inter-token = \"1m\"\ndeadlines.heartbeat = \"1m\"")
        .environment("WATCHDOG_USEC", &watchdog.as_micros().to_string())
        .scenario("m", SLOW);
    let daemon = manager.attach(setup).start();
    manager.wait_for("WATCHDOG=1");
    let mut stream = stream_of(&daemon, "m");
    assert_eq!(stream.next_content().as_deref(), Some("w "));
    let worker = daemon.worker_pid();

    let _stopped = crate::daemon_support::stop(worker);
    manager.drain(Duration::from_millis(1));
    for _ in 0..8 {
        let before = Instant::now();
        manager.wait_for("WATCHDOG=1");
        assert!(before.elapsed() < watchdog, "{:?}", before.elapsed());
    }
    crate::daemon_support::signal(worker, Signal::CONT);
    assert_eq!(stream.next_content().as_deref(), Some("w "));

    daemon.signal(Signal::STOP);
    let until_silence = manager.drain(3 * watchdog);
    let pings = until_silence
        .iter()
        .filter(|text| *text == "WATCHDOG=1")
        .count();
    assert!(pings <= 2, "{until_silence:?}");
    daemon.signal(Signal::CONT);
    manager.wait_for("WATCHDOG=1");
}

#[test]
fn pings_come_only_where_they_are_wanted() {
    let manager = Manager::new();
    // Meant for another process.
    let setup = Setup::new()
        .environment("WATCHDOG_USEC", "100000")
        .environment("WATCHDOG_PID", "1");
    let daemon = manager.attach(setup).start();
    manager.wait_for("READY=1");
    let messages = manager.drain(Duration::from_millis(500));
    assert!(
        !messages.iter().any(|text| text.contains("WATCHDOG")),
        "{messages:?}"
    );
    drop(daemon);
}

#[test]
fn stopping_is_told_with_the_time_it_may_take() {
    let manager = Manager::new();
    let setup = Setup::new()
        .settings("deadlines.drain = \"2m\"")
        .scenario("m", SLOW);
    let daemon = manager.attach(setup).start();
    manager.wait_for("READY=1");
    let mut stream = stream_of(&daemon, "m");
    assert_eq!(stream.next_content().as_deref(), Some("w "));
    daemon.signal(Signal::TERM);
    let stopping = manager.wait_for("STOPPING=1");
    let extended = stopping
        .lines()
        .find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    let microseconds: u64 = extended.expect("more time").parse().expect("a number");
    assert!(microseconds > 120_000_000, "{stopping}");
    assert_eq!(
        stream.next_content().as_deref(),
        Some("w "),
        "it is served on"
    );
    drop(stream);
    assert!(daemon.wait().success());
}

#[test]
fn a_service_manager_that_reads_nothing_holds_nothing_up() {
    let manager = Manager::new();
    let setup = Setup::new()
        .environment("WATCHDOG_USEC", "2000")
        .scenario("m", SLOW);
    let daemon = manager.attach(setup).start();
    // A datagram socket takes a few messages, the daemon's own queue some more; by far enough pings
    // to fill both are due while this answer comes.
    let started = Instant::now();
    let body = chat("m", "x", json!({"max_tokens": 100}));
    let answer = daemon.post("/v1/chat/completions", &body);
    assert_eq!(answer.content(), "w ".repeat(100));
    assert!(started.elapsed() > Duration::from_millis(1500));
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}

#[test]
fn workers_cannot_speak_for_the_daemon() {
    let manager = Manager::new();
    let setup = Setup::new()
        .settings("models.preload = [\"m\"]\nruntime.pass-environment = [\"NOTIFY_SOCKET\", \"WATCHDOG_USEC\", \"HOSTNAME_OF_THE_TEST\"]")
        .environment("WATCHDOG_USEC", "60000000")
        .environment("HOSTNAME_OF_THE_TEST", "x")
        .scenario("m", QUICK);
    let daemon = manager.attach(setup).start();
    daemon.wait_for_phase("m", "ready");
    let worker = daemon.worker_pid();
    let environment = std::fs::read(Path::new("/proc").join(worker.to_string()).join("environ"))
        .expect("the worker's environment");
    let environment = String::from_utf8_lossy(&environment);
    assert!(
        environment.contains("HOSTNAME_OF_THE_TEST=x"),
        "{environment:?}"
    );
    assert!(!environment.contains("NOTIFY_SOCKET"), "{environment:?}");
    assert!(!environment.contains("WATCHDOG"), "{environment:?}");
    eventually("READY", || manager.next().contains("READY=1").then_some(()));
}
