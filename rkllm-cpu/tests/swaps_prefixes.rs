//! Conversations of about a thousand tokens that take turns over one slot of the real model: what is evaluated of a
//! turn is counted, and where a prefix holds nothing that was drawn its answer is bit for bit that of a
//! daemon that keeps none.

#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;

use daemon_support::{Daemon, Setup, completion};
use serde_json::{Value, json};

const MODEL: &str = "demo";
const COMPLETIONS: &str = "/v1/completions";
const SENTENCES: usize = 50;
const LEAST_TOKENS: u64 = 900;
/// A text is cut into other tokens where it goes on.
const CUT_OTHERWISE: u64 = 8;
/// The last tokens of a prompt are evaluated again where none behind them was drawn, so that they are rounded alike
/// (`rounding`).
const LAST_PIECE: u64 = 64 + 4;
const ANSWER: u64 = 24;
/// Tokens of two turns.
const MOST_NEW: u64 = 2 * (ANSWER + 8);

/// The one thread that tests have evaluates a prompt slowly enough for a file to be worth it on any machine.
fn start(settings: &str) -> Daemon {
    let manifest = "context-length = 2048\n";
    Setup::new()
        .settings(settings)
        .demo_model(MODEL)
        .model_file(MODEL, "model.toml", manifest)
        .start()
}

/// A beginning that no other shares.
fn beginning(name: &str) -> String {
    let sentence = |n| format!("In the year {n} the people of {name} went down to the river. ");
    (1200..1200 + SENTENCES).map(sentence).collect()
}

struct Told {
    text: String,
    prompt_tokens: u64,
    completion_tokens: u64,
    evaluated: u64,
}

fn ask(daemon: &Daemon, prompt: &str, tokens: u64) -> Told {
    let values = json!({"temperature": 0, "repeat_penalty": 1.0, "max_tokens": tokens});
    let answer = daemon.post(COMPLETIONS, &completion(MODEL, prompt, values));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = answer.json();
    let count = |name: &str| answer["usage"][name].as_u64().expect("usage");
    Told {
        text: answer["choices"][0]["text"]
            .as_str()
            .expect("a text")
            .to_owned(),
        prompt_tokens: count("prompt_tokens"),
        completion_tokens: count("completion_tokens"),
        evaluated: answer["timings"]["prompt_n"].as_u64().expect("it is told"),
    }
}

fn hits(daemon: &Daemon) -> u64 {
    let page = daemon.get("/metrics").body;
    let start = format!("rkllmd_prefix_hits_total{{model=\"{MODEL}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&start));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[test]
fn a_turn_evaluates_what_is_new_in_it() {
    let daemon = start("");
    let mut conversations = ["Aldmoor", "Brackwater"].map(|name| (beginning(name), 0));
    for round in 0..3 {
        for (text, saved) in &mut conversations {
            let told = ask(&daemon, text, ANSWER);
            match *saved {
                0 => {
                    assert!(told.evaluated >= LEAST_TOKENS, "{}", told.evaluated);
                    *saved = told.prompt_tokens + told.completion_tokens;
                }
                // A file is not written again for the few tokens of a turn.
                saved => {
                    let new = told.prompt_tokens - saved;
                    assert!(
                        told.evaluated <= new + CUT_OTHERWISE && new <= MOST_NEW,
                        "{} evaluated of {new} new in round {round}",
                        told.evaluated
                    );
                }
            }
            *text += &told.text;
            *text += " After that they";
        }
    }
    assert_eq!(hits(&daemon), 4);
}

/// What a conversation has drawn is left out of what is asked next, nothing else runs, and prompts are evaluated in
/// the same pieces.
#[test]
fn an_answer_behind_a_loaded_prefix_is_bit_for_bit_that_of_a_whole_evaluation() {
    let (daemon, without) = (start(""), start("prefixes.limit-bytes = 0\n"));
    let [one, other] = ["Aldmoor", "Brackwater"].map(beginning);
    ask(&daemon, &one, 1);
    ask(&daemon, &other, 1);
    for (nth, question) in ["What did they see there?", "The old woman said that"]
        .into_iter()
        .enumerate()
    {
        let prompt = one.clone() + question;
        let loaded = ask(&daemon, &prompt, 40);
        assert!(
            loaded.evaluated <= LAST_PIECE + 16,
            "{} of {}",
            loaded.evaluated,
            loaded.prompt_tokens
        );
        assert_eq!(hits(&daemon), nth as u64 * 2 + 1, "it was a file's");
        // Little of its prompt is in the cache.
        ask(&without, "Once upon a time", 1);
        let whole = ask(&without, &prompt, 40);
        assert!(whole.evaluated >= LEAST_TOKENS, "{}", whole.evaluated);
        assert_eq!(loaded.text, whole.text);
        ask(&daemon, &(other.clone() + question), 1);
    }
}
