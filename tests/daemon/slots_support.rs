//! Models with several slots, and answers that are read from several of them at the same time.

use std::fs;
use std::sync::mpsc::channel;
use std::thread;

use crate::daemon_support::{Daemon, Setup, chat};
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";
pub const LONG_CONTEXT: u32 = 1 << 20;
pub const SHORT_DEADLINES: &str = r#"
deadlines.prefill-base = "2s"
deadlines.inter-token = "1s"
deadlines.control-call = "1s"
deadlines.abort-to-finish = "2s"
recovery.backoff-first = "1ms"
recovery.backoff-longest = "10ms"
"#;

pub fn start(parallel: u8, scenario: &str) -> Daemon {
    // Answers of any length.
    let manifest =
        format!("template = \"chatml\"\nparallel = {parallel}\ncontext-length = {LONG_CONTEXT}\n");
    let scenario = format!("max-context-limit = {LONG_CONTEXT}\n{scenario}");
    Setup::new()
        .settings(SHORT_DEADLINES)
        .scenario("m", &scenario)
        .model_file("m", "model.toml", &manifest)
        .start()
}

pub fn words(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}{n} ")).collect()
}

/// An answer for prompts with this name: so many words of that name.
pub fn answer(name: &str, count: usize) -> String {
    let tokens: Vec<String> = words(name, count)
        .iter()
        .map(|word| format!("{word:?}"))
        .collect();
    format!(
        "[[answer]]\nwhen-prompt-contains = \"{name}\"\ntokens = [{}]\n",
        tokens.join(", ")
    )
}

pub fn streamed(prompt: &str) -> Value {
    chat("m", prompt, json!({"stream": true}))
}

/// Reads a whole streamed answer. `at_text` sees all text so far, after each piece.
pub fn read(daemon: &Daemon, prompt: &str, mut at_text: impl FnMut(&str)) -> String {
    let mut stream = daemon.stream(CHAT, &streamed(prompt));
    let mut text = String::new();
    while let Some(piece) = stream.next_content() {
        text.push_str(&piece);
        at_text(&text);
    }
    text
}

/// Reads an answer for each name at the same time. `then` is done once all have begun.
pub fn read_together(daemon: &Daemon, names: &[&str], then: impl FnOnce()) -> Vec<String> {
    thread::scope(|scope| {
        let (begun, told) = channel();
        let texts: Vec<_> = names
            .iter()
            .map(|name| {
                let mut begun = Some(begun.clone());
                scope.spawn(move || {
                    read(daemon, name, |text| {
                        if text.len() > 60 {
                            begun.take().map(|begun| begun.send(()));
                        }
                    })
                })
            })
            .collect();
        drop(begun);
        for _ in names {
            told.recv().expect("an answer that begins");
        }
        then();
        let texts = texts.into_iter();
        texts.map(|text| text.join().expect("an answer")).collect()
    })
}

/// The value of a gauge of the model, if it is there.
pub fn gauge(daemon: &Daemon, name: &str) -> Option<String> {
    let page = daemon.get("/metrics").body;
    let start = format!("{name}{{model=\"m\"}} ");
    let mut lines = page.lines();
    lines.find_map(|line| line.strip_prefix(&start).map(str::to_owned))
}

pub fn file(daemon: &Daemon, name: &str) {
    fs::write(daemon.folder().join("models/m").join(name), "").expect("a file");
}
