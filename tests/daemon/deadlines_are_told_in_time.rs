//! A client is told when its own deadline passes and when the daemon ends, also while it waits for others or the
//! library does not listen.

use crate::daemon_support::{Setup, chat, eventually};
use crate::sixty_words::{CHAT, answer_text, metric, read, scenario, start};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_total_deadline_ends_a_living_request() {
    let daemon = start("1_3_1", &scenario(""));
    // The deadline counts from the request on, loading included.
    assert_eq!(read(&daemon, json!({})).text, answer_text());
    let streamed = read(&daemon, json!({"total_deadline_ms": 60}));
    let error = streamed.error.expect("an error");
    assert_eq!(error["code"], "deadline_exceeded", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("`total`"),
        "{error}"
    );
    assert_eq!(
        metric(&daemon, "rkllmd_deadlines_passed_total{deadline=\"total\"}"),
        1.0
    );
    assert_eq!(
        read(&daemon, json!({})).text,
        answer_text(),
        "the worker is free again"
    );
}

#[test]
fn a_total_deadline_counts_in_the_queue_too() {
    let scenario = "repeat = { token = \"w \", times = 4000 }\ntoken-delay-us = 2000\n";
    let daemon = start("1_3_1", scenario);
    let first = chat("m", "x", json!({"stream": true}));
    let mut stream = daemon.stream(CHAT, &first);
    assert!(stream.next_content().is_some(), "the worker is busy");
    let second = daemon.post(CHAT, &chat("m", "x", json!({"total_deadline_ms": 50})));
    assert_eq!(second.error_code(), "deadline_exceeded", "{}", second.body);
}

#[test]
fn a_total_deadline_is_not_held_up_by_who_came_earlier_and_may_wait() {
    let scenario = "repeat = { token = \"w \", times = 4000 }\ntoken-delay-us = 20000\n";
    let daemon = start("1_3_1", scenario);
    let mut running = daemon.stream(CHAT, &chat("m", "x", json!({"stream": true})));
    assert!(running.next_content().is_some(), "the worker is busy");
    let waiting = daemon.stream(CHAT, &chat("m", "x", json!({"stream": true})));
    eventually("the first waiter", || {
        (metric(&daemon, "rkllmd_queue_length{model=\"m\"}") == 1.0).then_some(())
    });
    let short = daemon.post(CHAT, &chat("m", "x", json!({"total_deadline_ms": 50})));
    assert_eq!(short.error_code(), "deadline_exceeded", "{}", short.body);
    // The running answer takes 80 s; it is still being made.
    assert!(running.next_content().is_some());
    assert_eq!(metric(&daemon, "rkllmd_queue_length{model=\"m\"}"), 1.0);
    drop(waiting);
}

/// What is missing then is the library's end of the run, and others may be on the same worker.
#[test]
fn a_total_deadline_behind_an_answers_last_token_costs_no_worker() {
    let scenario = "repeat = { token = \"w \", times = 40 }\n[[fault]]\ncall = \"run\"\n\
        kind = \"delay\"\nms = 750\nafter-tokens = 3\nwhen-prompt-contains = \"slow to end\"\n";
    let daemon = start("1_3_1", scenario);
    let warm = daemon.post(CHAT, &chat("m", "x", json!({"max_tokens": 1})));
    assert_eq!(warm.content(), "w ");
    let worker = daemon.worker_pid();
    let few = json!({"max_tokens": 3, "total_deadline_ms": 400});
    let answer = daemon.post(CHAT, &chat("m", "slow to end", few));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.content(), "w w w ");
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
    let after = daemon.post(CHAT, &chat("m", "x", json!({"max_tokens": 1})));
    assert_eq!(after.content(), "w ");
    assert_eq!(daemon.worker_pid(), worker);
    let page = daemon.get("/metrics").body;
    assert!(!page.contains("rkllmd_deadlines_passed_total{"), "{page}");
}

/// Ten minutes of prefill, which no abort interrupts.
const LONG_PREFILL: &str = "tokens = [\"x\"]\nprefill-delay-ms = 600000\n";
const PATIENT: &str = "deadlines.prefill-base = \"1h\"\ndeadlines.abort-to-finish = \"1h\"";

#[test]
fn a_total_deadline_is_told_although_the_library_does_not_listen() {
    let daemon = Setup::new()
        .settings(PATIENT)
        .scenario("m", LONG_PREFILL)
        .start();
    let late = daemon.post(CHAT, &chat("m", "x", json!({"total_deadline_ms": 300})));
    assert_eq!(late.error_code(), "deadline_exceeded", "{}", late.body);
}

#[test]
fn a_shutdown_is_told_although_the_library_does_not_listen() {
    let daemon = Setup::new()
        .settings(PATIENT)
        .settings("deadlines.drain = \"3s\"\nhttp.header-delay = \"100ms\"")
        .scenario("m", LONG_PREFILL)
        .start();
    let stream = daemon.stream(CHAT, &chat("m", "x", json!({"stream": true})));
    daemon.signal(Signal::TERM);
    let events = stream.collect();
    let (_, last) = events.last().expect("events");
    assert!(last.contains("shutting_down"), "{last}");
    assert!(daemon.wait().success());
}
