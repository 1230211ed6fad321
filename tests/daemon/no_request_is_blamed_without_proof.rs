//! A request that kills workers, or is refused, is blamed only when the model serves a short prompt
//! of the daemon's own: what a model's files or its library cause is the model's fault.

use std::io::Read;
use std::net::TcpStream;

use crate::daemon_support::{Daemon, FAMILIES_RUN, Setup, chat, eventually};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

const SETTINGS: &str = r#"
deadlines.prefill-base = "1500ms"
deadlines.prefill-per-token = "1ms"
deadlines.inter-token = "1s"
deadlines.control-call = "1s"
deadlines.abort-to-finish = "1s"
"#;

/// A model that answers with eight tokens, unless `fault` says otherwise.
fn start(family: &str, fault: &str) -> Daemon {
    let scenario =
        format!("repeat = {{ token = \"w \", times = 8 }}\n[[fault]]\ncall = \"run\"\n{fault}\n");
    Setup::with_family(family)
        .settings(SETTINGS)
        .scenario("m", &scenario)
        .start()
}

/// Status and code of the answer to a prompt.
fn refusal(daemon: &Daemon, path: &str, body: &Value) -> (u16, String) {
    let answer = daemon.post(path, body);
    assert!(answer.status >= 400, "{}", answer.body);
    (answer.status, answer.error_code())
}

#[test]
fn a_model_that_kills_its_workers_at_every_prompt_is_to_blame() {
    for (family, fault) in FAMILIES_RUN
        .map(|family| (family, "kind = \"segv\""))
        .into_iter()
        .chain([
            ("1_3_1", "in-prefill = true\nkind = \"abort\""),
            ("1_3_1", "kind = \"exit\""),
            ("1_3_1", "kind = \"hang\""),
            // Few of these tokens are seen before the worker dies.
            ("1_3_1", "after-tokens = 5\nkind = \"segv\""),
        ])
    {
        let daemon = start(family, fault);
        let blamed = refusal(&daemon, CHAT, &chat("m", "a prompt", json!({})));
        assert_eq!(blamed, (503, "model_failed".to_owned()), "{family} {fault}");
    }
}

#[test]
fn a_prompt_that_kills_the_workers_of_a_model_that_serves_others_is_to_blame() {
    for fault in ["kind = \"segv\"", "after-tokens = 5\nkind = \"abort\""] {
        let fault = format!("when-prompt-contains = \"poison\"\n{fault}");
        let daemon = start("1_3_1", &fault);
        let blamed = refusal(&daemon, CHAT, &chat("m", "poison", json!({})));
        assert_eq!(blamed, (422, "poison_request".to_owned()), "{fault}");
        // On the worker that was probed.
        let calm = daemon.post(CHAT, &chat("m", "x", json!({})));
        assert_eq!(calm.content(), "w ".repeat(8), "{fault}");
        let metrics = daemon.get("/metrics").body;
        let crashes = metrics
            .lines()
            .filter(|line| line.starts_with("rkllmd_worker_exits_total{model=\"m\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>();
        assert_eq!(crashes, 2.0, "{metrics}");
    }
}

#[test]
fn a_model_that_refuses_every_prompt_is_to_blame() {
    for family in FAMILIES_RUN {
        let daemon = start(family, "kind = \"fail\"");
        for _ in 0..2 {
            let blamed = refusal(&daemon, CHAT, &chat("m", "a prompt", json!({})));
            assert_eq!(blamed, (503, "run_refused".to_owned()), "{family}");
        }
    }
}

#[test]
fn a_success_of_long_ago_does_not_speak_against_a_request() {
    let fault = "occasion = 1\nkind = \"delay\"\nms = 1\n\
        [[fault]]\ncall = \"run\"\noccasion = 2\nkind = \"fail\"\n\
        [[fault]]\ncall = \"run\"\noccasion = 3\nkind = \"fail\"";
    let daemon = start("1_3_1", fault);
    let first = daemon.post(CHAT, &chat("m", "x", json!({})));
    assert_eq!(first.status, 200, "{}", first.body);
    let blamed = refusal(&daemon, CHAT, &chat("m", "x", json!({})));
    assert_eq!(blamed, (503, "run_refused".to_owned()));
}

#[test]
fn inputs_of_embeddings_are_blamed_in_the_same_way() {
    let body = json!({"model": "m", "input": ["fine", "fault"]});
    for (fault, everybody, only_this) in [
        (
            "kind = \"segv\"",
            (503, "model_failed"),
            (422, "poison_request"),
        ),
        (
            "kind = \"fail\"",
            (503, "run_refused"),
            (400, "run_refused"),
        ),
    ] {
        let daemon = start("1_3_1", fault);
        let (status, code) = refusal(&daemon, EMBEDDINGS, &body);
        assert_eq!((status, &*code), everybody);

        let fault = format!("when-prompt-contains = \"fault\"\n{fault}");
        let daemon = start("1_3_1", &fault);
        let (status, code) = refusal(&daemon, EMBEDDINGS, &body);
        assert_eq!((status, &*code), only_this);
        let fine = daemon.post(EMBEDDINGS, &json!({"model": "m", "input": "fine"}));
        assert_eq!(fine.status, 200, "{}", fine.body);
    }
}

/// A model whose probe takes an hour, and that is asked for it soon. No deadline of the run's own would
/// end that.
fn start_with_a_long_probe(settings: &str) -> Daemon {
    let scenario = "tokens = [\"w\"]\n\
        [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"poison\"\nkind = \"segv\"\n\
        [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"Hello\"\nkind = \"delay\"\nms = 3600000";
    Setup::new()
        .settings(&format!(
            "recovery.backoff-first = \"1ms\"\ndeadlines.prefill-base = \"2h\"\n\
             deadlines.inter-token = \"2h\"\ndeadlines.abort-to-finish = \"1s\"\n{settings}"
        ))
        .scenario("m", scenario)
        .start()
}

/// Sends the request, and gives its connection once its model is probed.
fn probed(daemon: &Daemon, fields: Value) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address).expect("listening");
    let body = chat("m", "poison", fields);
    crate::daemon_support::send(&mut stream, "POST", CHAT, Some(&body)).expect("it is sent");
    daemon.log.wait_for("probing a model");
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn wait_for_no_run(daemon: &Daemon) {
    eventually("the probe's worker to be idle or gone", || {
        matches!(&*daemon.phase("m"), "ready" | "unloaded").then_some(())
    });
}

#[test]
fn a_probe_ends_with_the_deadline_of_the_request_that_it_is_for() {
    let daemon = start_with_a_long_probe("");
    let stream = probed(&daemon, json!({"total_deadline_ms": 15_000}));
    let late = answer(stream);
    assert!(late.contains("deadline_exceeded"), "{late}");
    wait_for_no_run(&daemon);
}

#[test]
fn a_probe_ends_with_the_client_that_it_is_for() {
    let daemon = start_with_a_long_probe("");
    drop(probed(&daemon, json!({})));
    wait_for_no_run(&daemon);
}

#[test]
fn a_probe_does_not_hold_the_end_of_the_daemon_up() {
    let daemon = start_with_a_long_probe("deadlines.drain = \"2s\"");
    let stream = probed(&daemon, json!({}));
    daemon.signal(rustix::process::Signal::TERM);
    let ended = answer(stream);
    assert!(ended.contains("shutting_down"), "{ended}");
    assert!(daemon.wait().success());
}
