//! A model that answers with sixty words, and a client that reads them to their end.

use crate::daemon_support::{Daemon, Setup, chat};
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";
pub const WORDS: usize = 60;

/// What the scenario answers: words with characters of one to four bytes.
pub fn answer_text() -> String {
    (0..WORDS).map(word).collect()
}

pub fn word(n: usize) -> String {
    format!("{}{n} ", ["a", "é", "中", "🦀"][n % 4])
}

/// A scenario with that answer, 2 ms a token, and a fault.
pub fn scenario(fault: &str) -> String {
    let words: Vec<String> = (0..WORDS).map(|n| format!("{:?}", word(n))).collect();
    format!(
        "tokens = [{}]\ncontinue-answers = true\ntoken-delay-us = 2000\nprefill-delay-ms = 20\n{fault}\n",
        words.join(", ")
    )
}

pub fn fault(lines: &str) -> String {
    format!("[[fault]]\n{lines}\n")
}

/// The worker dies behind so many tokens, once the client has read of them what the test says.
pub fn dies_once_read(tokens: usize) -> String {
    let at = format!("call = \"run\"\nafter-tokens = {tokens}\n");
    fault(&format!("{at}kind = \"wait\"\ntext = \"read\""))
        + &fault(&format!("{at}once = \"spent\"\nkind = \"segv\""))
}

/// Reads an answer whose worker dies once its text is so far.
pub fn read_past_a_death(daemon: &Daemon, extra: Value, text: &str) -> Streamed {
    let read = daemon.folder().join("models/m/read");
    read_with(daemon, extra, |so_far| {
        if so_far.starts_with(text) {
            std::fs::write(&read, "").expect("the file that lets it die");
        }
    })
}

pub const SHORT_DEADLINES: &str = r#"
deadlines.prefill-base = "1s"
deadlines.prefill-per-token = "1ms"
deadlines.inter-token = "1s"
deadlines.control-call = "1s"
deadlines.abort-to-finish = "1s"
deadlines.heartbeat = "2s"
"#;

pub fn start(family: &str, scenario: &str) -> Daemon {
    Setup::with_family(family)
        .settings(SHORT_DEADLINES)
        .scenario("m", scenario)
        .start()
}

/// A streamed answer, read to its end.
#[derive(Debug, Default)]
pub struct Streamed {
    pub text: String,
    pub finish_reason: Option<String>,
    pub usage: Value,
    pub timings: Value,
    pub error: Option<Value>,
}

pub fn read(daemon: &Daemon, extra: Value) -> Streamed {
    read_with(daemon, extra, |_| {})
}

/// `at_text` is called with all text so far, after each piece.
pub fn read_with(daemon: &Daemon, extra: Value, mut at_text: impl FnMut(&str)) -> Streamed {
    let mut body = chat(
        "m",
        "x",
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
        body.extend(extra);
    }
    let mut stream = daemon.stream(CHAT, &body);
    let mut streamed = Streamed::default();
    while let Some(data) = stream.next_data() {
        if data == "[DONE]" {
            break;
        }
        let chunk: Value = serde_json::from_str(&data).expect("JSON");
        if let Some(error) = chunk.get("error") {
            streamed.error = Some(error.clone());
            break;
        }
        let choice = &chunk["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str() {
            streamed.text.push_str(text);
            at_text(&streamed.text);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            streamed.finish_reason = Some(reason.to_owned());
            streamed.timings = chunk["timings"].clone();
        }
        if chunk["usage"].is_object() {
            streamed.usage = chunk["usage"].clone();
        }
    }
    streamed
}

pub fn metric(daemon: &Daemon, name_and_labels: &str) -> f64 {
    let page = daemon.get("/metrics").body;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name_and_labels))
        .unwrap_or_else(|| panic!("no {name_and_labels} in {page}"));
    line.trim().parse().expect("a number")
}
