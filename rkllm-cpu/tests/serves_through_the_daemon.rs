//! A model with eight slots behind the daemon: eight clients at once over HTTP. What each is told is judged
//! by plain llama.cpp, token by token, also when the worker is killed in the middle of all of them.

#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;
#[path = "common/reference.rs"]
mod reference;

use std::sync::mpsc::channel;
use std::thread;

use daemon_support::{Daemon, Setup, completion, demo_model, kill};
use reference::{Reference, unquantised};
use serde_json::{Value, json};

const MODEL: &str = "demo";
const COMPLETIONS: &str = "/v1/completions";
const TOKENS: usize = 40;
/// Some of the answers end by themselves.
const LEAST_TOKENS: u64 = 20;
/// How much better than the one that was said a token may be for the judge.
const HAIR: f32 = 1e-2;
const PROMPTS: [&str; 8] = [
    "The capital of France is",
    "Once upon a time there was a small village by the sea, where an old man",
    "To bake bread you need flour, water and",
    "The history of the Roman Empire begins with the founding of the city, when",
    "Why is the sky blue? Because",
    "def fibonacci(n):",
    "The three primary colours are",
    "In the year 1969 two astronauts",
];

fn weights() -> String {
    unquantised(&demo_model().display().to_string())
}

fn start() -> Daemon {
    let setup = Setup::new().cpu_runtime().model_file(
        MODEL,
        "model.toml",
        "parallel = 8\ncontext-length = 1024\n",
    );
    let file = setup.models().join(MODEL).join("model.gguf");
    std::os::unix::fs::symlink(weights(), file).expect("a link");
    setup.start()
}

fn greedy(prompt: &str, tokens: usize) -> Value {
    let values = json!({
        "stream": true, "temperature": 0, "repeat_penalty": 1.0, "max_tokens": tokens,
    });
    completion(MODEL, prompt, values)
}

struct Told {
    text: String,
    tokens: u64,
    resumptions: u64,
}

/// Reads an answer to its end; `begun` is called at its first text.
fn read(daemon: &Daemon, prompt: &str, begun: impl FnOnce()) -> Told {
    let mut events = daemon.stream(COMPLETIONS, &greedy(prompt, TOKENS));
    let mut begun = Some(begun);
    let mut told = Told {
        text: String::new(),
        tokens: 0,
        resumptions: 0,
    };
    while let Some(data) = events.next_data().filter(|data| data != "[DONE]") {
        let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
        assert!(chunk["error"].is_null(), "{chunk}");
        let text = chunk["choices"][0]["text"].as_str().unwrap_or_default();
        if !text.is_empty()
            && let Some(begun) = begun.take()
        {
            begun();
        }
        told.text += text;
        let timings = &chunk["timings"];
        told.tokens = timings["predicted_n"].as_u64().unwrap_or(told.tokens);
        told.resumptions = timings["resumptions"].as_u64().unwrap_or(told.resumptions);
    }
    told
}

/// Reads all eight at once; `then` is done when each has begun.
fn read_all(daemon: &Daemon, then: impl FnOnce()) -> Vec<Told> {
    thread::scope(|scope| {
        let (begun, told) = channel();
        let readers = PROMPTS.map(|prompt| {
            let begun = begun.clone();
            scope.spawn(move || {
                read(daemon, prompt, || {
                    // The test may have failed by then.
                    let _ = begun.send(());
                })
            })
        });
        drop(begun);
        for _ in PROMPTS {
            told.recv().expect("an answer that begins");
        }
        then();
        let readers = readers.into_iter();
        readers.map(|it| it.join().expect("an answer")).collect()
    })
}

/// How much better than the one that was said a token is for llama.cpp, evaluated alone, where it is most.
fn worst_miss(reference: &Reference, prompt: &str, text: &str) -> f32 {
    let before = reference.tokenize(prompt);
    let all = reference.tokenize(&format!("{prompt}{text}"));
    assert_eq!(all[..before.len()], before, "{prompt}{text}");
    let rows = reference.logits_by(32, &before, &all[before.len()..]);
    let drawn_from = rows.values.chunks(rows.width).skip(before.len() - 1);
    let missed = drawn_from.zip(&all[before.len()..]).map(|(row, &id)| {
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        best - row[id as usize]
    });
    missed.max_by(f32::total_cmp).expect("it said something")
}

fn judge(reference: &Reference, prompt: &str, text: &str) {
    let missed = worst_miss(reference, prompt, text);
    println!("{prompt:?} misses by {missed}");
    assert!(missed <= HAIR, "{prompt:?} {text:?} misses by {missed}");
}

#[test]
fn eight_answers_at_once_are_as_good_as_alone() {
    let daemon = start();
    let told = read_all(&daemon, || {});
    let reference = Reference::open(&weights());
    for (prompt, told) in PROMPTS.iter().zip(&told) {
        assert_eq!(told.resumptions, 0, "{prompt}");
        assert!(told.tokens >= LEAST_TOKENS, "{prompt}: {}", told.tokens);
        judge(&reference, prompt, &told.text);
    }
    // The judge can tell: another prompt's answer is none.
    assert!(worst_miss(&reference, PROMPTS[0], &told[1].text) > 1.0);
}

#[test]
fn a_kill_interrupts_none_of_eight_answers() {
    let daemon = start();
    let pid = std::cell::Cell::new(0);
    let told = read_all(&daemon, || {
        pid.set(daemon.worker_pid());
        kill(pid.get());
    });
    assert_ne!(daemon.worker_pid(), pid.get());
    let reference = Reference::open(&weights());
    let mut resumed = 0;
    for (prompt, told) in PROMPTS.iter().zip(&told) {
        resumed += u64::from(told.resumptions > 0);
        judge(&reference, prompt, &told.text);
    }
    assert_eq!(resumed, 8, "the kill took all of them");
}

/// The value of a gauge of the model.
fn gauge(daemon: &Daemon, name: &str) -> Option<u64> {
    let start = format!("{name}{{model=\"{MODEL}\"}} ");
    let page = daemon.get("/metrics").body;
    page.lines()
        .find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

#[test]
fn a_client_that_leaves_frees_its_slot_while_seven_go_on() {
    let daemon = start();
    let mut streams: Vec<_> = PROMPTS
        .iter()
        .map(|prompt| daemon.stream(COMPLETIONS, &greedy(prompt, 200)))
        .collect();
    for stream in &mut streams {
        stream.next_content().expect("a token");
    }
    assert_eq!(gauge(&daemon, "rkllmd_slots_in_use"), Some(8));
    drop(streams.pop());
    let mut beside = None;
    let told = read(&daemon, PROMPTS[1], || {
        beside = gauge(&daemon, "rkllmd_slots_in_use");
    });
    assert_eq!(beside, Some(8), "the others go on");
    let reference = Reference::open(&weights());
    judge(&reference, PROMPTS[1], &told.text);
    for stream in &mut streams {
        assert!(stream.next_content().is_some(), "it was not ended");
    }
}

/// A text of the project's own.
const TEXT: &str = include_str!("../../LICENSE-APACHE");

/// The mean of what each token costs behind those before it.
fn cost_by_llama_cpp(reference: &Reference, text: &str) -> (f64, usize) {
    let tokens = reference.tokenize(text);
    let rows = reference.logits(&tokens, &[]);
    let costs = rows.values.chunks(rows.width).zip(&tokens[1..]);
    let costs = costs.map(|(row, &id)| {
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        sum.ln() - f64::from(row[id as usize])
    });
    let count = tokens.len() - 1;
    (costs.sum::<f64>() / count as f64, count)
}

#[test]
fn the_perplexity_of_an_echoed_text_is_llama_cpps() {
    let daemon = start();
    let reference = Reference::open(&weights());
    let text = TEXT.trim_start();
    for length in [90, 1200, 3400] {
        let text = &text[..text.floor_char_boundary(length)];
        // Others are served meanwhile, and wait for no more than a piece.
        let echo = thread::scope(|scope| {
            let other = scope.spawn(|| read(&daemon, PROMPTS[0], || {}));
            let body = json!({"max_tokens": 0, "echo": true, "logprobs": 0});
            let echo = daemon.post(COMPLETIONS, &completion(MODEL, text, body));
            assert!(other.join().expect("an answer").tokens >= LEAST_TOKENS);
            echo
        });
        assert_eq!(echo.status, 200, "{}", echo.body);
        let echo = echo.json();
        let choice = &echo["choices"][0];
        assert_eq!(choice["text"], text);
        let logprobs: Vec<Option<f64>> =
            serde_json::from_value(choice["logprobs"]["token_logprobs"].clone()).expect("numbers");
        let (wanted, count) = cost_by_llama_cpp(&reference, text);
        assert_eq!((logprobs[0], logprobs.len()), (None, count + 1));
        let got = -logprobs.iter().flatten().sum::<f64>() / count as f64;
        let (got, wanted) = (got.exp(), wanted.exp());
        println!("{count} tokens: perplexity {got}, llama.cpp's {wanted}");
        assert!((got / wanted - 1.0).abs() < 0.01, "{got} {wanted}");
    }
}
