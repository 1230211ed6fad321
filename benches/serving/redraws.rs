//! What it costs to keep answers to a format on a library that has no hook, as the vendor's has none: by drawing
//! again what may not come. On the CPU runtime without what the vendor's library lacks, beside itself as it is:
//! a prompt that the model would answer in the format anyway, one that it would not, and the second in a chat
//! that tells it of the format. Each free, kept with a hook, and kept without in each of the ways that there are,
//! in turns. Then whether answers to many schemas are right. Rounds and schemas for which there is no time are left
//! out, and said.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon_support::{Daemon, Setup, built_library, chat, completion, demo_model};
use crate::formats::{self, MODEL};
use crate::json_judge::fault;
use crate::report::{Report, Target};
use crate::statistics::median;
use crate::tokenizers_of_gguf::tokenizer_json;

/// What is compared: free, with a hook, and each way without.
const COMPARED: usize = 2 + WAYS.len();
/// So many, so that each comes first once, and last once.
const ROUNDS: usize = COMPARED;
const TOKENS: u32 = 48;
/// The speed of an answer that ends early says little.
const LEAST_TOKENS: f64 = 24.0;
const STORY: &str = "Tell a long story of many things.";
/// No further round of a case begins behind it.
const CASE_LIMIT: Duration = Duration::from_secs(60);
/// No further schema is asked for behind it: several times what two cores need for all.
const SCHEMAS_LIMIT: Duration = Duration::from_secs(600);
/// Daemons that are asked for schemas, with one compute thread each.
const MOST_BESIDE_EACH_OTHER: usize = 4;

/// A prompt and a format.
struct Case {
    key: &'static str,
    path: &'static str,
    body: fn() -> Value,
    /// The field that asks for the format.
    format: fn() -> (&'static str, Value),
}

const CASES: [Case; 3] = [
    Case {
        key: "obedient",
        path: "/v1/completions",
        body: || completion(MODEL, "Counting: 1, 2, 3, 4, 5, 6, 7, 8,", json!({})),
        // It may not end before it has `LEAST_TOKENS`.
        format: || ("guided_regex", json!("( [0-9]+,){12,}")),
    },
    Case {
        key: "disobedient",
        path: "/v1/completions",
        body: || completion(MODEL, STORY, json!({})),
        format: || ("guided_json", formats::long(0)),
    },
    Case {
        key: "told",
        path: "/v1/chat/completions",
        body: || chat(MODEL, STORY, json!({})),
        format: || ("guided_json", formats::long(0)),
    },
];

/// Ways to keep an answer without a hook, as `constraints.redraw-runs` names them.
const WAYS: [&str; 3] = ["measured", "tokens", "logits"];

pub fn measure(report: &mut Report) {
    report.section(
        "redraws",
        "answers kept to a format by a library that has no hook",
    );
    let hooked = installed().start();
    let redrawn = WAYS.map(|runs| without_a_hook(runs).start());
    for case in &CASES {
        speeds(report, case, &hooked, &redrawn);
    }
    drop((hooked, redrawn));
    let mut schemas = formats::schemas();
    // Where there is no time for all, there is for some of either kind.
    fastrand::Rng::with_seed(15).shuffle(&mut schemas);
    answers(report, &schemas);
}

/// With the same tokens and settings, so that the hook alone differs.
fn installed() -> Setup {
    let library = built_library("rkllm_cpu").display().to_string();
    let tokenizer = tokenizer_json(&demo_model(), true);
    Setup::new()
        .demo_model_again(MODEL)
        .model_file(MODEL, "tokenizer.json", &tokenizer)
        .settings(&format!("runtime.cpu-library = {library:?}"))
        .settings("chat.raw-completions = true")
        .settings("constraints.max-redraws = 2000")
        .settings("constraints.max-redraws-without-reuse = 2000")
}

fn without_a_hook(runs: &str) -> Setup {
    const VARIABLE: &str = "RKLLM_CPU_VENDOR_ONLY";
    installed()
        .environment(VARIABLE, "1")
        .settings(&format!("runtime.pass-environment = [{VARIABLE:?}]"))
        .settings(&format!("constraints.redraw-runs = {runs:?}"))
}

/// What is asked for. `None`: it could not be kept to its format, which is told.
fn asked(daemon: &Daemon, path: &str, body: &Value) -> Option<Value> {
    let answer = daemon.post(path, body);
    if answer.status == 422 && answer.error_code() == "format_not_kept" {
        return None;
    }
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    Some(answer.json())
}

/// The speed of a whole answer. `None`: it ended early.
fn rate(daemon: &Daemon, case: &Case, number: usize, is_kept: bool) -> Option<f64> {
    let mut body = (case.body)();
    body["temperature"] = json!(1);
    // Without a hook a format is kept without penalties.
    body["repeat_penalty"] = json!(1);
    body["seed"] = json!(number);
    body["max_tokens"] = json!(TOKENS);
    if is_kept {
        let (field, format) = (case.format)();
        body[field] = format;
    }
    let asked_at = Instant::now();
    let answer = asked(daemon, case.path, &body)?;
    let took = asked_at.elapsed().as_secs_f64();
    let tokens = answer["usage"]["completion_tokens"].as_f64();
    tokens
        .filter(|tokens| *tokens >= LEAST_TOKENS)
        .map(|tokens| tokens / took)
}

fn metric(daemon: &Daemon, name: &str) -> f64 {
    let page = daemon.get("/metrics").body;
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

const COUNTED: [(&str, &str); 4] = [
    ("redraws", "rkllmd_redraws_total"),
    ("wasted_tokens", "rkllmd_redraw_wasted_tokens_total"),
    ("evaluated_tokens", "rkllmd_redraw_prompt_tokens_total"),
    ("logits_runs", "rkllmd_redraw_logits_runs_total"),
];

/// What drawing again has cost so far.
fn costs(daemon: &Daemon) -> [f64; COUNTED.len()] {
    COUNTED.map(|(_, name)| metric(daemon, name))
}

/// Rates of one round.
type Round = [Option<f64>; COMPARED];

fn speeds(report: &mut Report, case: &Case, hooked: &Daemon, redrawn: &[Daemon; WAYS.len()]) {
    let [free, ..] = redrawn;
    let asks: Vec<(&Daemon, bool)> = [(free, false), (hooked, true)]
        .into_iter()
        .chain(redrawn.iter().map(|daemon| (daemon, true)))
        .collect();
    // Loads the models, and makes the format known to all.
    for (daemon, is_kept) in &asks {
        rate(daemon, case, 0, *is_kept);
    }
    let before = redrawn.each_ref().map(costs);
    let begun_at = Instant::now();
    let mut rounds: Vec<Round> = Vec::new();
    while rounds.len() < ROUNDS && (rounds.is_empty() || begun_at.elapsed() < CASE_LIMIT) {
        let number = 1 + rounds.len();
        let mut round = Round::default();
        for at in 0..asks.len() {
            let at = (at + number) % asks.len();
            let (daemon, is_kept) = asks[at];
            round[at] = rate(daemon, case, number, is_kept);
        }
        rounds.push(round);
    }
    if rounds.len() < ROUNDS {
        let made = rounds.len();
        let text = format!(
            "{}: {made} of {ROUNDS} rounds, for more there was no time",
            case.key
        );
        report.note(text);
    }
    let of = |which: usize| {
        let rates: Vec<f64> = rounds.iter().filter_map(|round| round[which]).collect();
        (!rates.is_empty()).then(|| median(rates))
    };
    let ways = WAYS.map(|runs| (runs, format!("kept by runs of \"{runs}\"")));
    let figures = [("free", "free"), ("hooked", "kept with a hook")]
        .map(|(key, label)| (key, label.to_owned()))
        .into_iter()
        .chain(ways);
    for (at, (key, label)) in figures.enumerate() {
        let label = format!("{}, {label}", case.key);
        match of(at) {
            Some(rate) => report.figure(&format!("{}_{key}", case.key), label, rate, "tokens/s"),
            None => report.note(format!("{label}: no answer was long enough")),
        }
    }
    for (at, runs) in WAYS.iter().enumerate() {
        let key = |name: &str| format!("{}_{runs}_{name}", case.key);
        let label = |what: &str| format!("{}, {runs}: {what}", case.key);
        if let (Some(free), Some(kept)) = (of(0), of(2 + at)) {
            report.figure(&key("ratio"), label("part of the free"), kept / free, "");
        }
        let after = costs(&redrawn[at]);
        for (which, (name, _)) in COUNTED.iter().enumerate() {
            let of_an_answer = (after[which] - before[at][which]) / rounds.len() as f64;
            let what = format!("{} an answer", name.replace('_', " "));
            report.figure(&key(name), label(&what), of_an_answer, "");
        }
    }
}

/// What came of schemas.
#[derive(Clone, Copy, Default)]
struct Outcomes {
    asked: usize,
    whole: usize,
    /// Of those that are whole.
    wrong: usize,
    /// They were told to be.
    not_kept: usize,
}

/// Whether answers to many schemas are right.
fn answers(report: &mut Report, schemas: &[Value]) {
    let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let daemons: Vec<Daemon> = (0..cpus.min(MOST_BESIDE_EACH_OTHER))
        .map(|_| {
            let setup = without_a_hook("measured");
            setup.environment("RKLLM_CPU_THREADS", "1").start()
        })
        .collect();
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Outcomes::default()));
    let until = Instant::now() + SCHEMAS_LIMIT;
    thread::scope(|scope| {
        for daemon in &daemons {
            let (next, outcomes) = (&next, &outcomes);
            scope.spawn(move || {
                while Instant::now() < until {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(schema) = schemas.get(number) else {
                        break;
                    };
                    let (text, is_whole) = invented(daemon, number, schema).unzip();
                    let is_whole = is_whole == Some(true);
                    let fault = text.as_deref().and_then(|text| fault(schema, text));
                    let mut outcomes = outcomes.lock().expect("no thread has failed");
                    outcomes.asked += 1;
                    outcomes.not_kept += usize::from(text.is_none());
                    outcomes.whole += usize::from(is_whole);
                    if let (true, Some(fault)) = (is_whole, fault) {
                        outcomes.wrong += 1;
                        let text = text.unwrap_or_default();
                        eprintln!("wrong: {fault}\n  {schema}\n  {text}");
                    }
                }
            });
        }
    });
    let outcomes = *outcomes.lock().expect("no thread has failed");
    report.promise(
        "schemas",
        "schemas that were asked for within ten minutes",
        (outcomes.asked as f64, ""),
        Target::AtLeast(schemas.len() as f64),
    );
    let of_an_answer = |count: f64| count / outcomes.asked.max(1) as f64;
    report.promise(
        "whole",
        "answers to them that end within 160 tokens",
        (of_an_answer(outcomes.whole as f64), ""),
        Target::AtLeast(0.9),
    );
    report.promise(
        "wrong",
        "of these, wrong",
        (outcomes.wrong as f64, ""),
        Target::AtMost(0.0),
    );
    report.figure(
        "not_kept",
        "answers that were told not to be kept",
        outcomes.not_kept as f64,
        "",
    );
    let all: Vec<_> = daemons.iter().map(costs).collect();
    for (which, (name, _)) in COUNTED.iter().enumerate() {
        let count: f64 = all.iter().map(|costs| costs[which]).sum();
        let label = format!("{} an answer", name.replace('_', " "));
        report.figure(name, label, of_an_answer(count), "");
    }
}

/// An example of a schema, and whether it ended by itself.
fn invented(daemon: &Daemon, number: usize, schema: &Value) -> Option<(String, bool)> {
    let prompt = format!("Invent an example, number {number}.");
    let more = json!({"temperature": 1.5, "max_tokens": 160,
        "response_format": formats::format_of(schema)});
    let answer = asked(daemon, "/v1/chat/completions", &chat(MODEL, &prompt, more))?;
    let choice = &answer["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap_or_default();
    Some((text.to_owned(), choice["finish_reason"] == "stop"))
}
