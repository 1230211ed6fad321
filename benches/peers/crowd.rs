//! Clients that ask at once, each with a prompt of its own, and note when their tokens come.

use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::daemon_support::{EventStream, completion};
use crate::served::MODEL;
use crate::statistics::{median, quantile};

/// What a client got.
pub struct Answer {
    pub asked_at: Instant,
    /// When each piece of text came.
    pub pieces: Vec<Instant>,
    pub text: String,
    pub tokens: f64,
    /// Tokens of the prompt that were not found evaluated, where the server tells.
    pub evaluated: Option<f64>,
}

impl Answer {
    pub fn first_token_ms(&self) -> f64 {
        let first = self.pieces.first().expect("an answer has text");
        (*first - self.asked_at).as_secs_f64() * 1e3
    }
}

/// A whole answer of up to `tokens` tokens; its clock starts before the connection is opened.
pub fn ask(address: SocketAddr, prompt: &str, tokens: u32) -> Answer {
    let body = completion(
        MODEL,
        prompt,
        json!({
            "stream": true,
            "temperature": 0,
            "repeat_penalty": 1.0,
            "max_tokens": tokens,
            "stream_options": {"include_usage": true},
        }),
    );
    let asked_at = Instant::now();
    let mut stream = EventStream::open(address, "/v1/completions", &body);
    assert_eq!(stream.status, 200);
    let (mut pieces, mut whole) = (Vec::new(), String::new());
    let (mut counted, mut evaluated) = (None, None);
    while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
        let now = Instant::now();
        let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
        let text = chunk["choices"][0]["text"].as_str();
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            pieces.push(now);
            whole.push_str(text);
        }
        counted = chunk["usage"]["completion_tokens"].as_f64().or(counted);
        evaluated = chunk["timings"]["prompt_n"].as_f64().or(evaluated);
    }
    Answer {
        asked_at,
        pieces,
        text: whole,
        tokens: counted.expect("usage"),
        evaluated,
    }
}

/// What a crowd got.
pub struct Round {
    pub tokens_per_second: f64,
    pub first_token_p50_ms: f64,
    pub first_token_p99_ms: f64,
}

/// `clients` prompts at once. No two rounds have the same, so that no prefix is in a cache.
pub fn round(address: SocketAddr, clients: usize, number: usize, tokens: u32) -> Round {
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asking: Vec<_> = (0..clients)
            .map(|client| scope.spawn(move || ask(address, &prompt(number, client), tokens)))
            .collect();
        let answers = asking.into_iter().map(|client| client.join());
        answers.map(|answer| answer.expect("an answer")).collect()
    });
    let begin = answers.iter().map(|answer| answer.asked_at).min();
    let end = answers.iter().filter_map(|answer| answer.pieces.last());
    let wall = *end.max().expect("text") - begin.expect("clients");
    let made: f64 = answers.iter().map(|answer| answer.tokens).sum();
    let first = || answers.iter().map(Answer::first_token_ms);
    Round {
        tokens_per_second: made / wall.as_secs_f64(),
        first_token_p50_ms: median(first()),
        first_token_p99_ms: quantile(first(), 0.99),
    }
}

/// About a hundred tokens that ask for a long answer.
pub fn prompt(round: usize, client: usize) -> String {
    format!(
        "Chapter {round}, in which traveller number {client} tells a story. The inn by the old road was \
         full that night, because the bridge over the river had been carried away by the flood, and \
         nobody could go on before the carpenters had come from the town. So they sat by the fire, \
         and each of them told what had happened to him on the way. When it was his turn, the traveller \
         put down his cup, looked into the fire for a while, and began: Once upon a time"
    )
}
