//! A seeded answer that is to be deterministic is the same beside others, behind others and although its worker
//! dies; where that is not so, its fingerprint says so.

use crate::daemon_support::{Daemon, EventStream, Setup, chat, kill};
use crate::tiny_models::with_tiny_models;
use serde_json::{Value, json};

const MODEL: &str = "smollm2";
const CHAT: &str = "/v1/chat/completions";
const SLOTS: usize = 4;

fn setup() -> Setup {
    Setup::new()
        .demo_model(MODEL)
        .settings(&format!("models.parallel = {SLOTS}"))
}

fn asked(more: Value) -> Value {
    let mut body = chat(MODEL, "Invent a name for a boat, and tell of it.", more);
    body.as_object_mut().expect("an object").extend(
        json!({"temperature": 1.2, "seed": 42, "max_tokens": 40})
            .as_object()
            .expect("another")
            .clone(),
    );
    body
}

fn say(daemon: &Daemon, body: &Value) -> (String, String) {
    let answer = daemon.post(CHAT, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    let fingerprint = answer.json()["system_fingerprint"].clone();
    let fingerprint = fingerprint.as_str().expect("a fingerprint").to_owned();
    (answer.content(), fingerprint)
}

/// What a stream says whose worker dies after so many pieces, and its last chunk.
fn say_and_die(daemon: &Daemon, body: &Value, dies_at: usize) -> (String, Value) {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let mut stream = daemon.stream(CHAT, &body);
    assert_eq!(stream.status, 200);
    let (mut text, mut pieces) = (String::new(), 0);
    let (mut last, mut usage) = (Value::Null, Value::Null);
    while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
        let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
        assert!(chunk.get("error").is_none(), "{chunk}");
        if chunk["choices"] == json!([]) {
            usage = chunk;
            continue;
        }
        let piece = chunk["choices"][0]["delta"]["content"].as_str();
        text.push_str(piece.unwrap_or_default());
        pieces += usize::from(piece.is_some_and(|piece| !piece.is_empty()));
        if pieces == dies_at {
            kill(daemon.worker_pid());
            pieces += 1;
        }
        last = chunk;
    }
    assert_eq!(last["timings"]["resumptions"], 1, "{last}");
    assert_eq!(usage["system_fingerprint"], last["system_fingerprint"]);
    (text, last)
}

/// Answers that are made all the while.
fn others(daemon: &Daemon) -> Vec<EventStream> {
    let begin = |number: usize| {
        let more = json!({"stream": true, "max_tokens": 1500, "ignore_eos": true});
        let body = chat(MODEL, &format!("Tell a long story, number {number}."), more);
        let mut stream = daemon.stream(CHAT, &body);
        stream.next_content().expect("it has begun");
        stream
    };
    (1..SLOTS).map(begin).collect()
}

#[test]
fn the_real_model_says_the_same_beside_others_and_although_it_dies() {
    let daemon = setup().all_threads().start();
    let body = asked(json!({"deterministic": true}));
    let (alone, fingerprint) = say(&daemon, &body);
    assert!(
        fingerprint.starts_with("fp_") && !fingerprint.contains('-'),
        "{fingerprint}"
    );
    let beside = others(&daemon);
    for _ in 0..2 {
        assert_eq!(say(&daemon, &body), (alone.clone(), fingerprint.clone()));
    }
    drop(beside);
    for dies_at in [1, 12] {
        let (text, last) = say_and_die(&daemon, &body, dies_at);
        assert_eq!(text, alone);
        assert_eq!(last["system_fingerprint"], *fingerprint, "{last}");
    }
    // Behind an answer whose cells are there, as behind one that another worker reads.
    let mut longer = body.clone();
    let messages = longer["messages"].as_array_mut().expect("messages");
    messages.push(json!({"role": "assistant", "content": alone}));
    messages.push(json!({"role": "user", "content": "And who sails it?"}));
    say(&daemon, &body);
    let (behind, _) = say(&daemon, &longer);
    kill(daemon.worker_pid());
    assert_eq!(say(&daemon, &longer).0, behind);
}

#[test]
fn an_answer_that_may_vary_says_so() {
    let daemon = setup().start();
    let (_, fingerprint) = say(&daemon, &asked(json!({})));
    let known = fingerprint
        .strip_suffix(&format!("-slots{SLOTS}-varies"))
        .expect("several slots compute together");
    let (_, last) = say_and_die(&daemon, &asked(json!({})), 6);
    assert_eq!(
        last["system_fingerprint"],
        format!("{known}-slots{SLOTS}-resumed"),
        "{last}"
    );
}

#[test]
fn of_how_many_slots_matters_only_to_what_may_vary() {
    let told = |slots: usize| {
        let parallel = format!("models.parallel = {slots}");
        let setup = with_tiny_models(Setup::new(), &[("tiny", Vec::new())]);
        let daemon = setup.settings(&parallel).start();
        [true, false].map(|deterministic| {
            let more = json!({"seed": 1, "max_tokens": 4, "deterministic": deterministic});
            let answer = daemon.post(CHAT, &chat("tiny", "Go.", more));
            assert_eq!(answer.status, 200, "{}", answer.body);
            let told = answer.json()["system_fingerprint"].clone();
            let told = told.as_str().expect("a fingerprint").to_owned();
            // The files lie in folders of their own, so what stands before differs.
            told.split_once('-')
                .map(|(_, more)| more.to_owned())
                .unwrap_or_default()
        })
    };
    assert_eq!(told(1), ["", "slots1-varies"]);
    assert_eq!(told(2), ["", "slots2-varies"]);
}

#[test]
fn an_answer_beside_a_budget_of_thoughts_may_vary() {
    let daemon = with_tiny_models(Setup::new(), &[("tiny", Vec::new())]).start();
    for (budget, not_applied) in [(None, None), (Some(5), Some("deterministic"))] {
        let mut more = json!({"seed": 1, "deterministic": true, "max_tokens": 8});
        if let Some(tokens) = budget {
            more["thinking_budget_tokens"] = json!(tokens);
        }
        let answer = daemon.post(CHAT, &chat("tiny", "Go.", more));
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("x-rkllmd-not-applied"), not_applied);
        let fingerprint = answer.json()["system_fingerprint"].clone();
        let fingerprint = fingerprint.as_str().expect("a fingerprint");
        let one_slot = fingerprint.ends_with("-slots1-varies");
        assert_eq!(one_slot, not_applied.is_some(), "{fingerprint}");
    }
}

#[test]
fn a_runtime_that_draws_as_it_likes_says_so() {
    let daemon = Setup::new().scenario("npu", "tokens = [\"a\"]\n").start();
    let more = json!({"seed": 1, "deterministic": true});
    let answer = daemon.post(CHAT, &chat("npu", "Go.", more));
    assert_eq!(
        answer.header("x-rkllmd-not-applied"),
        Some("seed, deterministic")
    );
    let fingerprint = answer.json()["system_fingerprint"].clone();
    assert!(
        fingerprint
            .as_str()
            .is_some_and(|it| it.ends_with("-varies")),
        "{fingerprint}"
    );
}
