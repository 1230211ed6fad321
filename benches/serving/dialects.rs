//! What Ollama's lines cost over OpenAI's events: the same chats in turns, through a fake library that makes
//! tokens at once. Both are rendered with the same template, and the client counts every token.

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
const PAIRS: usize = 201;
const SHORT_ANSWER_TOKENS: u32 = 4;
/// Long enough for ticks of 10 ms to be a small error.
const LONG_ANSWER_TOKENS: u32 = 400_000;
const LONG_PAIRS: usize = 3;

#[derive(Clone, Copy)]
enum Dialect {
    OpenAi,
    Ollama,
}

impl Dialect {
    fn request(self, tokens: u32) -> (&'static str, Value) {
        match self {
            Self::OpenAi => {
                let extra = json!({"stream": true, "max_tokens": tokens});
                ("/v1/chat/completions", chat(MODEL, "count", extra))
            }
            Self::Ollama => {
                let extra = json!({"stream": true, "options": {"num_predict": tokens}});
                ("/api/chat", chat(MODEL, "count", extra))
            }
        }
    }
}

pub fn measure(report: &mut Report) {
    report.section(
        "dialects",
        "a chat by Ollama's API over one by OpenAI's, in turns, a runtime without delay",
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
    for dialect in [Dialect::OpenAi, Dialect::Ollama] {
        first_token(&daemon, dialect, SHORT_ANSWER_TOKENS);
    }
    first_tokens(report, &daemon);
    tokens(report, &daemon);
}

/// Who comes first alternates, so that neither always has the machine as the other left it.
fn in_turns<T>(pairs: usize, mut ask: impl FnMut(Dialect) -> T) -> Vec<(T, T)> {
    (0..pairs)
        .map(|pair| match pair % 2 {
            0 => {
                let open_ai = ask(Dialect::OpenAi);
                (open_ai, ask(Dialect::Ollama))
            }
            _ => {
                let ollama = ask(Dialect::Ollama);
                (ask(Dialect::OpenAi), ollama)
            }
        })
        .collect()
}

fn first_tokens(report: &mut Report, daemon: &Daemon) {
    let times = in_turns(PAIRS, |dialect| {
        first_token(daemon, dialect, SHORT_ANSWER_TOKENS).as_secs_f64() * 1e3
    });
    report.figure(
        "openai_first_token_ms",
        "OpenAI's, time to first token, median of 201",
        median(times.iter().map(|(open_ai, _)| *open_ai)),
        "ms",
    );
    let added = median(times.iter().map(|(open_ai, ollama)| ollama - open_ai));
    report.promise(
        "added_first_token_ms",
        "added by Ollama's, median of the pairs",
        (added, "ms"),
        Target::AtMost(0.3),
    );
}

fn tokens(report: &mut Report, daemon: &Daemon) {
    let used = in_turns(LONG_PAIRS, |dialect| {
        let watch = Watch::start(daemon);
        first_token(daemon, dialect, LONG_ANSWER_TOKENS);
        watch.stop().daemon_s * 1e6 / f64::from(LONG_ANSWER_TOKENS)
    });
    report.figure(
        "openai_cpu_us_per_token",
        "OpenAI's, CPU of the daemon per token, median of 3",
        median(used.iter().map(|(open_ai, _)| *open_ai)),
        "us",
    );
    let added = median(used.iter().map(|(open_ai, ollama)| ollama - open_ai));
    report.promise(
        "added_cpu_us_per_token",
        "added by Ollama's, median of the pairs",
        (added, "us"),
        Target::AtMost(10.0),
    );
}

/// Reads a stream of exactly `tokens` tokens to its end. Returns the time from before the connection was
/// opened to the first of them.
fn first_token(daemon: &Daemon, dialect: Dialect, tokens: u32) -> Duration {
    let (path, body) = dialect.request(tokens);
    let body = body.to_string();
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
    assert_eq!(count, tokens as usize, "tokens of {path}");
    first.expect("a token")
}
