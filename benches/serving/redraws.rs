//! What it costs to keep answers to a format on a library that has no hook, as the vendor's has none: by drawing
//! again what may not come. On the CPU runtime without what the vendor's library lacks, beside itself as it is:
//! a prompt that the model would answer in the format anyway, one that it would not, and the second in a chat
//! that tells it of the format. Each free, kept with a hook, and kept without in each of the ways that there are,
//! in turns; and answers to schemas of real functions.

use std::time::Instant;

use serde_json::{Value, json};

use crate::daemon_support::{Daemon, Setup, built_library, chat, completion, demo_model};
use crate::formats::{self, MODEL};
use crate::report::Report;
use crate::statistics::median;
use crate::tokenizers_of_gguf::tokenizer_json;

const ROUNDS: usize = 5;
const TOKENS: u32 = 96;
/// The speed of an answer that ends early says little.
const LEAST_TOKENS: f64 = 48.0;
const STORY: &str = "Tell a long story of many things.";

/// A prompt and a format.
struct Case {
    key: &'static str,
    label: &'static str,
    path: &'static str,
    body: fn() -> Value,
    /// The field that asks for the format.
    format: fn() -> (&'static str, Value),
}

const CASES: [Case; 3] = [
    Case {
        key: "obedient",
        label: "obedient",
        path: "/v1/completions",
        body: || completion(MODEL, "Counting: 1, 2, 3, 4, 5, 6, 7, 8,", json!({})),
        format: || ("guided_regex", json!("( [0-9]+,)+")),
    },
    Case {
        key: "disobedient",
        label: "disobedient",
        path: "/v1/completions",
        body: || completion(MODEL, STORY, json!({})),
        format: || ("guided_json", formats::long(0)),
    },
    Case {
        key: "told",
        label: "told of the format",
        path: "/v1/chat/completions",
        body: || chat(MODEL, STORY, json!({})),
        format: || ("guided_json", formats::long(0)),
    },
];

/// A way to keep an answer without a hook, as `constraints.redraw-runs` names it.
struct Way {
    runs: &'static str,
    label: &'static str,
}

const WAYS: [Way; 3] = [
    Way {
        runs: "measured",
        label: "the lesser as measured",
    },
    Way {
        runs: "tokens",
        label: "runs of tokens",
    },
    Way {
        runs: "logits",
        label: "runs of logits",
    },
];

pub fn measure(report: &mut Report) {
    report.section(
        "redraws",
        "answers kept to a format by a library that has no hook",
    );
    let hooked = installed().start();
    let redrawn = WAYS.map(|way| without_a_hook(way.runs));
    for case in &CASES {
        speeds(report, case, &hooked, &redrawn);
    }
    drop(hooked);
    let [measured, ..] = redrawn;
    formats::answers(report, &measured);
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

fn without_a_hook(runs: &str) -> Daemon {
    const VARIABLE: &str = "RKLLM_CPU_VENDOR_ONLY";
    installed()
        .environment(VARIABLE, "1")
        .settings(&format!("runtime.pass-environment = [{VARIABLE:?}]"))
        .settings(&format!("constraints.redraw-runs = {runs:?}"))
        .start()
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
    let answer = daemon.post(case.path, &body);
    let took = asked_at.elapsed().as_secs_f64();
    assert_eq!(answer.status, 200, "{}: {}", case.key, answer.body);
    let tokens = answer.json()["usage"]["completion_tokens"].as_f64();
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

/// What drawing again has cost so far.
fn costs(daemon: &Daemon) -> [f64; 4] {
    [
        "rkllmd_redraws_total",
        "rkllmd_redraw_wasted_tokens_total",
        "rkllmd_redraw_prompt_tokens_total",
        "rkllmd_redraw_logits_runs_total",
    ]
    .map(|name| metric(daemon, name))
}

const OF_AN_ANSWER: [(&str, &str); 4] = [
    ("redraws", "redraws of an answer"),
    ("wasted_tokens", "wasted tokens of an answer"),
    ("evaluated_tokens", "evaluated for an answer"),
    ("logits_runs", "runs of logits for an answer"),
];

/// Rates of one round: free, with a hook, and each way without.
type Round = [Option<f64>; 2 + WAYS.len()];

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
    let rounds: Vec<Round> = (1..=ROUNDS)
        .map(|number| {
            let mut round = Round::default();
            // Each comes first once, and last once.
            for at in 0..asks.len() {
                let at = (at + number) % asks.len();
                let (daemon, is_kept) = asks[at];
                round[at] = rate(daemon, case, number, is_kept);
            }
            round
        })
        .collect();
    let speed = "tokens/s";
    let of = |which: usize| {
        let rates: Vec<f64> = rounds.iter().filter_map(|round| round[which]).collect();
        (!rates.is_empty()).then(|| median(rates))
    };
    let figures = [("free", "free"), ("hooked", "kept with a hook")]
        .into_iter()
        .chain(WAYS.iter().map(|way| (way.runs, way.label)));
    for (at, (key, label)) in figures.enumerate() {
        let label = format!("{}, {label}", case.label);
        match of(at) {
            Some(rate) => report.figure(&format!("{}_{key}", case.key), label, rate, speed),
            None => report.note(format!("{label}: no answer was long enough")),
        }
    }
    for (at, way) in WAYS.iter().enumerate() {
        let key = |name: &str| format!("{}_{}_{name}", case.key, way.runs);
        let label = |what: &str| format!("{}, {}, {what}", case.label, way.label);
        if let (Some(free), Some(kept)) = (of(0), of(2 + at)) {
            report.figure(&key("ratio"), label("of the free"), kept / free, "");
        }
        let after = costs(&redrawn[at]);
        for (which, (name, what)) in OF_AN_ANSWER.into_iter().enumerate() {
            let of_an_answer = (after[which] - before[at][which]) / ROUNDS as f64;
            report.figure(&key(name), label(what), of_an_answer, "");
        }
    }
}
