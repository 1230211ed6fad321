//! What is between the library and the client: the same model, prompts and greedy sampling through
//! a bare C loop and through the daemon's HTTP stream, in turns. Both are loaded and warm before
//! the first clock starts, each prompt begins with another token so that neither finds a prefix in
//! its KV cache, and both must have generated the same text. A time to first token is nearly all
//! prefill, which varies by more than what is looked for, so many more short answers are taken for
//! it than long ones for the speed of decoding. How threads and memory come to lie differs from process to
//! process by as much, so that all of it is done several times with new ones of both.
//!
//! The machine makes two equal things differ as well, and p99 shows that before anything else. So a second
//! process of the bare loop has its turn beside the two: what it adds to the first is the null that the
//! daemon's figures are read against.

mod first_tokens;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bare_loop::{BareLoop, Generation};
use crate::daemon_support::{Daemon, EventStream, Setup, completion};
use crate::report::{Report, Target, rounded};
use crate::statistics::median;

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
/// Times that all are started and measured.
const STARTS: usize = 5;
/// Compute threads that wait for work by spinning have gone to sleep by then.
const PAUSE: Duration = Duration::from_millis(150);
/// Each is first, second and last equally often, and so behind each of the others.
const ORDERS: [[Way; 3]; 6] = [
    [Way::Bare, Way::Other, Way::Http],
    [Way::Http, Way::Other, Way::Bare],
    [Way::Other, Way::Http, Way::Bare],
    [Way::Bare, Way::Http, Way::Other],
    [Way::Http, Way::Bare, Way::Other],
    [Way::Other, Way::Bare, Way::Http],
];

fn decode_per_second(generation: &Generation) -> f64 {
    (generation.tokens - 1.0) * 1e3 / (generation.last_token_ms - generation.first_token_ms)
}

/// A way to the model.
#[derive(Clone, Copy)]
enum Way {
    Bare,
    /// Another process of the bare loop.
    Other,
    Http,
}

/// One prompt through all of them.
struct Round {
    bare: Generation,
    other: Generation,
    served: Generation,
}

impl Round {
    fn of(&self, way: Way) -> &Generation {
        match way {
            Way::Bare => &self.bare,
            Way::Other => &self.other,
            Way::Http => &self.served,
        }
    }

    /// To the bare loop's time.
    fn added_first_token_ms(&self, way: Way) -> f64 {
        self.of(way).first_token_ms - self.bare.first_token_ms
    }

    fn added_outside_prefill_ms(&self, way: Way) -> f64 {
        self.added_first_token_ms(way) - (self.of(way).prefill_ms - self.bare.prefill_ms)
    }
}

/// All ways to the model.
struct Contest {
    bare: BareLoop,
    other: BareLoop,
    daemon: Daemon,
    rounds: usize,
}

/// What one start of all has given.
struct Start {
    long: Vec<Round>,
    short: Vec<Round>,
}

pub fn measure(report: &mut Report) {
    report.section(
        "overhead",
        "the demo model through a bare C loop, another one and HTTP, in turns, all started 5 times",
    );
    let starts: Vec<Start> = (0..STARTS).map(|_| Contest::start().measure()).collect();
    report_decoding(report, &starts);
    first_tokens::report_on(report, &starts);
    let details = starts.iter().flat_map(Start::rounds).map(details);
    report.detail("rounds", Value::Array(details.collect()));
}

impl Start {
    fn rounds(&self) -> impl Iterator<Item = &Round> {
        self.long.iter().chain(&self.short)
    }

    fn decode_per_second(&self, way: Way) -> f64 {
        median(
            self.long
                .iter()
                .map(|round| decode_per_second(round.of(way))),
        )
    }

    /// To the bare loop's.
    fn ratio(&self, way: Way) -> f64 {
        self.decode_per_second(way) / self.decode_per_second(Way::Bare)
    }
}

impl Contest {
    fn start() -> Self {
        Contest {
            bare: BareLoop::start(),
            other: BareLoop::start(),
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

    /// Who comes first changes, so that none always has the machine as the same other left it.
    fn round(&mut self, prompt: &str, max_new_tokens: u32) -> Round {
        let order = ORDERS[self.rounds % ORDERS.len()];
        self.rounds += 1;
        let (mut bare, mut other, mut served) = (None, None, None);
        for way in order {
            thread::sleep(PAUSE);
            match way {
                Way::Bare => bare = Some(self.bare.run(prompt, max_new_tokens)),
                Way::Other => other = Some(self.other.run(prompt, max_new_tokens)),
                Way::Http => served = Some(stream(&self.daemon, prompt, max_new_tokens)),
            }
        }
        let turn = "each has its turn in each order";
        let round = Round {
            bare: bare.expect(turn),
            other: other.expect(turn),
            served: served.expect(turn),
        };
        let work = |way: Way| {
            let one = round.of(way);
            (one.prefill_tokens, one.tokens, one.text.clone())
        };
        for way in [Way::Other, Way::Http] {
            assert_eq!(
                work(Way::Bare),
                work(way),
                "prompt tokens, tokens and text of two answers to {prompt:?}"
            );
        }
        round
    }
}

fn report_decoding(report: &mut Report, starts: &[Start]) {
    let of = |way: Way| median(starts.iter().map(|start| start.decode_per_second(way)));
    report.figure(
        "bare_tokens_per_second",
        "bare loop, decode, median of 5 starts",
        of(Way::Bare),
        "tokens/s",
    );
    report.figure(
        "http_tokens_per_second",
        "HTTP stream, decode, median of 5 starts",
        of(Way::Http),
        "tokens/s",
    );
    let ratios = |way: Way| starts.iter().map(move |start| start.ratio(way));
    report.promise(
        "ratio",
        "HTTP stream / bare loop, median of 5 starts",
        (median(ratios(Way::Http)), ""),
        Target::AtLeast(0.97),
    );
    let each: Vec<f64> = ratios(Way::Http).map(rounded).collect();
    report.note(format!("of each start: {each:?}"));
    report.detail("ratios", json!(each));
    report.figure(
        "null_ratio",
        "other bare loop / bare loop, median of 5 starts",
        median(ratios(Way::Other)),
        "",
    );
    let each: Vec<f64> = ratios(Way::Other).map(rounded).collect();
    report.note(format!("of each start: {each:?}"));
    report.detail("null_ratios", json!(each));
}

fn details(round: &Round) -> Value {
    let Round {
        bare,
        other,
        served,
    } = round;
    json!({
        "prompt_tokens": bare.prefill_tokens,
        "tokens": bare.tokens,
        "bare_tokens_per_second": rounded(decode_per_second(bare)),
        "other_tokens_per_second": rounded(decode_per_second(other)),
        "http_tokens_per_second": rounded(decode_per_second(served)),
        "bare_prefill_ms": rounded(bare.prefill_ms),
        "other_prefill_ms": rounded(other.prefill_ms),
        "http_prefill_ms": rounded(served.prefill_ms),
        "bare_first_token_ms": rounded(bare.first_token_ms),
        "other_first_token_ms": rounded(other.first_token_ms),
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
