//! What it costs to keep answers to a format on a library that has no hook, as the vendor's has none: by drawing
//! again what may not come. On the CPU runtime without what the vendor's library lacks, beside itself as it is:
//! a prompt that the model would answer in the format anyway, one that it would not, and the second in a chat
//! that tells it of the format. Each free and kept, in turns; and answers to schemas of real functions.

use std::time::Instant;

use serde_json::{Value, json};

use crate::daemon_support::{Daemon, Setup, built_library, chat, completion, demo_model};
use crate::formats::{self, MODEL};
use crate::report::Report;
use crate::statistics::median;
use crate::tokenizers_of_gguf::tokenizer_json;

const PAIRS: usize = 5;
const TOKENS: u32 = 96;
/// An answer that ends early is no fair part of a pair.
const LEAST_TOKENS: f64 = 48.0;
const STORY: &str = "Tell a long story of many things.";

/// A prompt, a format, and what figures of it are called.
struct Case {
    key: &'static str,
    path: &'static str,
    body: fn() -> Value,
    /// The field that asks for the format.
    format: fn() -> (&'static str, Value),
    labels: Labels,
}

struct Labels {
    free: &'static str,
    hooked: &'static str,
    redrawn: &'static str,
    ratio: &'static str,
    redraws: &'static str,
    wasted: &'static str,
    evaluated: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        key: "obedient",
        path: "/v1/completions",
        body: || completion(MODEL, "Counting: 1, 2, 3, 4, 5, 6, 7, 8,", json!({})),
        format: || ("guided_regex", json!("( [0-9]+,)+")),
        labels: Labels {
            free: "obedient prompt, free",
            hooked: "obedient prompt, kept with a hook",
            redrawn: "obedient prompt, kept without",
            ratio: "obedient prompt, part of the free speed",
            redraws: "obedient prompt, redraws of an answer",
            wasted: "obedient prompt, wasted tokens of an answer",
            evaluated: "obedient prompt, evaluated for an answer",
        },
    },
    Case {
        key: "disobedient",
        path: "/v1/completions",
        body: || completion(MODEL, STORY, json!({})),
        format: || ("guided_json", formats::long(0)),
        labels: Labels {
            free: "disobedient prompt, free",
            hooked: "disobedient prompt, kept with a hook",
            redrawn: "disobedient prompt, kept without",
            ratio: "disobedient prompt, part of the free speed",
            redraws: "disobedient prompt, redraws of an answer",
            wasted: "disobedient prompt, wasted tokens of an answer",
            evaluated: "disobedient prompt, evaluated for an answer",
        },
    },
    Case {
        key: "told",
        path: "/v1/chat/completions",
        body: || chat(MODEL, STORY, json!({})),
        format: || ("guided_json", formats::long(0)),
        labels: Labels {
            free: "told of the format, free",
            hooked: "told of the format, kept with a hook",
            redrawn: "told of the format, kept without",
            ratio: "told of the format, part of the free speed",
            redraws: "told of the format, redraws of an answer",
            wasted: "told of the format, wasted tokens of an answer",
            evaluated: "told of the format, evaluated for an answer",
        },
    },
];

pub fn measure(report: &mut Report) {
    report.section(
        "redraws",
        "answers kept to a format by a library that has no hook",
    );
    let (hooked, redrawn) = (start(true), start(false));
    for case in &CASES {
        speeds(report, case, &hooked, &redrawn);
    }
    drop(hooked);
    formats::answers(report, &redrawn);
}

/// With the same tokens and settings, so that the hook alone differs.
fn start(has_hook: bool) -> Daemon {
    const VARIABLE: &str = "RKLLM_CPU_VENDOR_ONLY";
    let library = built_library("rkllm_cpu").display().to_string();
    let tokenizer = tokenizer_json(&demo_model(), true);
    let setup = Setup::new()
        .demo_model_again(MODEL)
        .model_file(MODEL, "tokenizer.json", &tokenizer)
        .settings(&format!("runtime.cpu-library = {library:?}"))
        .settings("chat.raw-completions = true")
        .settings("constraints.max-redraws = 2000");
    match has_hook {
        true => setup,
        false => setup
            .environment(VARIABLE, "1")
            .settings(&format!("runtime.pass-environment = [{VARIABLE:?}]")),
    }
    .start()
}

/// The speed of a whole answer. `None`: it ended early.
fn rate(daemon: &Daemon, case: &Case, number: usize, is_kept: bool) -> Option<f64> {
    let mut body = (case.body)();
    body["temperature"] = json!(1);
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
fn costs(daemon: &Daemon) -> [f64; 3] {
    [
        "rkllmd_redraws_total",
        "rkllmd_redraw_wasted_tokens_total",
        "rkllmd_redraw_prompt_tokens_total",
    ]
    .map(|name| metric(daemon, name))
}

fn speeds(report: &mut Report, case: &Case, hooked: &Daemon, redrawn: &Daemon) {
    // Loads the models, and makes the format known to both.
    for daemon in [hooked, redrawn] {
        rate(daemon, case, 0, true);
    }
    let before = costs(redrawn);
    let rounds: Vec<[Option<f64>; 3]> = (1..=PAIRS)
        .map(|number| {
            let free = || rate(redrawn, case, number, false);
            let kept = || rate(redrawn, case, number, true);
            match number % 2 {
                0 => {
                    let free = free();
                    [free, rate(hooked, case, number, true), kept()]
                }
                _ => {
                    let kept = kept();
                    let hooked = rate(hooked, case, number, true);
                    [free(), hooked, kept]
                }
            }
        })
        .collect();
    let after = costs(redrawn);
    let whole: Vec<[f64; 3]> = rounds
        .iter()
        .filter_map(|&[free, hooked, kept]| Some([free?, hooked?, kept?]))
        .collect();
    let labels = &case.labels;
    if whole.is_empty() {
        return report.note(format!("{}: no answer was long enough", labels.ratio));
    }
    let key = |name: &str| format!("{}_{name}", case.key);
    let of = |which: usize| median(whole.iter().map(|round| round[which]));
    let speed = "tokens/s";
    report.figure(&key("free"), labels.free, of(0), speed);
    report.figure(&key("hooked"), labels.hooked, of(1), speed);
    report.figure(&key("redrawn"), labels.redrawn, of(2), speed);
    let ratio = median(whole.iter().map(|round| round[2] / round[0]));
    report.figure(&key("ratio"), labels.ratio, ratio, "");
    let names = [
        ("redraws", labels.redraws),
        ("wasted_tokens", labels.wasted),
        ("evaluated_tokens", labels.evaluated),
    ];
    for (at, (name, label)) in names.into_iter().enumerate() {
        let of_an_answer = (after[at] - before[at]) / PAIRS as f64;
        report.figure(&key(name), label, of_an_answer, "");
    }
}
