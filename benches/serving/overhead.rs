//! What is between the library and the client: the same model, prompts and greedy sampling through
//! a bare C loop and through the daemon's HTTP stream, in turns. Both are loaded and warm before
//! the first clock starts, each prompt begins with another token so that neither finds a prefix in
//! its KV cache, and both must have generated the same text.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bare_loop::BareLoop;
use crate::daemon_support::{Daemon, EventStream, Setup, completion};
use crate::report::{Report, Target, rounded};
use crate::statistics::median;

const MODEL: &str = "smollm2";
const MAX_NEW_TOKENS: u32 = 128;
const WARM_UP: &str = "Before the invention of printing, books were copied by hand, and";
const PROMPTS: [&str; 6] = [
    "Once upon a time there was a small village by the sea, where an old man",
    "The history of the Roman Empire begins with the founding of the city, when",
    "My grandmother taught me how to bake bread. The first thing she told me was",
    "In the middle of the forest stood a tower that nobody had entered for years, until",
    "Astronomers study the light of distant stars because it tells them",
    "Good software is written for the people who have to change it, which means",
];
/// Compute threads that wait for work by spinning have gone to sleep by then.
const PAUSE: Duration = Duration::from_millis(300);

/// One generation as its reader saw it; times count from the request.
pub struct Generation {
    pub tokens: f64,
    pub text_bytes: f64,
    pub first_token_ms: f64,
    pub last_token_ms: f64,
}

impl Generation {
    fn decode_per_second(&self) -> f64 {
        (self.tokens - 1.0) * 1e3 / (self.last_token_ms - self.first_token_ms)
    }
}

pub fn measure(report: &mut Report) {
    report.section(
        "overhead",
        "the demo model through a bare C loop and through HTTP, 6 prompts in turns",
    );
    let daemon = Setup::new().demo_model(MODEL).start();
    let mut bare = BareLoop::start(MAX_NEW_TOKENS);
    stream(&daemon, WARM_UP);
    thread::sleep(PAUSE);
    bare.run(WARM_UP);
    let mut rounds = Vec::new();
    for (number, prompt) in PROMPTS.into_iter().enumerate() {
        thread::sleep(PAUSE);
        // Neither always has the machine as the other left it.
        let (alone, served) = if number % 2 == 0 {
            let alone = bare.run(prompt);
            thread::sleep(PAUSE);
            (alone, stream(&daemon, prompt))
        } else {
            let served = stream(&daemon, prompt);
            thread::sleep(PAUSE);
            (bare.run(prompt), served)
        };
        assert_eq!(
            (alone.tokens, alone.text_bytes),
            (served.tokens, served.text_bytes),
            "tokens and bytes of the answers to {prompt:?} differ"
        );
        rounds.push((alone, served));
    }
    summarise(report, &rounds);
}

fn summarise(report: &mut Report, rounds: &[(Generation, Generation)]) {
    let alone = median(rounds.iter().map(|(alone, _)| alone.decode_per_second()));
    let served = median(rounds.iter().map(|(_, served)| served.decode_per_second()));
    let first_alone = median(rounds.iter().map(|(alone, _)| alone.first_token_ms));
    let first_served = median(rounds.iter().map(|(_, served)| served.first_token_ms));
    let added = median(
        rounds
            .iter()
            .map(|(alone, served)| served.first_token_ms - alone.first_token_ms),
    );
    report.figure(
        "bare_tokens_per_second",
        "bare loop, decode, median",
        alone,
        "tokens/s",
    );
    report.figure(
        "http_tokens_per_second",
        "HTTP stream, decode, median",
        served,
        "tokens/s",
    );
    report.promise(
        "ratio",
        "HTTP stream / bare loop",
        (served / alone, ""),
        Target::AtLeast(0.97),
    );
    report.figure(
        "bare_first_token_ms",
        "bare loop, time to first token, median",
        first_alone,
        "ms",
    );
    report.figure(
        "http_first_token_ms",
        "HTTP stream, time to first token, median",
        first_served,
        "ms",
    );
    report.promise(
        "added_first_token_ms",
        "added to the time to first token, median",
        (added, "ms"),
        Target::AtMost(3.0),
    );
    let details: Vec<Value> = rounds
        .iter()
        .map(|(alone, served)| {
            json!({
                "tokens": alone.tokens,
                "bare_tokens_per_second": rounded(alone.decode_per_second()),
                "http_tokens_per_second": rounded(served.decode_per_second()),
                "bare_first_token_ms": rounded(alone.first_token_ms),
                "http_first_token_ms": rounded(served.first_token_ms),
            })
        })
        .collect();
    report.detail("rounds", Value::Array(details));
}

/// A streamed completion; its clock starts before the connection is opened.
fn stream(daemon: &Daemon, prompt: &str) -> Generation {
    let body = completion(
        MODEL,
        prompt,
        json!({
            "stream": true,
            "temperature": 0,
            "repeat_penalty": 1.0,
            "max_tokens": MAX_NEW_TOKENS,
            "stream_options": {"include_usage": true},
        }),
    );
    let asked_at = Instant::now();
    let stream = EventStream::open(daemon.address, "/v1/completions", &body);
    assert_eq!(stream.status, 200);
    let events = stream.collect();
    let (done, chunks) = events.split_last().expect("events");
    assert_eq!(done.1, "[DONE]");
    let chunks: Vec<(Instant, Value)> = chunks
        .iter()
        .map(|(at, data)| (*at, serde_json::from_str(data).expect("a chunk is JSON")))
        .collect();
    let texts: Vec<(Instant, &str)> = chunks
        .iter()
        .filter_map(|(at, chunk)| Some((*at, chunk["choices"][0]["text"].as_str()?)))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    let since_asked = |at: Instant| (at - asked_at).as_secs_f64() * 1e3;
    let usage = chunks.last().map(|(_, chunk)| &chunk["usage"]);
    Generation {
        tokens: usage
            .and_then(|usage| usage["completion_tokens"].as_f64())
            .expect("usage"),
        text_bytes: texts.iter().map(|(_, text)| text.len()).sum::<usize>() as f64,
        first_token_ms: since_asked(texts.first().expect("text").0),
        last_token_ms: since_asked(texts.last().expect("text").0),
    }
}
