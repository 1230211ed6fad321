//! What a template does to the process that runs it costs its own model, or one request; the daemon and its
//! other models go on, and such processes are few.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cgroup_support::Freezer;
use crate::daemon_support::{Setup, chat, completion, eventually, readers};
use serde_json::json;

use super::models_folder_support::{CHAT, TEXT, ends_at_once, listed, reload, serves, setup};

/// Each overflows the stack, exhausts memory or never ends.
const HOSTILE: [(&str, &str); 9] = [
    ("deep", "{{ DEEP1 }}"),
    ("sums", "{{ SUMS1 }}"),
    ("attributes", "{{ aATTRIBUTES }}"),
    (
        "doubling",
        "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    ),
    ("format", "{{ '{:>2000000000}'.format(1) }}"),
    ("indent", "{{ 'a'|indent(2000000000, true) }}"),
    (
        "replace",
        "{% set n = namespace(a='a') %}{% for i in range(12) %}{% set n.a = n.a|replace('a', 'aaaaaaaaaa') %}{% endfor %}",
    ),
    (
        "nesting",
        "{% set n = namespace(a=[]) %}{% for i in range(100000) %}{% set n.a = [n.a] %}{% endfor %}{{ n.a }}",
    ),
    (
        "sorting",
        "{% for i in range(99999) %}{% set x = range(99999)|list|sort|list|length %}{% endfor %}",
    ),
];

fn template(source: &str) -> String {
    source
        .replace("DEEP", &"-".repeat(400_000))
        .replace("SUMS", &"1+".repeat(400_000))
        .replace("ATTRIBUTES", &".a".repeat(400_000))
}

#[test]
fn no_template_harms_more_than_its_model() {
    for (name, source) in HOSTILE {
        let text = template(source);
        let folder = || {
            setup()
                .scenario("evil", "tokens = [\"still\"]\n")
                .model_file("evil", "model.toml", "")
                .model_file("evil", "chat_template.jinja", &text)
        };
        // At start.
        let daemon = folder().start();
        serves(&daemon, "good");
        let refused = daemon.post(CHAT, &chat("evil", "x", json!({})));
        assert_eq!(
            (refused.status, &*refused.error_code()),
            (500, "chat_template_broken"),
            "{name}: {}",
            refused.body
        );
        let says_what_happened = !refused.body.contains("RUST_BACKTRACE");
        assert!(says_what_happened, "{name}: {}", refused.body);
        // What needs no template is served.
        let answer = daemon.post(TEXT, &completion("evil", "x", json!({})));
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        ends_at_once(daemon);
        // At a reload.
        let setup = setup();
        let models_folder = setup.models();
        let daemon = setup.start();
        let evil = models_folder.join("evil");
        fs::create_dir(&evil).unwrap();
        fs::write(evil.join("model.rkllm"), "tokens = [\"still\"]\n").unwrap();
        fs::write(evil.join("chat_template.jinja"), &text).unwrap();
        reload(&daemon);
        serves(&daemon, "good");
        let listed = listed(&models_folder);
        assert!(
            listed.contains("chat_template.jinja, broken") && listed.contains("cannot be used"),
            "{name}: {listed}"
        );
        ends_at_once(daemon);
    }
}

/// A model that there was no time to look at is not gone.
#[test]
fn a_reload_without_time_removes_no_model() {
    let setup = setup()
        .scenario("zz", "tokens = [\"fine\"]\n")
        .settings("deadlines.models-read = \"2s\"");
    let models_folder = setup.models();
    let daemon = setup.start();
    serves(&daemon, "zz");
    let slow =
        "{% for i in range(4000) %}{{ ('ab' * 50000)|replace('a', 'b')|length }}{% endfor %}";
    for name in ["a1", "a2"] {
        let folder = models_folder.join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("model.rkllm"), "tokens = [\"still\"]\n").unwrap();
        fs::write(folder.join("chat_template.jinja"), slow).unwrap();
    }
    reload(&daemon);
    let lines = daemon.log.lines().join("\n");
    assert!(
        lines.contains("deadlines.models-read"),
        "time ran out: {lines}"
    );
    assert!(!lines.contains("models removed"), "{lines}");
    serves(&daemon, "zz");
    serves(&daemon, "good");
    // One that is really gone is.
    for name in ["a1", "a2", "good"] {
        fs::remove_dir_all(models_folder.join(name)).unwrap();
    }
    reload(&daemon);
    assert_eq!(daemon.post(CHAT, &chat("good", "x", json!({}))).status, 404);
    serves(&daemon, "zz");
    ends_at_once(daemon);
}

#[test]
fn what_a_template_does_in_a_request_costs_that_request() {
    for (name, source) in HOSTILE.into_iter().filter(|(name, _)| {
        // The others are refused as soon as they are compiled.
        !["deep", "sums", "attributes"].contains(name)
    }) {
        let late = format!("{{% if messages[0].content == 'boom' %}}{source}{{% endif %}}ok");
        let daemon = setup()
            .scenario("evil", "tokens = [\"still\"]\n")
            .model_file("evil", "model.toml", "")
            .model_file("evil", "chat_template.jinja", &late)
            .start();
        serves(&daemon, "evil");
        let failed = daemon.post(CHAT, &chat("evil", "boom", json!({})));
        let code = failed.error_code();
        assert!(
            [
                "chat_template_failed",
                "chat_template_broken",
                "deadline_exceeded"
            ]
            .contains(&&*code),
            "{name}: {}",
            failed.body
        );
        assert!(failed.status >= 500, "{name}: not the client's fault");
        serves(&daemon, "evil");
        serves(&daemon, "good");
        ends_at_once(daemon);
    }
}

/// A folder that hangs when it is read cannot be made here without a file system of one's own; a reader
/// that is stopped is as silent.
#[test]
fn a_reader_that_hangs_is_ended_and_its_request_told() {
    let daemon = setup().start();
    serves(&daemon, "good");
    let [reader] = readers(daemon.pid())[..] else {
        panic!("{:?}", readers(daemon.pid()))
    };
    let _stopped = crate::daemon_support::stop(reader);
    let late = daemon.post(CHAT, &chat("good", "x", json!({})));
    assert_eq!(
        (late.status, &*late.error_code()),
        (503, "deadline_exceeded"),
        "{}",
        late.body
    );
    serves(&daemon, "good");
    let metrics = daemon.get("/metrics").body;
    for line in [
        "rkllmd_deadlines_passed_total{deadline=\"reader-call\"} 1",
        "rkllmd_readers_abandoned 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let held = metrics
        .lines()
        .find_map(|line| line.strip_prefix("rkllmd_reader_memory_bytes{model=\"good\"} "))
        .expect("the reader's memory");
    assert!(held.parse::<u64>().unwrap() > 100_000, "{held}");
}

/// The kernel ends a reader in the middle of a request once its CPU time is used up, so it ends by itself
/// between two requests before that.
#[test]
fn a_reader_that_has_worked_for_long_is_replaced_and_no_request_lost() {
    let busy =
        "{% for i in range(200) %}{% set x = ('ab' * 50000)|replace('a', 'b') %}{% endfor %}ok";
    let daemon = Setup::new()
        .scenario("busy", "tokens = [\"x\"]\n")
        .model_file("busy", "model.toml", "")
        .model_file("busy", "chat_template.jinja", busy)
        .settings("reader.cpu-limit = \"10s\"")
        // Its template is rendered dozens of times where its form is looked for, and beside what else is tested.
        .settings("deadlines.reader-open = \"60s\"\ndeadlines.reader-call = \"5s\"")
        .start();
    let body = json!({"model": "busy", "messages": [{"role": "user", "content": "x"}]});
    let mut worked: Option<(u32, f64)> = None;
    for round in 0..2000 {
        let prompt = daemon.post("/apply-template", &body);
        assert_eq!(prompt.status, 200, "{round}: {}", prompt.body);
        let now = readers(daemon.pid());
        match worked {
            Some((first, seconds)) if !now.contains(&first) => {
                assert!((3.0..10.0).contains(&seconds), "{round}: {seconds} s");
                return;
            }
            _ => {
                let used = now.first().map(|&reader| (reader, cpu_seconds(reader)));
                // One that is gone since has no time.
                worked = used.filter(|(_, seconds)| *seconds > 0.0).or(worked);
            }
        }
    }
    panic!("still the same reader: {worked:?}");
}

/// What a process has used, 0 once it is gone.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks: u64 = stat
        .rsplit_once(") ")
        .into_iter()
        .flat_map(|(_, rest)| rest.split(' ').skip(11).take(2))
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[test]
fn two_hostile_models_leave_a_place_to_the_others() {
    let (_, hang) = HOSTILE[8];
    let late = format!("{{% if messages[0].content == 'boom' %}}{hang}{{% endif %}}ok");
    let mut setup = Setup::new()
        .scenario("good", "tokens = [\"fine\"]\n")
        .settings("deadlines.reader-call = \"4s\"");
    for name in ["evil1", "evil2"] {
        setup = setup
            .scenario(name, "tokens = [\"x\"]\n")
            .model_file(name, "model.toml", "")
            .model_file(name, "chat_template.jinja", &late);
    }
    let daemon = setup.start();
    let prompt = |model: &str, text: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": text}]});
        daemon.post("/apply-template", &body)
    };
    assert_eq!(prompt("good", "x").status, 200);
    std::thread::scope(|scope| {
        for name in ["evil1", "evil2", "evil1", "evil2"] {
            scope.spawn(move || assert!(prompt(name, "boom").status >= 500, "{name}"));
        }
        eventually("a hostile template at work", || {
            (readers(daemon.pid()).len() == 2).then_some(())
        });
        for _ in 0..10 {
            let began = Instant::now();
            let answer = prompt("good", "x");
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert!(began.elapsed() < Duration::from_secs(2));
        }
    });
}

/// A frozen process outlives SIGKILL, as one does that waits for a disk that is gone.
#[test]
fn readers_that_cannot_be_ended_are_abandoned_and_bounded() {
    let daemon = setup().settings("deadlines.kill = \"200ms\"").start();
    let abandoned = || {
        let metrics = daemon.get("/metrics").body;
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("rkllmd_readers_abandoned "));
        count
            .expect("the count")
            .parse::<usize>()
            .expect("a number")
    };
    // Dropped before the daemon, whose end waits for its children.
    let freezer = Freezer::new();
    let mut frozen: Vec<u32> = Vec::new();
    for count in 1..=4 {
        serves(&daemon, "good");
        let running = readers(daemon.pid());
        let new = running.iter().find(|pid| !frozen.contains(pid));
        let new = *new.expect("a reader that runs");
        freezer.freeze(new);
        frozen.push(new);
        let late = daemon.post(CHAT, &chat("good", "x", json!({})));
        assert_eq!(late.error_code(), "deadline_exceeded", "{}", late.body);
        eventually("an abandoned reader", || {
            (abandoned() == count).then_some(())
        });
    }
    let refused = daemon.post(CHAT, &chat("good", "x", json!({})));
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (503, "reader_unavailable"),
        "{}",
        refused.body
    );
    drop(freezer);
    eventually("the end of all of them", || {
        (abandoned() == 0).then_some(())
    });
    serves(&daemon, "good");
}

#[test]
fn no_more_readers_run_than_may() {
    let mut setup = setup();
    for n in 0..6 {
        setup = setup.scenario(&format!("m{n}"), "tokens = [\"x\"]\n");
    }
    let daemon = setup.start();
    for round in 0..3 {
        for n in 0..6 {
            let body =
                json!({"model": format!("m{n}"), "messages": [{"role": "user", "content": "x"}]});
            let prompt = daemon.post("/apply-template", &body);
            assert_eq!(prompt.status, 200, "{round}: {}", prompt.body);
            let found = readers(daemon.pid());
            assert!(found.len() <= 2, "{found:?}");
        }
    }
}

#[test]
fn the_sandbox_holds_here() {
    let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .arg("reader-self-test")
        .output()
        .expect("rkllmd");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("Seccomp: 2") && text.contains("exec: Operation not permitted"),
        "{text}"
    );
}
