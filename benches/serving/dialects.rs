//! What other dialects cost over OpenAI's chat: the same chats in turns, through a fake library that makes
//! tokens at once. All are rendered with the same template, and the client counts every token.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cpu_time::Watch;
use crate::daemon_support::{Daemon, PATIENCE, Setup, chat};
use crate::report::{Report, Target};
use crate::statistics::median;

const MODEL: &str = "m";
/// Nothing but a token's text holds it.
const TOKEN: &[u8] = b"qux";
const ROUNDS: usize = 201;
const SHORT_ANSWER_TOKENS: u32 = 4;
/// Long enough for ticks of 10 ms to be a small error.
const LONG_ANSWER_TOKENS: u32 = 400_000;
const LONG_ROUNDS: usize = 3;

struct Dialect {
    /// What figures of it begin with.
    key: &'static str,
    path: &'static str,
    body: fn(u32) -> Value,
    /// How often a token's text is in a stream: Responses has the whole text in its last events once more.
    copies: usize,
    first_token: &'static str,
    cpu: &'static str,
}

/// The first is what the others are compared with.
const DIALECTS: [Dialect; 4] = [
    Dialect {
        key: "openai",
        path: "/v1/chat/completions",
        body: |tokens| {
            let extra = json!({"stream": true, "max_tokens": tokens});
            chat(MODEL, "count", extra)
        },
        copies: 1,
        first_token: "OpenAI's chat, time to first token, median of 201",
        cpu: "OpenAI's chat, CPU of the daemon per token, median of 3",
    },
    Dialect {
        key: "ollama",
        path: "/api/chat",
        body: |tokens| {
            let extra = json!({"stream": true, "options": {"num_predict": tokens}});
            chat(MODEL, "count", extra)
        },
        copies: 1,
        first_token: "added by Ollama's, median of the rounds",
        cpu: "added by Ollama's, CPU per token, median of the rounds",
    },
    Dialect {
        key: "messages",
        path: "/v1/messages",
        body: |tokens| {
            let extra = json!({"stream": true, "max_tokens": tokens});
            chat(MODEL, "count", extra)
        },
        copies: 1,
        first_token: "added by Messages, median of the rounds",
        cpu: "added by Messages, CPU per token, median of the rounds",
    },
    Dialect {
        key: "responses",
        path: "/v1/responses",
        body: |tokens| {
            json!({"model": MODEL, "input": "count", "stream": true, "store": false,
                "max_output_tokens": tokens})
        },
        // A delta, the ends of text, part and item, and the response.
        copies: 5,
        first_token: "added by Responses, median of the rounds",
        cpu: "added by Responses, CPU per token, median of the rounds",
    },
];

/// What a round measured of each.
type Round = [f64; DIALECTS.len()];

pub fn measure(report: &mut Report) {
    report.section(
        "dialects",
        "chats by other APIs over one by OpenAI's, in turns, a runtime without delay",
    );
    let scenario =
        "repeat = { token = \"qux \", times = 2000000000 }\nmax-context-limit = 2000000000\n";
    let daemon = Setup::new()
        .scenario(MODEL, scenario)
        .model_file(
            MODEL,
            "model.toml",
            "template = \"chatml\"\ncontext-length = 1999999968\n",
        )
        .start();
    for dialect in &DIALECTS {
        first_token(&daemon, dialect, SHORT_ANSWER_TOKENS);
    }
    first_tokens(report, &daemon);
    tokens(report, &daemon);
}

/// Who comes first changes from round to round, so that none always has the machine as the same other left it.
fn in_turns(rounds: usize, mut ask: impl FnMut(&Dialect) -> f64) -> Vec<Round> {
    (0..rounds)
        .map(|round| {
            let mut measured = Round::default();
            for turn in 0..DIALECTS.len() {
                let which = (round + turn) % DIALECTS.len();
                measured[which] = ask(&DIALECTS[which]);
            }
            measured
        })
        .collect()
}

fn first_tokens(report: &mut Report, daemon: &Daemon) {
    let rounds = in_turns(ROUNDS, |dialect| {
        first_token(daemon, dialect, SHORT_ANSWER_TOKENS).as_secs_f64() * 1e3
    });
    compare(report, &rounds, "first_token_ms", "ms", 0.3, |dialect| {
        dialect.first_token
    });
}

fn tokens(report: &mut Report, daemon: &Daemon) {
    let rounds = in_turns(LONG_ROUNDS, |dialect| {
        let watch = Watch::start(daemon);
        first_token(daemon, dialect, LONG_ANSWER_TOKENS);
        watch.stop().daemon_s * 1e6 / f64::from(LONG_ANSWER_TOKENS)
    });
    let label = |dialect: &Dialect| dialect.cpu;
    compare(report, &rounds, "cpu_us_per_token", "us", 10.0, label);
}

/// The first one's figure, and what each other one adds to it.
fn compare(
    report: &mut Report,
    rounds: &[Round],
    what: &str,
    unit: &'static str,
    most: f64,
    label: impl Fn(&Dialect) -> &'static str,
) {
    let [first, others @ ..] = &DIALECTS;
    let alone = median(rounds.iter().map(|round| round[0]));
    report.figure(&format!("{}_{what}", first.key), label(first), alone, unit);
    for (at, dialect) in others.iter().enumerate() {
        let added = median(rounds.iter().map(|round| round[at + 1] - round[0]));
        report.promise(
            &format!("{}_added_{what}", dialect.key),
            label(dialect),
            (added, unit),
            Target::AtMost(most),
        );
    }
}

/// Reads a stream of exactly `tokens` tokens to its end. Returns the time from before the connection was
/// opened to the first of them.
fn first_token(daemon: &Daemon, dialect: &Dialect, tokens: u32) -> Duration {
    let path = dialect.path;
    let body = (dialect.body)(tokens).to_string();
    let asked_at = Instant::now();
    let mut stream = TcpStream::connect(daemon.address).expect("the daemon accepts connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_nodelay(true).expect("no delay");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .expect("the request is taken");
    let mut buffer = vec![0; 256 * 1024];
    // The end of a read may hold a part of a token's text.
    let mut kept = 0;
    let (mut count, mut first) = (0, None);
    loop {
        let size = stream.read(&mut buffer[kept..]).expect("the answer");
        if size == 0 {
            break;
        }
        let bytes = &buffer[..kept + size];
        count += bytes.windows(TOKEN.len()).filter(|it| *it == TOKEN).count();
        if count > 0 {
            first.get_or_insert_with(|| asked_at.elapsed());
        }
        let rest = bytes.len().min(TOKEN.len() - 1);
        let end = bytes.len();
        buffer.copy_within(end - rest..end, 0);
        kept = rest;
    }
    assert_eq!(count, dialect.copies * tokens as usize, "tokens of {path}");
    first.expect("a token")
}
