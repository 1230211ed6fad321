//! A worker that takes too much memory is replaced before the machine runs out of it, a kill by the
//! kernel is told from a crash, and no client notices either.

use std::fs;

use crate::cgroup_support::{Freezer, NarrowMemory};
use crate::daemon_support::{Answer, Daemon, Setup, chat, children, completion, eventually};
use rustix::process::Signal;
use serde_json::json;

/// Frequent, so that growth is seen while it happens.
const CHECK_OFTEN: &str = "memory.check-interval = \"10ms\"\nmodels.preload = [\"m\"]";
const MIB: u64 = 1 << 20;

/// More than the worker has by itself and less than what the scenarios take.
fn limit(kind: &str) -> String {
    format!("memory.worker-{kind}-limit-bytes = {}", 100 * MIB)
}

fn start(limits: &str, scenario: &str) -> (Daemon, u32) {
    let daemon = Setup::new()
        .settings(CHECK_OFTEN)
        .settings(limits)
        .scenario("m", scenario)
        .start();
    daemon.wait_for_phase("m", "ready");
    let worker = daemon.worker_pid();
    (daemon, worker)
}

fn ask(daemon: &Daemon) -> Answer {
    daemon.post("/v1/chat/completions", &chat("m", "x", json!({})))
}

fn assert_whole(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.content(), "one two three");
}

/// Waits until the daemon has looked at its worker some more times. Nothing else makes an idle
/// daemon read, and one look is less than 50 reads.
fn looked_at_its_worker(daemon: &Daemon) {
    let reads = || {
        let io = fs::read_to_string(format!("/proc/{}/io", daemon.pid())).expect("figures");
        let line = io.lines().find_map(|line| line.strip_prefix("syscr: "));
        line.expect("syscr").parse::<u64>().expect("a number")
    };
    let before = reads();
    eventually("some more looks at the worker", || {
        (reads() >= before + 200).then_some(())
    });
}

/// `rkllmd_worker_exits_total` of the model for one cause.
fn exits(daemon: &Daemon, cause: &str) -> u64 {
    let metrics = daemon.get("/metrics").body;
    let cause = format!("cause=\"{cause}\"");
    let sample = metrics.lines().find_map(|line| {
        let (labels, value) = line
            .strip_prefix("rkllmd_worker_exits_total{")?
            .split_once("} ")?;
        let mut labels = labels.split(',');
        labels.any(|label| label == cause).then_some(value)
    });
    sample.map_or(0, |value| value.parse().expect("a number"))
}

fn wait_for_exits(daemon: &Daemon, cause: &str, count: u64) {
    eventually(&format!("{count} exits for {cause}"), || {
        (exits(daemon, cause) == count).then_some(())
    });
}

#[test]
fn an_oom_kill_is_named_and_its_request_is_answered_by_another_worker() {
    let scenario = "tokens = [\"one \", \"two \", \"three\"]\n\
        [[fault]]\ncall = \"run\"\nkind = \"grow-memory\"\nmib = 1000\nstep-ms = 1\nonce = \"grew\"\n";
    let no_limits = "memory.worker-soft-limit-bytes = 0\nmemory.worker-hard-limit-bytes = 0";
    let (daemon, worker) = start(no_limits, scenario);
    // Dropped before the daemon, whose worker is in it.
    let narrow = NarrowMemory::of_bytes(64 * MIB);
    narrow.add(worker);
    looked_at_its_worker(&daemon);

    assert_whole(&ask(&daemon));
    assert_ne!(daemon.worker_pid(), worker);
    daemon.log.wait_for("oom-kill");
    wait_for_exits(&daemon, "oom-kill", 1);

    // A SIGKILL from elsewhere has another name, also with a worker after one that was OOM-killed.
    crate::daemon_support::kill(daemon.worker_pid());
    assert_whole(&ask(&daemon));
    assert_eq!(exits(&daemon, "oom-kill"), 1);
    drop(narrow);
}

/// Bytes of anonymous memory that the metrics give for the only model's worker.
fn anonymous_bytes(daemon: &Daemon) -> Option<u64> {
    let metrics = daemon.get("/metrics").body;
    let value = metrics.lines().find_map(|line| {
        let (labels, value) = line
            .strip_prefix("rkllmd_worker_memory_bytes{")?
            .split_once("} ")?;
        labels.contains("kind=\"anonymous\"").then_some(value)
    })?;
    Some(value.parse().expect("a number"))
}

#[test]
fn what_a_worker_holds_is_in_the_metrics() {
    let (daemon, _) = start("", "tokens = [\"one\"]\nmemory-mib = 100\n");
    // The first looks are at a worker that is still loading.
    eventually("the whole figure", || {
        let bytes = anonymous_bytes(&daemon)?;
        assert!(bytes < 200 * MIB, "{bytes}");
        (bytes >= 100 * MIB).then_some(())
    });
}

#[test]
fn a_worker_over_the_soft_limit_is_replaced_when_it_is_idle() {
    let scenario = "tokens = [\"one \", \"two \", \"three\"]\nmemory-mib-per-run = 60\n";
    let (daemon, worker) = start(&limit("soft"), scenario);
    assert_whole(&ask(&daemon));
    looked_at_its_worker(&daemon);
    assert_eq!(children(daemon.pid()), [worker], "60 MiB are not too much");

    assert_whole(&ask(&daemon));
    eventually("the end of the worker", || {
        (!children(daemon.pid()).contains(&worker)).then_some(())
    });
    assert_whole(&ask(&daemon));
    wait_for_exits(&daemon, "recycled", 1);
}

#[test]
fn a_worker_over_the_soft_limit_finishes_its_answer_first() {
    let scenario = "repeat = { token = \"w \", times = 60 }\ntoken-delay-us = 10000\n\
        [[fault]]\ncall = \"run\"\nkind = \"grow-memory\"\nmib = 150\nafter-tokens = 1\n";
    let (daemon, worker) = start(&limit("soft"), scenario);
    let mut stream = daemon.stream(
        "/v1/completions",
        &completion("m", "x", json!({"stream": true, "max_tokens": 60})),
    );
    let text: String = std::iter::from_fn(|| stream.next_content()).collect();
    assert_eq!(text, "w ".repeat(60));
    eventually("the end of the worker", || {
        (!children(daemon.pid()).contains(&worker)).then_some(())
    });
    wait_for_exits(&daemon, "recycled", 1);
    assert_eq!(exits(&daemon, "memory-limit"), 0);
}

/// Two deaths at one request would make it poison, if these were its doing.
#[test]
fn a_worker_over_the_hard_limit_is_killed_and_its_request_is_answered_by_another_one() {
    let grow = |once: &str| {
        format!(
            "[[fault]]\ncall = \"run\"\nkind = \"grow-memory\"\nmib = 1000\nstep-ms = 2\n\
             once = \"{once}\"\n"
        )
    };
    let scenario = format!(
        "tokens = [\"one \", \"two \", \"three\"]\n{}{}",
        grow("first"),
        grow("second")
    );
    let (daemon, worker) = start(&limit("hard"), &scenario);
    assert_whole(&ask(&daemon));
    assert_ne!(daemon.worker_pid(), worker);
    daemon.log.wait_for("memory-limit");
    wait_for_exits(&daemon, "memory-limit", 2);
    assert_eq!(exits(&daemon, "recycled"), 0);
}

/// Growth that the load's own deadline takes for progress.
const GROW_IN_LOAD: &str = "tokens = [\"one \", \"two \", \"three\"]\n\
    [[fault]]\ncall = \"init\"\nkind = \"grow-memory\"\nmib = 1000\nstep-ms = 2\n";

#[test]
fn a_worker_over_the_hard_limit_while_it_loads_is_killed_and_the_reason_is_told() {
    let daemon = Setup::new()
        .settings("memory.check-interval = \"10ms\"")
        .settings(&limit("hard"))
        .scenario("m", GROW_IN_LOAD)
        .start();
    let answer = ask(&daemon);
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.error_code(), "model_unavailable");
    let names_the_limit = answer.body.contains("memory.worker-hard-limit-bytes");
    assert!(names_the_limit, "{}", answer.body);
    // A model that was never loaded is tried twice.
    wait_for_exits(&daemon, "memory-limit", 2);
}

#[test]
fn a_load_that_was_ended_by_the_hard_limit_is_tried_again() {
    let scenario = format!("{GROW_IN_LOAD}once = \"grew\"\n");
    let (daemon, _) = start(&limit("hard"), &scenario);
    assert_whole(&ask(&daemon));
    assert_eq!(exits(&daemon, "memory-limit"), 1);
    let lines = daemon.log.lines();
    let loaded = lines.iter().filter(|line| line.contains("model loaded"));
    assert_eq!(loaded.count(), 1, "it was killed before it was loaded");
}

#[test]
fn memory_within_the_limits_is_no_reason_to_replace_a_worker() {
    let limits = format!("{}\n{}", limit("soft"), limit("hard"));
    let scenario = "tokens = [\"one \", \"two \", \"three\"]\nmemory-mib = 60\n";
    let (daemon, worker) = start(&limits, scenario);
    for _ in 0..5 {
        assert_whole(&ask(&daemon));
        looked_at_its_worker(&daemon);
    }
    assert_eq!(children(daemon.pid()), [worker]);
}

/// A new worker would hold as much.
#[test]
fn a_model_that_is_over_the_soft_limit_by_itself_is_loaded_once() {
    let scenario = "tokens = [\"one \", \"two \", \"three\"]\nmemory-mib = 150\n";
    let (daemon, worker) = start(&limit("soft"), scenario);
    for _ in 0..3 {
        looked_at_its_worker(&daemon);
        assert_whole(&ask(&daemon));
    }
    assert_eq!(children(daemon.pid()), [worker]);
    assert_eq!(exits(&daemon, "recycled"), 0);
}

/// One that takes a while to go: a large one, or one that the kernel does not let go of at once.
#[test]
fn a_worker_that_is_killed_for_its_memory_gets_nothing_new_to_do() {
    let scenario = "continue-answers = true\nmemory-mib = 150\n\
        tokens = [\"one \", \"two \", \"three\"]\n\
        [[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\nafter-tokens = 1\n\
        when-prompt-contains = \"begins first\"\n";
    let daemon = Setup::new()
        .settings(CHECK_OFTEN)
        .settings("memory.worker-soft-limit-bytes = 0")
        .settings("models.parallel = 2\ndeadlines.heartbeat = \"50s\"\ndeadlines.kill = \"50s\"")
        .scenario("m", scenario)
        .start();
    daemon.wait_for_phase("m", "ready");
    let worker = daemon.worker_pid();
    let stream = json!({"stream": true});
    let mut first = daemon.stream(
        "/v1/chat/completions",
        &chat("m", "begins first", stream.clone()),
    );
    let begun = first.next_content().expect("a token");
    // Dropped before the daemon, whose end waits for its worker.
    let freezer = Freezer::new();
    freezer.freeze(worker);
    let settings = daemon.folder().join("rkllmd.toml");
    let before = fs::read_to_string(&settings).expect("the settings");
    fs::write(&settings, format!("{before}\n{}\n", limit("hard"))).expect("the settings");
    daemon.signal(Signal::HUP);
    daemon.log.wait_for("over its hard memory limit");
    let mut second = daemon.stream("/v1/chat/completions", &chat("m", "x", stream));
    eventually("a request that waits", || {
        let page = daemon.get("/metrics").body;
        page.contains("rkllmd_queue_length{model=\"m\"} 1")
            .then_some(())
    });
    fs::write(daemon.folder().join("models/m/go"), "").expect("a file");
    fs::write(
        daemon.folder().join("models/m/model.rkllm"),
        scenario.replace("150", "1"),
    )
    .expect("a model");
    freezer.thaw();
    let rest: String = std::iter::from_fn(|| first.next_content()).collect();
    assert_eq!(begun + &rest, "one two three");
    let other: String = std::iter::from_fn(|| second.next_content()).collect();
    assert_eq!(other, "one two three");
    let page = daemon.get("/metrics").body;
    let repeated = "rkllmd_runs_repeated_total{model=\"m\"}";
    let repeated = page.lines().find(|line| line.starts_with(repeated));
    assert!(
        repeated.is_none_or(|line| line.ends_with(" 0")),
        "{repeated:?}"
    );
    wait_for_exits(&daemon, "memory-limit", 1);
}
