//! What is between the library and the client: the same model, prompts and greedy sampling through
//! a bare C loop and through the daemon's HTTP stream, in turns. Both are loaded and warm before
//! the first clock starts, each prompt begins with another token so that neither finds a prefix in
//! its KV cache, and both must have generated the same text. A time to first token is nearly all
//! prefill, which varies by more than what is looked for, so many more short answers are taken for
//! it than long ones for the speed of decoding. How threads and memory come to lie differs from process to
//! process by as much, so that all of it is done several times with new ones of both.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bare_loop::{BareLoop, Generation};
use crate::daemon_support::{Daemon, EventStream, Setup, completion};
use crate::report::{Report, Target, rounded};
use crate::statistics::{median, quantile};

const MODEL: &str = "smollm2";
const WARM_UP: &str = "Before the invention of printing, books were copied by hand, and";
const LONG_ANSWER_TOKENS: u32 = 128;
const LONG_ANSWERS: [&str; 6] = [
    "Once upon a time there was a small village by the sea, where an old man",
    "The history of the Roman Empire begins with the founding of the city, when",
    "My grandmother taught me how to bake bread. The first thing she told me was",
    "In the middle of the forest stood a tower that nobody had entered for years, until",
    "Astronomers study the light of distant stars because it tells them",
    "Good software is written for the people who have to change it, which means",
];
const SHORT_ANSWER_TOKENS: u32 = 8;
const SHORT_ANSWERS_BEGIN: [&str; 24] = [
    "Apples",
    "Bridges",
    "Candles",
    "Deserts",
    "Engines",
    "Farms",
    "Gardens",
    "Houses",
    "Islands",
    "Jewels",
    "Kings",
    "Lakes",
    "Mountains",
    "Numbers",
    "Oceans",
    "Planets",
    "Queens",
    "Rivers",
    "Schools",
    "Trees",
    "Umbrellas",
    "Villages",
    "Winters",
    "Years",
];
const SHORT_ANSWERS_GO_ON: &str = "are what this long chapter of the book is about, and it begins";
/// Times that both are started and measured.
const STARTS: usize = 5;
/// Compute threads that wait for work by spinning have gone to sleep by then.
const PAUSE: Duration = Duration::from_millis(150);

fn decode_per_second(generation: &Generation) -> f64 {
    (generation.tokens - 1.0) * 1e3 / (generation.last_token_ms - generation.first_token_ms)
}

/// One prompt through both, in this order.
struct Round(Generation, Generation);

impl Round {
    fn alone(&self) -> &Generation {
        &self.0
    }

    fn served(&self) -> &Generation {
        &self.1
    }

    fn added_first_token_ms(&self) -> f64 {
        self.1.first_token_ms - self.0.first_token_ms
    }

    fn added_outside_prefill_ms(&self) -> f64 {
        self.added_first_token_ms() - (self.1.prefill_ms - self.0.prefill_ms)
    }
}

/// Both ways to the model.
struct Contest {
    bare: BareLoop,
    daemon: Daemon,
    rounds: usize,
}

/// What one start of both has given.
struct Start {
    long: Vec<Round>,
    short: Vec<Round>,
}

pub fn measure(report: &mut Report) {
    report.section(
        "overhead",
        "the demo model through a bare C loop and through HTTP, in turns, both started 5 times",
    );
    let starts: Vec<Start> = (0..STARTS).map(|_| Contest::start().measure()).collect();
    report_decoding(report, &starts);
    let all = starts
        .iter()
        .flat_map(|start| start.long.iter().chain(&start.short));
    let all: Vec<&Round> = all.collect();
    report_first_tokens(report, &all);
    let details = all.iter().map(|round| details(round)).collect();
    report.detail("rounds", Value::Array(details));
}

impl Start {
    fn decode_per_second(&self, of: fn(&Round) -> &Generation) -> f64 {
        median(self.long.iter().map(|round| decode_per_second(of(round))))
    }

    fn ratio(&self) -> f64 {
        self.decode_per_second(Round::served) / self.decode_per_second(Round::alone)
    }
}

impl Contest {
    fn start() -> Self {
        Contest {
            bare: BareLoop::start(),
            daemon: Setup::new().demo_model(MODEL).all_threads().start(),
            rounds: 0,
        }
    }

    fn measure(mut self) -> Start {
        self.round(WARM_UP, LONG_ANSWER_TOKENS);
        let long = LONG_ANSWERS.map(|prompt| self.round(prompt, LONG_ANSWER_TOKENS));
        let short = SHORT_ANSWERS_BEGIN.map(|begin| {
            let prompt = format!("{begin} {SHORT_ANSWERS_GO_ON}");
            self.round(&prompt, SHORT_ANSWER_TOKENS)
        });
        Start {
            long: long.into(),
            short: short.into(),
        }
    }

    /// Who comes first alternates, so that neither always has the machine as the other left it.
    fn round(&mut self, prompt: &str, max_new_tokens: u32) -> Round {
        self.rounds += 1;
        thread::sleep(PAUSE);
        let round = if self.rounds.is_multiple_of(2) {
            let alone = self.bare.run(prompt, max_new_tokens);
            thread::sleep(PAUSE);
            Round(alone, stream(&self.daemon, prompt, max_new_tokens))
        } else {
            let served = stream(&self.daemon, prompt, max_new_tokens);
            thread::sleep(PAUSE);
            Round(self.bare.run(prompt, max_new_tokens), served)
        };
        let work = |one: &Generation| (one.prefill_tokens, one.tokens, one.text.clone());
        assert_eq!(
            work(&round.0),
            work(&round.1),
            "prompt tokens, tokens and text of the two answers to {prompt:?}"
        );
        round
    }
}

fn report_decoding(report: &mut Report, starts: &[Start]) {
    let of = |of: fn(&Round) -> &Generation| {
        median(starts.iter().map(|start| start.decode_per_second(of)))
    };
    report.figure(
        "bare_tokens_per_second",
        "bare loop, decode, median of 5 starts",
        of(Round::alone),
        "tokens/s",
    );
    report.figure(
        "http_tokens_per_second",
        "HTTP stream, decode, median of 5 starts",
        of(Round::served),
        "tokens/s",
    );
    let ratios: Vec<f64> = starts.iter().map(Start::ratio).collect();
    report.promise(
        "ratio",
        "HTTP stream / bare loop, median of 5 starts",
        (median(ratios.iter().copied()), ""),
        Target::AtLeast(0.97),
    );
    let ratios: Vec<f64> = ratios.into_iter().map(rounded).collect();
    report.note(format!("of each start: {ratios:?}"));
    report.detail("ratios", json!(ratios));
}

fn report_first_tokens(report: &mut Report, rounds: &[&Round]) {
    report.figure(
        "bare_first_token_ms",
        "bare loop, time to first token, median of 150",
        median(rounds.iter().map(|round| round.0.first_token_ms)),
        "ms",
    );
    report.figure(
        "http_first_token_ms",
        "HTTP stream, time to first token, median of 150",
        median(rounds.iter().map(|round| round.1.first_token_ms)),
        "ms",
    );
    report.promise(
        "added_first_token_ms",
        "added to the time to first token, median",
        (
            median(rounds.iter().map(|round| round.added_first_token_ms())),
            "ms",
        ),
        Target::AtMost(1.5),
    );
    let added = rounds.iter().map(|round| round.added_first_token_ms());
    report.promise(
        "added_first_token_p99_ms",
        "likewise, p99",
        (quantile(added, 0.99), "ms"),
        Target::AtMost(4.0),
    );
    report.figure(
        "added_outside_prefill_ms",
        "the same without the library's own prefill",
        median(rounds.iter().map(|round| round.added_outside_prefill_ms())),
        "ms",
    );
}

fn details(Round(alone, served): &Round) -> Value {
    json!({
        "prompt_tokens": alone.prefill_tokens,
        "tokens": alone.tokens,
        "bare_tokens_per_second": rounded(decode_per_second(alone)),
        "http_tokens_per_second": rounded(decode_per_second(served)),
        "bare_prefill_ms": rounded(alone.prefill_ms),
        "http_prefill_ms": rounded(served.prefill_ms),
        "bare_first_token_ms": rounded(alone.first_token_ms),
        "http_first_token_ms": rounded(served.first_token_ms),
    })
}

/// A streamed completion; its clock starts before the connection is opened.
fn stream(daemon: &Daemon, prompt: &str, max_new_tokens: u32) -> Generation {
    let body = completion(
        MODEL,
        prompt,
        json!({
            "stream": true,
            "temperature": 0,
            "repeat_penalty": 1.0,
            "max_tokens": max_new_tokens,
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
    let timings = chunks
        .iter()
        .rev()
        .find_map(|(_, chunk)| chunk["timings"].as_object())
        .expect("timings");
    let timing = |name: &str| timings[name].as_f64().expect("a measured time");
    let usage = chunks.last().map(|(_, chunk)| &chunk["usage"]);
    Generation {
        tokens: usage
            .and_then(|usage| usage["completion_tokens"].as_f64())
            .expect("usage"),
        text: texts.iter().map(|(_, text)| *text).collect(),
        first_token_ms: since_asked(texts.first().expect("text").0),
        last_token_ms: since_asked(texts.last().expect("text").0),
        prefill_tokens: timing("prompt_n"),
        prefill_ms: timing("prompt_ms"),
    }
}
