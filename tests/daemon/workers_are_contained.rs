//! A worker owns nothing but its own, dies with its daemon, and leaves nothing when it is unloaded.

use std::fs;
use std::time::{Duration, Instant};

use crate::daemon_support::{
    Daemon, EventStream, Setup, chat, children, descriptors, eventually, readers, resident_bytes,
    threads,
};
use rustix::process::Signal;
use serde_json::json;

const SCENARIO: &str = "tokens = [\"fine\"]\n";

fn ask(daemon: &Daemon, model: &str) {
    let answer = daemon.post("/v1/chat/completions", &chat(model, "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// An answer whose first token has come.
fn begun(daemon: &Daemon, model: &str) -> EventStream {
    let body = chat(model, "x", json!({"stream": true}));
    let mut stream = daemon.stream("/v1/chat/completions", &body);
    assert!(stream.next_content().is_some());
    stream
}

#[test]
fn a_worker_holds_its_pipe_its_socket_and_nothing_else() {
    let daemon = Setup::new().scenario("m", SCENARIO).start();
    ask(&daemon, "m");
    let worker = daemon.worker_pid();
    let held = descriptors(worker);
    let kinds: Vec<&str> = held.iter().map(|(_, target)| kind(target)).collect();
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "/dev/null").count(),
        1,
        "{held:?}"
    );
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "pipe").count(),
        2,
        "{held:?}"
    );
    // One socket, and the descriptor that the writing thread has of it.
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "socket").count(),
        2,
        "{held:?}"
    );
    assert_eq!(held.len(), 5, "{held:?}");
    let sockets: Vec<_> = held
        .iter()
        .filter(|(_, target)| kind(target) == "socket")
        .collect();
    assert_eq!(sockets[0].1, sockets[1].1, "both are the IPC socket");

    let limits = fs::read_to_string(format!("/proc/{worker}/limits")).expect("limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("status");
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .expect("a mask");
    let caught = u64::from_str_radix(caught.trim(), 16).expect("hexadecimal");
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        assert_eq!(
            caught & (1 << (signal - 1)),
            0,
            "signal {signal} has its default handler"
        );
    }
    let environment = fs::read(format!("/proc/{worker}/environ")).expect("the environment");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(
        !environment.contains("CARGO"),
        "only allowed variables are passed on: {environment}"
    );
    let group = status_field(worker, "NSpgid:");
    assert_eq!(group, worker.to_string(), "its own process group");
}

#[test]
fn for_want_of_memory_the_kernel_kills_children_before_their_daemon() {
    let daemon = Setup::new().scenario("m", SCENARIO).start();
    let score = |pid: u32| {
        let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        score.map(|score| score.trim().parse::<i32>().expect("a number"))
    };
    let own = score(std::process::id()).expect("this process");
    assert_eq!(score(daemon.pid()).ok(), Some(own), "as it was started");
    // Readers come and go.
    let of_reader = eventually("a reader", || {
        ask(&daemon, "m");
        let mut readers = readers(daemon.pid()).into_iter();
        readers.find_map(|reader| score(reader).ok().filter(|score| *score != own))
    });
    assert_eq!(of_reader, own.max(500));
    assert_eq!(score(daemon.worker_pid()).ok(), Some(own.max(500)));
}

fn kind(target: &str) -> &str {
    target.split_once(":[").map_or(target, |(kind, _)| kind)
}

fn status_field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("a field")
        .trim()
        .to_owned()
}

#[test]
fn the_daemon_maps_no_runtime_library() {
    let daemon = Setup::new().scenario("m", SCENARIO).start();
    ask(&daemon, "m");
    let library = "librkllmrt_fake";
    let maps = |pid| fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    assert!(
        maps(daemon.worker_pid()).contains(library),
        "the worker has it"
    );
    assert!(!maps(daemon.pid()).contains(library), "the daemon has not");
}

#[test]
fn a_worker_dies_with_its_daemon_even_in_a_hung_call() {
    let scenario = "tokens = [\"x\"]\n[[fault]]\ncall = \"init\"\nkind = \"hang\"\n";
    let daemon = Setup::new()
        .settings("models.preload = [\"m\"]")
        .scenario("m", scenario)
        .start();
    daemon.wait_for_phase("m", "loading");
    let worker = daemon.worker_pid();
    daemon.signal(Signal::KILL);
    eventually("the end of the worker", || {
        fs::read_to_string(format!("/proc/{worker}/status"))
            .map_or(true, |s| s.contains("\nState:\tZ"))
            .then_some(())
    });
}

#[test]
fn a_worker_started_by_hand_refuses() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["worker", "--parent-pid", "1"])
        .output()
        .expect("it starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("started by rkllmd only"), "{said}");
}

#[test]
fn fifty_loads_and_unloads_leave_nothing() {
    let daemon = Setup::new()
        .settings("models.max-loaded = 1\nmodels.minimum-residency = \"0s\"")
        .scenario("a", SCENARIO)
        .scenario("b", SCENARIO)
        .start();
    // Allocators and lazily built state settle first.
    for _ in 0..5 {
        ask(&daemon, "a");
        ask(&daemon, "b");
    }
    let pid = daemon.pid();
    let figures = || (descriptors(pid).len(), threads(pid), children(pid).len());
    let before = figures();
    let memory_before = resident_bytes(pid);
    for _ in 0..25 {
        ask(&daemon, "a");
        ask(&daemon, "b");
    }
    eventually(
        "no more descriptors, threads and children than before",
        || {
            let now = figures();
            (now.0 <= before.0 && now.1 <= before.1 && now.2 <= before.2).then_some(())
        },
    );
    let growth = resident_bytes(pid).saturating_sub(memory_before);
    assert!(
        growth < 2 * 1024 * 1024,
        "the daemon grew by {growth} bytes"
    );
    assert_eq!(children(pid).len(), 1);
}

#[test]
fn fifty_loads_of_a_real_model_leave_nothing() {
    let daemon = Setup::new()
        .settings("models.max-loaded = 1\nmodels.minimum-residency = \"0s\"")
        .demo_model("a")
        .demo_model_again("b")
        .start();
    let ask = |model: &str| {
        let body = chat(model, "Hi", json!({"max_tokens": 1}));
        let answer = daemon.post("/v1/chat/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    for _ in 0..3 {
        ask("a");
        ask("b");
    }
    let pid = daemon.pid();
    let before = (descriptors(pid).len(), threads(pid));
    let memory_before = resident_bytes(pid);
    for _ in 0..25 {
        ask("a");
        ask("b");
    }
    eventually("no more descriptors and threads than before", || {
        let now = (descriptors(pid).len(), threads(pid));
        (now.0 <= before.0 && now.1 <= before.1).then_some(())
    });
    let growth = resident_bytes(pid).saturating_sub(memory_before);
    assert!(
        growth < 2 * 1024 * 1024,
        "the daemon grew by {growth} bytes"
    );
    assert_eq!(children(pid).len(), 1);
}

/// Its place is another model's by then.
#[test]
fn a_model_that_goes_for_another_does_not_come_back_when_it_dies_of_going() {
    let dies = format!("{SCENARIO}[[fault]]\ncall = \"destroy\"\nkind = \"segv\"\n");
    let daemon = Setup::new()
        .settings("models.max-loaded = 1\nmodels.minimum-residency = \"0s\"")
        .scenario("a", &dies)
        .scenario("b", SCENARIO)
        .start();
    ask(&daemon, "a");
    ask(&daemon, "b");
    // Lines are collected beside the test.
    let lines = eventually("the line of the second load", || {
        let lines = daemon.log.lines();
        let is_it = |line: &String| line.contains("model loaded") && line.contains("model=\"b\"");
        lines.iter().any(is_it).then_some(lines)
    });
    let loads = |model: &str| {
        let model = format!("model=\"{model}\"");
        let loaded = lines.iter().filter(|line| line.contains("model loaded"));
        loaded.filter(|line| line.contains(&model)).count()
    };
    assert_eq!((loads("a"), loads("b")), (1, 1), "{lines:#?}");
}

#[test]
fn an_idle_model_stays_for_its_residency() {
    let residency = Duration::from_secs(2);
    let daemon = Setup::new()
        .settings("models.minimum-residency = \"2s\"")
        .scenario("a", SCENARIO)
        .scenario("b", SCENARIO)
        .start();
    let before_its_load = Instant::now();
    ask(&daemon, "a");
    ask(&daemon, "b");
    assert!(before_its_load.elapsed() >= residency);
    assert_eq!(daemon.phase("a"), "unloaded");
}

#[test]
fn a_busy_model_is_not_evicted() {
    let endless = "repeat = { token = \"w \", times = 100000 }\ntoken-delay-us = 20000\n";
    let daemon = Setup::new()
        .settings("models.minimum-residency = \"0s\"")
        .scenario("a", endless)
        .scenario("b", SCENARIO)
        .start();
    let mut stream = begun(&daemon, "a");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| ask(&daemon, "b"));
        assert!(
            stream.next_content().is_some(),
            "the running answer goes on"
        );
        drop(stream);
        other.join().expect("served once the place is free");
    });
    assert_eq!(daemon.phase("a"), "unloaded");
}

#[test]
fn sigterm_lets_a_running_answer_finish_and_ends_with_zero() {
    let scenario = "repeat = { token = \"w \", times = 50 }\ntoken-delay-us = 5000\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let mut stream = begun(&daemon, "m");
    let worker = daemon.worker_pid();
    daemon.signal(Signal::TERM);
    daemon.log.wait_for("shutting down");
    let rest: String = std::iter::from_fn(|| stream.next_content()).collect();
    assert_eq!(rest, "w ".repeat(49));
    let status = daemon.wait();
    assert!(status.success(), "{status}");
    assert!(
        fs::metadata(format!("/proc/{worker}")).is_err(),
        "the worker is gone"
    );
}

#[test]
fn answers_that_outlast_the_drain_deadline_end_with_a_typed_error() {
    let scenario = "repeat = { token = \"w \", times = 100000 }\ntoken-delay-us = 20000\n";
    let daemon = Setup::new()
        .settings("deadlines.drain = \"300ms\"")
        .scenario("m", scenario)
        .start();
    let stream = begun(&daemon, "m");
    daemon.signal(Signal::TERM);
    let events = stream.collect();
    let (_, last) = events.last().expect("events");
    assert!(last.contains("shutting_down"), "{last}");
    assert!(daemon.wait().success());
}

#[test]
fn sigterm_does_not_wait_for_a_load_that_hangs() {
    let scenario = "tokens = [\"x\"]\n[[fault]]\ncall = \"init\"\nkind = \"hang\"\n";
    let daemon = Setup::new()
        .settings("models.preload = [\"m\"]\ndeadlines.drain = \"1h\"")
        .scenario("m", scenario)
        .start();
    daemon.wait_for_phase("m", "loading");
    let worker = daemon.worker_pid();
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(
        fs::metadata(format!("/proc/{worker}")).is_err(),
        "the worker is gone"
    );
}

#[test]
fn a_worker_that_dies_while_the_daemon_looks_away_is_replaced() {
    let daemon = Setup::new()
        .settings("models.preload = [\"m\"]")
        .scenario("m", "tokens = [\"fine\"]\nload-delay-ms = 300\n")
        .start();
    daemon.wait_for_phase("m", "loading");
    let worker = daemon.worker_pid();
    // The daemon finds the end of the load and the end of the process at the same time.
    daemon.signal(Signal::STOP);
    // The control thread is the worker's fifth and starts once the model is loaded.
    eventually("the model being loaded", || {
        (threads(worker) == 5).then_some(())
    });
    crate::daemon_support::kill(worker);
    daemon.signal(Signal::CONT);
    eventually("an answer", || {
        let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
        (answer.status == 200).then_some(())
    });
}

#[test]
fn descriptor_limits_are_raised() {
    let daemon = Setup::new().scenario("m", SCENARIO).start();
    ask(&daemon, "m");
    for pid in [daemon.pid(), daemon.worker_pid()] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .expect("a limit");
        let mut numbers = line
            .split_whitespace()
            .skip(3)
            .map(|n| n.parse::<u64>().expect("a number"));
        let (soft, hard) = (numbers.next().expect("soft"), numbers.next().expect("hard"));
        assert_eq!(soft, hard.min(102_400), "{line}");
    }
}

#[test]
fn an_idle_daemon_is_small() {
    let daemon = Setup::new().scenario("m", SCENARIO).start();
    assert_eq!(daemon.get("/health").status, 200);
    // It lets go of the code of its start when it is ready, a moment after it listens.
    eventually("less than 15 MB resident", || {
        (resident_bytes(daemon.pid()) < 15_000_000).then_some(())
    });
}
