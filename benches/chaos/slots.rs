//! A model with eight slots: a kill takes eight answers at once, and each of them goes on byte for byte.
//! In every other round one of the eight is a prompt that ends its worker: it alone is refused.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::daemon_support::{Answer, Daemon, Setup, chat, kill};
use crate::plan::Plan;
use crate::report::{Report, Target};

const MODEL: &str = "slots";
const SLOTS: usize = 8;
const WORDS: usize = 400;
/// Of the time that a crowd and injuries take in all.
const SHARE: u32 = 6;
const POISON: &str = "poison";

pub fn measure(report: &mut Report, plan: Plan) {
    report.section(
        "slots",
        "a model with eight slots: kills take eight answers at once",
    );
    let daemon = start();
    let mut decisions = plan.decisions("slots");
    let until = Instant::now() + plan.load / SHARE;
    let mut found = Found::default();
    let mut with_poison = false;
    // At least one round of each kind.
    while Instant::now() < until || found.rounds < 2 {
        let after_words = decisions.usize(1..WORDS / 4);
        round(
            &daemon,
            with_poison.then_some(POISON),
            after_words,
            &mut found,
        );
        with_poison = !with_poison;
        found.rounds += 1;
    }
    report.figure("rounds", "rounds", found.rounds as f64, "");
    report.promise(
        "least_interrupted",
        "answers that a kill took, at least",
        (found.least_interrupted as f64, ""),
        Target::AtLeast(SLOTS as f64),
    );
    report.promise(
        "differing",
        "answers that are not whole, byte for byte",
        (found.differing.len() as f64, ""),
        Target::AtMost(0.0),
    );
    report.promise(
        "poison_served",
        "poison that was not refused as such",
        (found.poison_served.len() as f64, ""),
        Target::AtMost(0.0),
    );
    for finding in found.differing.iter().chain(&found.poison_served).take(5) {
        report.note(finding);
    }
}

fn start() -> Daemon {
    let answers: String = (0..SLOTS)
        .map(|number| {
            let tokens: String = words(number).map(|word| format!("{word:?}, ")).collect();
            let mark = prompt(number);
            format!("[[answer]]\nwhen-prompt-contains = {mark:?}\ntokens = [{tokens}]\n")
        })
        .collect();
    let scenario = format!(
        "continue-answers = true\ntoken-delay-us = 2000\n\
         repeat = {{ token = \"w \", times = 40 }}\n{answers}\
         [[fault]]\ncall = \"run\"\nkind = \"segv\"\nafter-tokens = 3\n\
         when-prompt-contains = {POISON:?}\n"
    );
    let manifest = format!("template = \"chatml\"\nparallel = {SLOTS}\n");
    Setup::new()
        .settings("recovery.backoff-first = \"1ms\"\nrecovery.backoff-longest = \"10ms\"")
        .scenario(MODEL, &scenario)
        .model_file(MODEL, "model.toml", &manifest)
        .start()
}

fn prompt(number: usize) -> String {
    format!("Tell me s{number}.")
}

fn words(number: usize) -> impl Iterator<Item = String> {
    (0..WORDS).map(move |place| format!("s{number}/{place} "))
}

#[derive(Default)]
struct Found {
    rounds: usize,
    least_interrupted: usize,
    differing: Vec<String>,
    poison_served: Vec<String>,
}

/// One answer in each slot, or poison in one of them; the worker is killed when each answer has so many
/// words, where no poison does that.
fn round(daemon: &Daemon, poison: Option<&str>, after_words: usize, found: &mut Found) {
    let innocents = SLOTS - usize::from(poison.is_some());
    let (begun, told) = channel();
    let (read, refused) = thread::scope(|scope| {
        let readers: Vec<_> = (0..innocents)
            .map(|number| {
                let begun = begun.clone();
                scope.spawn(move || {
                    read(daemon, number, after_words, || {
                        // Told to a round that may have stopped listening.
                        let _ = begun.send(());
                    })
                })
            })
            .collect();
        drop(begun);
        let poison = poison.map(|poison| {
            let body = chat(MODEL, poison, json!({}));
            scope.spawn(move || daemon.post("/v1/chat/completions", &body))
        });
        if poison.is_none() {
            let all = told.iter().take(innocents).count();
            if all == innocents {
                kill(daemon.worker_pid());
            }
        }
        let read: Vec<Read> = readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader does not panic"))
            .collect();
        let refused = poison.map(|poison| poison.join().expect("a client does not panic"));
        (read, refused)
    });
    for (number, read) in read.iter().enumerate() {
        if read.text != words(number).collect::<String>() {
            found.differing.push(format!("s{number}: {:?}", read.text));
        }
    }
    match refused {
        Some(answer) if !is_refused(&answer) => found.poison_served.push(answer.body),
        Some(_) => {}
        None => {
            let interrupted = read.iter().filter(|read| read.resumptions > 0).count();
            found.least_interrupted = match found.rounds {
                0 => interrupted,
                _ => found.least_interrupted.min(interrupted),
            };
        }
    }
}

fn is_refused(answer: &Answer) -> bool {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["error"]["code"] == crate::deaths::POISON_CODE
}

struct Read {
    text: String,
    resumptions: u64,
}

/// Reads a whole answer; `begun` is told when it has so many words.
fn read(daemon: &Daemon, number: usize, after_words: usize, begun: impl Fn()) -> Read {
    let body = chat(MODEL, &prompt(number), json!({"stream": true}));
    let mut events = daemon.stream("/v1/chat/completions", &body);
    let mut read = Read {
        text: String::new(),
        resumptions: 0,
    };
    let mut seen = 0;
    while let Some(data) = events.next_data().filter(|data| data != "[DONE]") {
        let chunk: Value = serde_json::from_str(&data).unwrap_or_default();
        let text = chunk["choices"][0]["delta"]["content"].as_str();
        read.text += text.unwrap_or_default();
        let resumptions = chunk["timings"]["resumptions"].as_u64();
        read.resumptions = resumptions.unwrap_or(read.resumptions);
        if text.is_some_and(|text| !text.is_empty()) {
            seen += 1;
            if seen == after_words {
                begun();
            }
        }
    }
    read
}
