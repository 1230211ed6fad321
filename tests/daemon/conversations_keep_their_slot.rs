//! A request goes to the slot that holds its beginning: what is evaluated of a conversation's next turn
//! is what is new in it, however many conversations take turns.

use std::fs;
use std::thread;

use crate::daemon_support::{Daemon, Setup, completion, eventually};
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";
const WORDS: usize = 600;
/// Words of a turn that are new: what was answered, what is said now, and the first one evaluated again.
const NEW_WORDS: u64 = 8;

fn start(parallel: u8, scenario: &str) -> Daemon {
    let manifest = format!("template = \"chatml\"\nparallel = {parallel}\n");
    let scenario = format!("prefix-reuse = true\n{scenario}");
    Setup::new()
        .scenario("m", &scenario)
        .model_file("m", "model.toml", &manifest)
        .start()
}

/// A long beginning that no other one shares.
fn beginning(name: &str) -> String {
    (0..WORDS).map(|n| format!("{name}{n} ")).collect()
}

fn ask(prompt: &str) -> Value {
    completion("m", prompt, json!({"max_tokens": 3}))
}

/// The text of an answer, and how many tokens of its prompt were evaluated.
fn told(answer: &Value) -> (String, u64) {
    let text = answer["choices"][0]["text"].as_str();
    let evaluated = answer["timings"]["prompt_n"].as_u64();
    let text = text.unwrap_or_else(|| panic!("no text: {answer}"));
    (text.to_owned(), evaluated.expect("the runtime told it"))
}

#[test]
fn conversations_that_take_turns_evaluate_only_what_is_new() {
    let daemon = start(4, "tokens = [\"one \", \"two \", \"three \"]\n");
    let mut conversations = ["a", "b", "c", "d"].map(beginning);
    for round in 0..4 {
        for nth in 0..4 {
            // In another order each time.
            let conversation = &mut conversations[(nth + round) % 4];
            let answer = daemon.post(COMPLETIONS, &ask(conversation)).json();
            let (text, evaluated) = told(&answer);
            match round {
                0 => assert!(evaluated >= WORDS as u64, "{answer}"),
                _ => assert!(evaluated <= NEW_WORDS, "{evaluated} in round {round}"),
            }
            *conversation += &text;
            *conversation += "and then ";
        }
    }
    // A fifth one takes the place of that which was used least recently. That one then takes the fifth's,
    // which is the shortest, and no other is lost.
    let (_, evaluated) = told(&daemon.post(COMPLETIONS, &ask(&beginning("e"))).json());
    assert!(evaluated >= WORDS as u64);
    let again = [3, 0, 1, 2].map(|nth| {
        let answer = daemon.post(COMPLETIONS, &ask(&conversations[nth])).json();
        told(&answer).1 > NEW_WORDS
    });
    assert_eq!(again, [true, false, false, false]);
}

#[test]
fn a_slot_is_waited_for_where_that_costs_less_than_evaluating_again() {
    // A tenth of a second for a token, as far as the daemon is told.
    let daemon = start(
        2,
        "tokens = [\"one \", \"two \", \"three \"]\n[perf]\nprefill-time-ms = 60000.0\n\
         [[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\nafter-tokens = 2\n\
         when-prompt-contains = \"hold\"\n",
    );
    // Shows how long runs take here.
    told(&daemon.post(COMPLETIONS, &ask(&beginning("a"))).json());
    let shared = beginning("b");
    let mut held = daemon.stream(
        COMPLETIONS,
        &completion(
            "m",
            &format!("{shared}hold"),
            json!({"max_tokens": 3, "stream": true}),
        ),
    );
    held.next_content().expect("a token");
    let gauge = |name: &str| {
        let page = daemon.get("/metrics").body;
        let start = format!("{name}{{model=\"m\"}} ");
        page.lines()
            .find_map(|line| line.strip_prefix(&start)?.parse().ok())
            .unwrap_or(0)
    };
    thread::scope(|scope| {
        let second = scope.spawn(|| daemon.post(COMPLETIONS, &ask(&format!("{shared}more"))));
        eventually("a request that waits while a slot is free", || {
            let waits = gauge("rkllmd_queue_length") == 1;
            (waits && gauge("rkllmd_slots_in_use") == 1).then_some(())
        });
        fs::write(daemon.folder().join("models/m/go"), "").expect("a file");
        while held.next_content().is_some() {}
        let (_, evaluated) = told(&second.join().expect("an answer").json());
        assert!(evaluated <= NEW_WORDS, "{evaluated}");
    });
}
