//! Hangs, crashes and refusals of the library end as typed errors, and the next request is served.

use crate::daemon_support::{FAMILIES_RUN, Setup, chat, eventually};
use serde_json::json;

/// Answers "fine", unless the prompt says otherwise.
fn scenario(fault: &str) -> String {
    format!("tokens = [\"fine\"]\n\n[[fault]]\nwhen-prompt-contains = \"please fail\"\n{fault}\n")
}

const SHORT_DEADLINES: &str = r#"
deadlines.prefill-base = "1500ms"
deadlines.prefill-per-token = "1ms"
deadlines.inter-token = "1s"
deadlines.control-call = "1s"
deadlines.abort-to-finish = "1s"
"#;

#[test]
fn a_fault_in_a_run_is_told_and_survived() {
    let faults = [
        ("call = \"run\"\nkind = \"segv\"", "poison_request"),
        ("call = \"run\"\nkind = \"abort\"", "poison_request"),
        ("call = \"run\"\nkind = \"ill\"", "poison_request"),
        ("call = \"run\"\nkind = \"exit\"", "poison_request"),
        ("call = \"run\"\nkind = \"hang\"", "poison_request"),
        ("call = \"run\"\nkind = \"fail\"", "run_refused"),
        ("call = \"run\"\nkind = \"error-state\"", "run_"),
    ];
    for family in FAMILIES_RUN {
        for (fault, code) in faults {
            let daemon = Setup::with_family(family)
                .settings(SHORT_DEADLINES)
                .scenario("m", &scenario(fault))
                .start();
            let failed = daemon.post("/v1/chat/completions", &chat("m", "please fail", json!({})));
            assert!(failed.status >= 400, "{family} {fault}: {}", failed.body);
            assert!(
                failed.error_code().starts_with(code),
                "{family} {fault}: {}",
                failed.body
            );
            let next = daemon.post("/v1/chat/completions", &chat("m", "hello", json!({})));
            assert_eq!(next.status, 200, "{family} {fault}: {}", next.body);
            assert_eq!(next.content(), "fine", "{family} {fault}");
        }
    }
}

#[test]
fn a_run_without_finish_still_ends() {
    for family in FAMILIES_RUN {
        let daemon = Setup::with_family(family)
            .scenario(
                "m",
                &scenario("call = \"run\"\nkind = \"never-finish\"\nafter-tokens = 1"),
            )
            .start();
        let answer = daemon.post("/v1/chat/completions", &chat("m", "please fail", json!({})));
        assert_eq!(answer.status, 200, "{family}: {}", answer.body);
        assert_eq!(answer.content(), "fine", "{family}");
    }
}

#[test]
fn a_hung_control_call_ends_the_worker_but_not_the_answer() {
    let scenario =
        "tokens = [\"fine\"]\n[[fault]]\ncall = \"get_kv_cache_size\"\nkind = \"hang\"\n";
    let daemon = Setup::new()
        .settings(SHORT_DEADLINES)
        .scenario("m", scenario)
        .start();
    for _ in 0..2 {
        let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.content(), "fine");
        assert_eq!(answer.json()["usage"], serde_json::Value::Null);
    }
}

#[test]
fn a_model_that_cannot_load_says_where_the_reason_is() {
    let scenario = "tokens = [\"x\"]\n\
        [[fault]]\ncall = \"init\"\nkind = \"print\"\ntext = \"E rkllm: failed to malloc npu memory, size: 9, flags: 0x2\"\n\
        [[fault]]\ncall = \"init\"\nkind = \"fail\"\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(
        answer.header("retry-after").is_some(),
        "{:?}",
        answer.headers
    );
    let ready = daemon.get("/v1/ready");
    assert_eq!(ready.status, 503);
    // The line itself is for the log, and for who shows a key (`refusals_have_their_paths_shape`).
    let line = "failed to malloc npu memory";
    daemon.log.wait_for(line);
    for shown in [&answer.body, &ready.body] {
        assert!(!shown.contains(line) && shown.contains("log"), "{shown}");
    }
    assert_eq!(daemon.phase("m"), "failed");
    // Both of its processes, whether their message or their end was noticed first.
    let told = "rkllmd_worker_exits_total{model=\"m\",cause=\"load-failed\"} 2";
    eventually("two ends for the same cause", || {
        let metrics = daemon.get("/metrics").body;
        metrics.lines().any(|line| line == told).then_some(())
    });
}

#[test]
fn a_library_that_is_too_old_is_named_with_what_to_install() {
    let daemon = Setup::with_family("1_1")
        .scenario("m", "tokens = [\"x\"]\n")
        .start();
    let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(
        answer.body.contains("1.1.4") && answer.body.contains("upgrade"),
        "{}",
        answer.body
    );
}

#[test]
fn a_flood_on_stdout_holds_nothing_up_and_reaches_no_client() {
    let fault = "call = \"run\"\nkind = \"flood-stdout\"\nlines = 50000";
    let daemon = Setup::new().scenario("m", &scenario(fault)).start();
    let answer = daemon.post("/v1/chat/completions", &chat("m", "please fail", json!({})));
    assert_eq!(answer.content(), "fine");
    daemon.log.wait_for("printed lines dropped");
    assert!(
        daemon.log.lines().len() < 5000,
        "{} lines logged",
        daemon.log.lines().len()
    );
}

#[test]
fn a_load_that_hangs_ends_by_its_deadline() {
    let settings =
        "deadlines.load-base = \"500ms\"\ndeadlines.load-per-gib = \"1ms\"\nmodels.max-loaded = 2";
    let scenario = |once: &str| {
        format!("tokens = [\"x\"]\n[[fault]]\ncall = \"init\"\n{once}\nkind = \"hang\"\n")
    };
    let daemon = Setup::new()
        .settings(settings)
        .scenario("once", &scenario("once = \"hung\""))
        .scenario("always", &scenario(""))
        .start();
    // A load is tried a second time before a client is told.
    let answer = daemon.post("/v1/chat/completions", &chat("once", "x", json!({})));
    assert_eq!(answer.content(), "x");
    let answer = daemon.post("/v1/chat/completions", &chat("always", "x", json!({})));
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("`load` deadline"), "{}", answer.body);
    assert!(
        answer.header("retry-after").is_some(),
        "{:?}",
        answer.headers
    );
    let metrics = daemon.get("/metrics").body;
    assert!(
        metrics.contains("rkllmd_deadlines_passed_total{deadline=\"load\"} 3"),
        "{metrics}"
    );
}

#[test]
fn a_slow_answer_outlives_every_deadline_as_long_as_tokens_come() {
    let scenario = "repeat = { token = \"w \", times = 125 }\ntoken-delay-us = 20000\n";
    for family in FAMILIES_RUN {
        let daemon = Setup::with_family(family)
            .settings(SHORT_DEADLINES)
            .scenario("m", scenario)
            .start();
        // Two and a half seconds of answer under an inter-token deadline of one.
        let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
        assert_eq!(answer.status, 200, "{family}: {}", answer.body);
        assert_eq!(answer.content(), "w ".repeat(125), "{family}");
    }
}

#[test]
fn a_hang_between_tokens_ends_by_its_deadline() {
    let scenario = "repeat = { token = \"w \", times = 100 }\ntoken-delay-us = 1000\n\
        [[fault]]\ncall = \"run\"\nafter-tokens = 5\nkind = \"hang\"\n";
    for family in FAMILIES_RUN {
        let daemon = Setup::with_family(family)
            .settings(SHORT_DEADLINES)
            .scenario("m", scenario)
            .start();
        let body = chat("m", "x", json!({"stream": true}));
        let events = daemon.stream("/v1/chat/completions", &body).collect();
        let (_, last) = events.last().expect("events");
        assert!(
            last.contains("model_failed") && last.contains("inter-token"),
            "{family}: {last}"
        );
    }
}

#[test]
fn an_abort_that_comes_late_does_not_reach_the_next_run() {
    let scenario = "tokens = [\"fine \", \"answer\"]\nprefill-delay-ms = 300\nabort-interrupts-prefill = true\n\
        [[fault]]\ncall = \"abort\"\noccasion = 1\nkind = \"delay\"\nms = 600\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let body = chat("m", "x", json!({"stream": true}));
    std::thread::scope(|scope| {
        // Leaves while its prompt is in prefill; the runtime takes the abort only after that.
        let leaver = scope.spawn(|| {
            use std::io::Write;
            let mut socket = std::net::TcpStream::connect(daemon.address).expect("connected");
            let text = body.to_string();
            write!(
                socket,
                "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            )
            .expect("sent");
            daemon.wait_for_phase("m", "running");
        });
        leaver.join().expect("the first client");
    });
    let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.content(), "fine answer");
}

#[test]
fn what_an_earlier_call_printed_does_not_explain_a_later_refusal() {
    let line = "E rkllm: the length of prompt is greater than max context (prompt: 5 tokens, max context: 3)";
    let scenario = format!(
        "tokens = [\"fine\"]\n\
         [[fault]]\ncall = \"run\"\noccasion = 1\nkind = \"print\"\ntext = \"{line}\"\n\
         [[fault]]\ncall = \"run\"\noccasion = 2\nkind = \"fail\"\n"
    );
    let daemon = Setup::new().scenario("m", &scenario).start();
    let first = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(first.content(), "fine");
    let second = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(second.error_code(), "run_refused", "{}", second.body);
}
