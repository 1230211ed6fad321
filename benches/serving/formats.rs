//! What answers that are kept to a format cost, and whether they are right: decoding of the demo model
//! with a format and without, in turns; the time before the first token with a schema that is new and
//! with one that was asked for before; and answers to schemas of real functions, and to such as are made at
//! random, at a high temperature, judged by a validator that is not the engine that keeps them.

use std::time::Instant;

use serde_json::{Value, json};

use crate::daemon_support::{Answer, Daemon, Setup, chat};
use crate::json_judge::fault;
use crate::report::{Report, Target};
use crate::schema_support::{generated, schemas_of_tools};
use crate::statistics::median;

pub const MODEL: &str = "smollm2";
const PAIRS: usize = 7;
const TOKENS: u32 = 96;
const SCHEMAS_OF_TOOLS: usize = 150;
/// Made at random.
const SCHEMAS_MADE: usize = 50;

pub fn measure(report: &mut Report) {
    report.section(
        "formats",
        "answers of the demo model that are kept to a format",
    );
    let daemon = Setup::new().demo_model(MODEL).all_threads().start();
    decoding(report, &daemon);
    beginnings(report, &daemon);
    answers(report, &daemon);
}

fn ask(daemon: &Daemon, prompt: &str, more: Value) -> Answer {
    let answer = daemon.post("/v1/chat/completions", &chat(MODEL, prompt, more));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// Longer than its budget in any case.
pub fn long(number: usize) -> Value {
    json!({"type": "array", "minItems": 60, "maxItems": 60 + number, "items": {"type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "on": {"type": "boolean"},
            "count": {"type": "integer", "minimum": 0, "maximum": 1000}},
        "required": ["name", "on", "count"]}})
}

pub fn format_of(schema: &Value) -> Value {
    json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": schema}})
}

/// Speeds of decoding of two requests, in turns.
fn speeds(one: (&Daemon, Value), other: (&Daemon, Value)) -> Vec<(f64, f64)> {
    let rate = |(daemon, more): &(&Daemon, Value), number: usize| {
        let mut asked = json!({"temperature": 1, "seed": number, "max_tokens": TOKENS});
        if let (Value::Object(asked), Value::Object(more)) = (&mut asked, more) {
            asked.extend(more.clone());
        }
        let answer = ask(daemon, "Tell a long story of many things.", asked).json();
        let tokens = answer["usage"]["completion_tokens"].as_u64();
        let rate = answer["timings"]["predicted_per_second"].as_f64();
        (tokens == Some(TOKENS.into())).then(|| rate.expect("it was measured"))
    };
    // The first pair warms up. An answer that ends early is no fair pair.
    let pairs = (0..=PAIRS).filter_map(|number| {
        let (one, other) = match number % 2 {
            0 => (rate(&one, number), rate(&other, number)),
            _ => {
                let other = rate(&other, number);
                (rate(&one, number), other)
            }
        };
        Some((one?, other?)).filter(|_| number > 0)
    });
    pairs.collect()
}

/// Functions are there, and none is called: what it costs that one would be kept.
pub fn calls(report: &mut Report) {
    report.section(
        "calls",
        "answers of the demo model that may call functions, in turns",
    );
    let start = |settings: &str| {
        let setup = Setup::new().demo_model(MODEL).all_threads();
        setup.settings(settings).start()
    };
    let (kept, free) = (start(""), start("constraints.keep-calls = false"));
    let parameters = json!({"type": "object", "properties": {"list": long(0)}});
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
    let more = json!({ "tools": [tool] });
    let pairs = speeds((&free, more.clone()), (&kept, more));
    report.figure(
        "pairs",
        "pairs of answers that were long enough",
        pairs.len() as f64,
        "",
    );
    if pairs.is_empty() {
        return report.note("the speeds are not compared: no answer was long enough");
    }
    report.promise(
        "auto_over_free",
        "decoding of content where calls would be kept, part of the free speed",
        (median(pairs.iter().map(|pair| pair.1 / pair.0)), ""),
        Target::AtLeast(0.97),
    );
}

fn decoding(report: &mut Report, daemon: &Daemon) {
    let kept = json!({"response_format": format_of(&long(0))});
    let pairs = speeds((daemon, json!({})), (daemon, kept));
    report.figure(
        "pairs",
        "pairs of answers that were long enough",
        pairs.len() as f64,
        "",
    );
    if pairs.is_empty() {
        return report.note("the speeds are not compared: no free answer was long enough");
    }
    let of = |side: fn(&(f64, f64)) -> f64| median(pairs.iter().map(side));
    report.figure(
        "free_tokens_per_second",
        "decoding, free",
        of(|pair| pair.0),
        "/s",
    );
    report.figure(
        "kept_tokens_per_second",
        "decoding, kept to a schema",
        of(|pair| pair.1),
        "/s",
    );
    report.promise(
        "kept_over_free",
        "decoding kept to a schema, part of the free speed",
        (of(|pair| pair.1 / pair.0), ""),
        Target::AtLeast(0.97),
    );
}

fn beginnings(report: &mut Report, daemon: &Daemon) {
    let time = |number: usize| {
        let more = json!({"temperature": 0, "max_tokens": 1,
            "response_format": format_of(&long(number))});
        let asked_at = Instant::now();
        ask(daemon, "Go.", more);
        asked_at.elapsed().as_secs_f64() * 1000.0
    };
    let times: Vec<(f64, f64)> = (1..=2 * PAIRS)
        .map(|number| (time(number), time(number)))
        .collect();
    let new = median(times.iter().map(|(new, _)| *new));
    let known = median(times.iter().map(|(_, known)| *known));
    report.figure(
        "new_schema_ms",
        "answer of one token, its schema new",
        new,
        "ms",
    );
    report.figure("known_schema_ms", "the same once more", known, "ms");
}

/// Of real functions, and made at random.
pub fn schemas() -> Vec<Value> {
    let mut random = fastrand::Rng::with_seed(13);
    let mut schemas = schemas_of_tools(SCHEMAS_OF_TOOLS);
    schemas.extend((0..SCHEMAS_MADE).map(|_| generated::schema(&mut random, 120)));
    schemas
}

/// Whether answers to many schemas are whole and right.
fn answers(report: &mut Report, daemon: &Daemon) {
    let schemas = schemas();
    let (mut whole, mut wrong, mut free, mut tried) = (0, 0, 0, 0);
    for (number, schema) in schemas.iter().enumerate() {
        let prompt = format!("Invent an example, number {number}.");
        let answer = |format: Option<Value>| {
            let more = json!({"temperature": 1.5, "seed": number, "max_tokens": 160,
                "response_format": format});
            let asked = chat(MODEL, &prompt, more);
            let answer = daemon.post("/v1/chat/completions", &asked);
            assert_eq!(answer.status, 200, "{}", answer.body);
            let choice = &answer.json()["choices"][0];
            let text = choice["message"]["content"].as_str().unwrap_or_default();
            (text.to_owned(), choice["finish_reason"] == "stop")
        };
        let (text, is_whole) = answer(Some(format_of(schema)));
        whole += usize::from(is_whole);
        wrong += usize::from(is_whole && fault(schema, &text).is_some());
        if number % 10 == 0 {
            tried += 1;
            free += usize::from(fault(schema, &answer(None).0).is_none());
        }
    }
    let share = |part: usize, all: usize| part as f64 / all as f64;
    report.promise(
        "whole",
        "200 schemas, answers that end within 160 tokens",
        (share(whole, schemas.len()), ""),
        Target::AtLeast(0.9),
    );
    report.promise(
        "wrong",
        "of these, wrong",
        (wrong as f64, ""),
        Target::AtMost(0.0),
    );
    report.figure(
        "free_right",
        "without the format, right",
        share(free, tried),
        "",
    );
}
