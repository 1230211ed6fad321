//! How the tokens of an answer are drawn, with the real model: seeds, min-p and biases are the request's
//! own, and end with it.

use crate::daemon_support::{Daemon, Setup, chat, kill};
use serde_json::{Value, json};

const MODEL: &str = "smollm2";

fn start() -> Daemon {
    // Without a seed of the library's own.
    Setup::new()
        .demo_model(MODEL)
        .environment("RKLLM_CPU_SEED", "9")
        .settings("chat.raw-completions = true")
        .start()
}

fn say(daemon: &Daemon, prompt: &str, more: Value) -> String {
    let answer = daemon.post("/v1/chat/completions", &chat(MODEL, prompt, more));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    answer.content()
}

#[test]
fn a_seed_makes_an_answer_repeat_whatever_runs_between() {
    let daemon = start();
    let seeded = |seed: i64| {
        let more = json!({"temperature": 1.2, "max_tokens": 24, "seed": seed});
        say(&daemon, "Invent a name for a boat.", more)
    };
    let first = seeded(42);
    let others: Vec<String> = (1..=4).map(seeded).collect();
    assert!(others.iter().any(|other| *other != first), "{first}");
    say(
        &daemon,
        "Something else.",
        json!({"temperature": 2, "max_tokens": 9}),
    );
    assert_eq!(seeded(42), first);
    kill(daemon.worker_pid());
    assert_eq!(seeded(42), first, "by a fresh worker");
}

#[test]
fn an_answer_ends_no_sooner_than_it_may_and_where_it_is_to() {
    let daemon = start();
    let ask = |more: Value| {
        let mut asked = json!({"temperature": 0, "max_tokens": 60, "repeat_penalty": 1});
        asked
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("another").clone());
        let body = chat(MODEL, "Say hello.", asked);
        let answer = daemon.post("/v1/chat/completions", &body);
        assert_eq!(answer.header("x-rkllmd-not-applied"), None);
        let json = answer.json();
        let tokens = json["usage"]["completion_tokens"].as_u64().expect("tokens");
        let reason = json["choices"][0]["finish_reason"]
            .as_str()
            .expect("a reason");
        (answer.content(), reason.to_owned(), tokens)
    };
    let (text, reason, tokens) = ask(json!({}));
    assert_eq!(reason, "stop", "{text}");
    let (longer, _, made) = ask(json!({"min_tokens": tokens + 9}));
    assert!(
        made >= tokens + 9 && longer.starts_with(&text),
        "{made}: {longer}"
    );
    let (endless, reason, made) = ask(json!({"ignore_eos": true}));
    assert_eq!((reason.as_str(), made), ("length", 60), "{endless}");
    assert!(endless.starts_with(&text));
    // The token of a word in its middle ends it, and is not told.
    let asked = chat(MODEL, "Say hello.", json!({}));
    let prompt = daemon.post("/apply-template", &asked).json()["prompt"].clone();
    let asked = json!({"model": MODEL, "prompt": prompt, "temperature": 0, "repeat_penalty": 1,
        "n_predict": 60, "n_probs": 1});
    let told = daemon.post("/completion", &asked).json();
    let pieces = told["completion_probabilities"].as_array().expect("tokens");
    let last = &pieces[pieces.len() / 2];
    let before = pieces.iter().take_while(|piece| piece["id"] != last["id"]);
    let before: String = before
        .map(|piece| piece["token"].as_str().expect("text"))
        .collect();
    assert!(text.starts_with(&before), "{before}");
    let (cut, reason, _) = ask(json!({"stop_token_ids": [last["id"]]}));
    assert_eq!(
        (cut.trim_end(), reason.as_str()),
        (before.trim_end(), "stop")
    );
    // Nor does it end what has to be longer.
    let (longer, ..) = ask(json!({"stop_token_ids": [last["id"]], "min_tokens": tokens}));
    assert!(longer.len() > cut.len(), "{longer}");
}

#[test]
fn min_p_of_one_leaves_the_likeliest_token() {
    let daemon = start();
    let prompt = "Count from one to ten.";
    let greedy = say(&daemon, prompt, json!({"temperature": 0, "max_tokens": 16}));
    let more = json!({"temperature": 2, "top_p": 1, "top_k": 0, "max_tokens": 16, "min_p": 1});
    assert_eq!(say(&daemon, prompt, more), greedy);
}

#[test]
fn a_bias_forces_and_forbids_tokens() {
    let daemon = start();
    let ask = |biases: Value| {
        let more = json!({"temperature": 0, "max_tokens": 3, "logit_bias": biases});
        say(&daemon, "Say something.", more)
    };
    let free = ask(json!({}));
    let forced = ask(json!({"1000": 100}));
    let (piece, _) = forced.split_at(forced.len() / 3);
    assert_eq!(forced, piece.repeat(3), "three times the same token");
    assert_ne!(forced, free);
    // Forbidden, another token that is forced as well comes in its place.
    let other = ask(json!({"1000": -100, "2000": 100}));
    assert!(!other.contains(piece), "{other}");
    let body = chat(MODEL, "Go.", json!({"logit_bias": {"49152": 1}}));
    let refused = daemon.post("/v1/chat/completions", &body).json();
    assert_eq!(refused["error"]["param"], "logit_bias.49152", "{refused}");
}
