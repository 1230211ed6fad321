//! An answer tells how many were before it, and the metrics of a real daemon tell the same story.

use std::thread;

use crate::daemon_support::{Answer, Daemon, Setup, chat, eventually};
use serde_json::json;

/// The value of a sample, by its name with labels.
fn metric(daemon: &Daemon, name: &str) -> Option<f64> {
    let page = daemon.get("/metrics").body;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

fn position(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let timings = &answer.json()["timings"];
    assert!(timings.get("resumptions").is_none(), "{timings}");
    timings["queue_position"].as_u64().expect("a position")
}

#[test]
fn each_answer_knows_how_many_were_before_it() {
    const WAITING: usize = 3;
    // Long enough for the others to come; it is ended when they have.
    let scenario = "repeat = { token = \"w \", times = 3000 }\ntoken-delay-us = 20000\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let request = |tokens: u32| chat("m", "x", json!({ "max_tokens": tokens }));
    let mut first = daemon.stream(
        "/v1/chat/completions",
        &chat("m", "x", json!({"stream": true})),
    );
    assert!(first.next_content().is_some());
    let positions: Vec<u64> = thread::scope(|scope| {
        let waiting: Vec<_> = (0..WAITING)
            .map(|number| {
                let client = scope.spawn(|| daemon.post("/v1/chat/completions", &request(2)));
                eventually("its being queued", || {
                    let queued = metric(&daemon, "rkllmd_queue_length{model=\"m\"}");
                    (queued == Some((number + 1) as f64)).then_some(())
                });
                client
            })
            .collect();
        drop(first);
        let answers = waiting
            .into_iter()
            .map(|client| client.join().expect("an answer"));
        answers.map(|answer| position(&answer)).collect()
    });
    assert_eq!(positions, [0, 1, 2]);
    let outcome =
        |outcome: &str| format!("rkllmd_requests_total{{model=\"m\",outcome=\"{outcome}\"}}");
    eventually("the count of the one that left", || {
        (metric(&daemon, &outcome("cancelled")) == Some(1.0)).then_some(())
    });
    assert_eq!(metric(&daemon, &outcome("complete")), Some(WAITING as f64));
    assert_eq!(
        metric(&daemon, "rkllmd_queue_length{model=\"m\"}"),
        Some(0.0)
    );
    assert_eq!(
        metric(&daemon, "rkllmd_completion_tokens_total{model=\"m\"}"),
        Some(2.0 * WAITING as f64)
    );
    assert_eq!(
        metric(&daemon, "rkllmd_queue_wait_seconds_count{model=\"m\"}"),
        Some(1.0 + WAITING as f64)
    );
}
