//! A worker that died is replaced, a request that ends workers is refused alone, and a model that ends each of
//! its workers is tried again only after a wait.

use crate::daemon_support::{
    FAMILIES_RUN, Setup, chat, children, eventually, find_model, signal, stop,
};
use crate::sixty_words::{CHAT, answer_text, fault, metric, read, read_with, scenario, start};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_request_that_kills_two_workers_is_refused_and_no_other_is() {
    let mut text = scenario(&fault(
        "call = \"run\"\nwhen-prompt-contains = \"poison\"\nafter-tokens = 2\nkind = \"segv\"",
    ));
    text.insert_str(0, "load-delay-ms = 50\n");
    let daemon = start("1_3_1", &text);
    std::thread::scope(|scope| {
        let poison = scope.spawn(|| daemon.post(CHAT, &chat("m", "poison", json!({}))));
        let others: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| daemon.post(CHAT, &chat("m", "x", json!({})))))
            .collect();
        let refused = poison.join().expect("an answer");
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert_eq!(refused.error_code(), "poison_request");
        for other in others {
            let answer = other.join().expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.content(), answer_text());
        }
    });
    assert_eq!(
        metric(&daemon, "rkllmd_runs_resumed_total{model=\"m\"}"),
        1.0
    );
}

#[test]
fn kills_from_outside_make_no_request_poison() {
    let daemon = start("1_3_1", &scenario(""));
    let mut killed = 0;
    let streamed = read_with(&daemon, json!({}), |text| {
        if killed < 3 && text.len() > 60 * (killed + 1) {
            signal(daemon.worker_pid(), Signal::KILL);
            killed += 1;
        }
    });
    assert_eq!(streamed.text, answer_text(), "{streamed:?}");
    assert_eq!(streamed.timings["resumptions"], 3, "{streamed:?}");
}

#[test]
fn a_stopped_worker_is_replaced() {
    for family in FAMILIES_RUN {
        let daemon = start(family, &scenario(""));
        let mut stopped = None;
        let streamed = read_with(&daemon, json!({}), |text| {
            if stopped.is_none() && text.len() > 60 {
                let pid = daemon.worker_pid();
                stopped = Some((pid, stop(pid)));
            }
        });
        assert_eq!(streamed.text, answer_text(), "{family}: {streamed:?}");
        let heartbeat = "rkllmd_deadlines_passed_total{deadline=\"heartbeat\"}";
        assert_eq!(metric(&daemon, heartbeat), 1.0, "{family}");
        let (pid, _stopped) = stopped.expect("stopped");
        eventually("the end of the stopped worker", || {
            (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
    }
}

#[test]
fn a_worker_that_dies_idle_is_replaced_before_anybody_asks() {
    let daemon = start("1_3_1", &scenario(""));
    assert_eq!(read(&daemon, json!({})).text, answer_text());
    let first = daemon.worker_pid();
    signal(first, Signal::SEGV);
    eventually("another worker", || {
        (daemon.phase("m") == "ready" && daemon.worker_pid() != first).then_some(())
    });
    let line = daemon.log.wait_for("worker ended");
    assert!(
        line.contains("sigsegv") && line.contains("uptime_ms"),
        "{line}"
    );
}

#[test]
fn a_crash_loop_is_a_state_and_not_a_spin() {
    let daemon = Setup::new()
        .settings("recovery.backoff-first = \"3s\"")
        .scenario(
            "m",
            &format!(
                "tokens = [\"x\"]\n{}",
                fault("call = \"run\"\nkind = \"segv\"")
            ),
        )
        .start();
    let refused = daemon.post(CHAT, &chat("m", "x", json!({})));
    assert_eq!(refused.error_code(), "model_failed", "{}", refused.body);
    daemon.wait_for_phase("m", "failed");
    let ready = daemon.get("/v1/ready");
    assert_eq!(ready.status, 503, "{}", ready.body);
    let model = find_model(&ready.json(), "m").clone();
    assert!(
        model["reason"].as_str().unwrap().contains("SIGSEGV"),
        "{model}"
    );
    let next_try = model["retry_after"].as_u64().expect("seconds");
    // Twice the first wait, and jitter.
    assert!((1..=8).contains(&next_try), "{model}");
    assert_eq!(
        children(daemon.pid()).len(),
        0,
        "nothing is started meanwhile"
    );
}
