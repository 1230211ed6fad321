//! Conversations that do not fit: refused, or without their oldest turns, as the request, the model and the
//! dialect have it. What was left out is told.

use crate::daemon_support::{Answer, Daemon, Setup, word_tokenizer};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const OLLAMA: &str = "/api/chat";
const DROPPED: &str = "x-rkllmd-dropped-messages";

/// A model whose context has 64 tokens, each a word, that says its prompt back.
fn setup(manifest: &str) -> Setup {
    Setup::new()
        .scenario("m", "echo-prompt = true\n")
        .model_file("m", "tokenizer.json", &word_tokenizer(&[]))
        .model_file(
            "m",
            "model.toml",
            &format!("template = \"chatml\"\ncontext-length = 64\n{manifest}\n"),
        )
}

fn start(manifest: &str) -> Daemon {
    setup(manifest).start()
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// Ten turns of ten words and a question.
fn conversation() -> Vec<Value> {
    let mut messages = vec![message("system", "always here")];
    for turn in 0..10 {
        messages.push(message("user", &format!("asked{turn} b c d")));
        messages.push(message("assistant", &format!("said{turn} f g h")));
    }
    messages.push(message("user", "last"));
    messages
}

fn body(messages: &[Value], more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": messages, "stream": false});
    let more = more.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

/// The prompt that reached the model.
fn seen(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let text = answer["choices"][0]["message"]["content"].as_str();
    let text = text.or(answer["message"]["content"].as_str());
    text.expect("an answer").to_owned()
}

/// The prompt is the shortened one, as far as the answer has room to say it back.
fn is_cut(answer: &Answer, (prompt, dropped): (&str, &str)) {
    let said = seen(answer);
    assert!(said.len() > 40 && prompt.starts_with(&said), "{said}");
    assert_eq!(answer.header(DROPPED), Some(dropped));
}

/// What is left, and how many messages are not.
fn shortened(daemon: &Daemon, body: &Value) -> (String, String) {
    let answer = daemon.post("/apply-template", body);
    let dropped = answer.header(DROPPED).expect("a number").to_owned();
    let prompt = answer.json()["prompt"]
        .as_str()
        .expect("a prompt")
        .to_owned();
    let count: usize = dropped.parse().expect("a number");
    assert!(count > 0 && count.is_multiple_of(2), "whole turns: {count}");
    let words = prompt.split_whitespace().count();
    // A quarter is left for the answer, and turns go as many together as fill a quarter of the rest.
    assert!((28..=48).contains(&words), "{words}: {prompt}");
    assert!(
        prompt.contains("always here") && prompt.contains("last"),
        "{prompt}"
    );
    for turn in 0..10 {
        for word in ["asked", "said"] {
            let stays = prompt.contains(&format!("{word}{turn}"));
            assert_eq!(
                stays,
                turn >= count / 2,
                "{word}{turn} of {count}: {prompt}"
            );
        }
    }
    (prompt, dropped)
}

fn is_refused(answer: &Answer) {
    let error = answer.json();
    let code = error["error"]["code"].as_str().or(error["code"].as_str());
    assert_eq!(
        (answer.status, code),
        (400, Some("context_length_exceeded")),
        "{}",
        answer.body
    );
}

#[test]
fn the_request_says_what_becomes_of_it_else_the_model_else_the_dialect() {
    let messages = conversation();
    let said = |truncate: Option<bool>| match truncate {
        Some(truncate) => body(&messages, json!({"truncate": truncate})),
        None => body(&messages, json!({})),
    };
    for (manifest, openai, ollama) in [
        ("", false, true),
        ("truncate = true", true, true),
        ("truncate = false", false, false),
    ] {
        let daemon = start(manifest);
        let (prompt, dropped) = shortened(&daemon, &said(Some(true)));
        for (path, default) in [(CHAT, openai), (OLLAMA, ollama)] {
            for (truncate, cut) in [(None, default), (Some(true), true), (Some(false), false)] {
                let answer = daemon.post(path, &said(truncate));
                match cut {
                    true => is_cut(&answer, (&prompt, &dropped)),
                    false => is_refused(&answer),
                }
            }
        }
    }
}

#[test]
fn what_fits_is_left_as_it_is_and_what_cannot_be_cut_is_refused() {
    let daemon = start("truncate = true");
    let short = [
        message("user", "a"),
        message("assistant", "b"),
        message("user", "c"),
    ];
    let answer = daemon.post(CHAT, &body(&short, json!({})));
    assert_eq!(answer.header(DROPPED), None);
    assert!(seen(&answer).contains('a'));
    // One word is one token, and the last turn alone has too many.
    let long = "x ".repeat(70);
    let hopeless = [
        message("user", "a"),
        message("assistant", "b"),
        message("user", &long),
    ];
    is_refused(&daemon.post(CHAT, &body(&hopeless, json!({}))));
    is_refused(&daemon.post(OLLAMA, &body(&[message("user", &long)], json!({}))));
    // It may have more than the rest leaves for the answer, if it fits.
    let tight = "y ".repeat(52);
    let tight = [
        message("user", "a"),
        message("assistant", "b b b b b b b"),
        message("user", &tight),
    ];
    let answer = daemon.post(CHAT, &body(&tight, json!({})));
    assert_eq!(answer.header(DROPPED), Some("2"), "{}", answer.body);
    assert!(seen(&answer).contains("y y"));
}

#[test]
fn the_next_turns_prompt_goes_on_where_the_last_ones_did() {
    let daemon = start("truncate = true");
    let mut messages = vec![message("system", "always here")];
    let (mut last, mut changes, mut cut) = (String::new(), 0, 0);
    for turn in 0..40 {
        messages.push(message("user", &format!("asked{turn} b c d")));
        let answer = daemon.post("/apply-template", &body(&messages, json!({})));
        let prompt = answer.json()["prompt"]
            .as_str()
            .expect("a prompt")
            .to_owned();
        if let Some(dropped) = answer.header(DROPPED) {
            cut += 1;
            changes += usize::from(dropped != last);
            last = dropped.to_owned();
        }
        assert!(prompt.contains("always here") && prompt.contains(&format!("asked{turn} ")));
        messages.push(message("assistant", &format!("said{turn} f g h")));
    }
    assert!(cut > 30, "{cut}");
    // A turn has ten tokens of the 48 that there are, and no more than a few of them go at once.
    assert!(
        (cut / 4..=cut * 2 / 3).contains(&changes),
        "{changes} of {cut}"
    );
}

#[test]
fn a_call_and_its_result_go_together() {
    let daemon = start("");
    let call = json!({"role": "assistant", "content": "", "tool_calls": [
        {"id": "one", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let result = |text: &str| json!({"role": "tool", "tool_call_id": "one", "content": text});
    let filler = "w ".repeat(12);
    let messages = [
        message("user", &format!("first {filler}")),
        call,
        message("user", &format!("between {filler}")),
        result(&format!("found {filler}")),
        message("assistant", "so"),
        message("user", &format!("last {filler}")),
    ];
    let answer = daemon.post(CHAT, &body(&messages, json!({"truncate": true})));
    let prompt = seen(&answer);
    assert_eq!(answer.header(DROPPED), Some("5"), "{prompt}");
    assert!(
        prompt.contains("last") && !prompt.contains("found"),
        "{prompt}"
    );
}

#[test]
fn where_no_token_can_be_counted_that_is_said() {
    let daemon = Setup::new().scenario("m", "echo-prompt = true\n").start();
    let messages = conversation();
    let asked = daemon.post(CHAT, &body(&messages, json!({"truncate": true})));
    assert_eq!(asked.header("x-rkllmd-not-applied"), Some("truncate"));
    assert_eq!(asked.header(DROPPED), None);
    let not_asked = daemon.post(OLLAMA, &body(&messages, json!({})));
    assert_eq!(not_asked.header("x-rkllmd-not-applied"), None);
}
