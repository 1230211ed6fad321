//! A call that is being written when its worker dies comes as the model would have written it.

use crate::daemon_support::{Daemon, Setup, word_tokenizer};
use crate::function_calls::{
    HARD, Streamed, TEMPLATE, both_calls, byte_tokens, pieces, question, read, scenario_of, start,
    tokens, two_calls,
};
use serde_json::json;

const MARKERS: [&str; 4] = ["<tool_call>", "</tool_call>", "<think>", "</think>"];

/// A model whose tokens a tokenizer knows, which has these added to it, and whose worker dies as `when` says behind
/// `at` tokens of an answer.
fn dies_at(at: usize, when: &str, scenario: &str, added: &[&str]) -> Daemon {
    let fault = format!(
        "[[fault]]\ncall = \"run\"\nafter-tokens = {at}\n{when} = \"die\"\nkind = \"segv\"\n"
    );
    Setup::new()
        .model_file("m", "model.rkllm", &format!("{scenario}{fault}"))
        .model_file("m", "chat_template.jinja", TEMPLATE)
        .model_file("m", "tokenizer.json", &word_tokenizer(added))
        .start()
}

/// The answer of such a model, whose tokenizer was found to make the tokens of the runtime.
fn of_a_known_tokenizer(at: usize, scenario: &str, added: &[&str]) -> Streamed {
    let daemon = dies_at(at, "when-file", scenario, added);
    // That is known once it has run.
    let calm = read(&daemon, question("two", json!({})));
    assert_eq!(calm.calls, both_calls());
    let die = daemon.folder().join("models/m/die");
    std::fs::write(&die, "").expect("a file");
    let streamed = read(&daemon, question("two", json!({})));
    assert!(!die.exists(), "at {at}: the worker did not die");
    streamed
}

fn assert_whole(streamed: &Streamed, at: usize) {
    assert_eq!(streamed.error, None, "at {at}");
    assert_eq!(streamed.calls, both_calls(), "at {at}");
    assert_eq!(streamed.reasoning.trim(), "hm", "at {at}");
    assert_eq!(streamed.content.trim_end(), "Let me see.", "at {at}");
}

/// The two calls behind a thought, with markers that come as tokens without a text.
fn unprinted_markers() -> Vec<String> {
    let marker = |text: &str| {
        let index = MARKERS.iter().position(|marker| *marker == text);
        let id = 1 + index.expect("a marker");
        vec![format!(
            "{{ text = \"\", in-prompt = {text:?}, id = {id} }}"
        )]
    };
    let call = |name: &str, arguments: &str| {
        let body = format!("\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n");
        let parts = [
            marker("<tool_call>"),
            pieces(&body, 12),
            marker("</tool_call>"),
        ];
        parts.concat()
    };
    // It begins with no end of the prompt, behind which the runtime would go on.
    let answer = [
        marker("<think>"),
        pieces("hm\n", 12),
        marker("</think>"),
        pieces("\n\nLet me see.\n", 12),
        call("f", HARD),
        call("g", r#"{"text" : "x"}"#),
    ];
    answer.concat()
}

#[test]
fn a_worker_that_dies_at_any_token_of_a_call_changes_nothing() {
    let answer = format!("<think>\nhm\n</think>\n\n{}", two_calls());
    // One of them ends in the middle of a character.
    const BYTES: usize = 7;
    for at in 0..answer.len().div_ceil(BYTES) {
        let fault = format!(
            "[[fault]]\ncall = \"run\"\nafter-tokens = {at}\nonce = \"died\"\nkind = \"segv\"\n"
        );
        let scenario = scenario_of(&[("two", &answer)], |answer| byte_tokens(answer, BYTES));
        let daemon = start(&format!("{scenario}{fault}"));
        let streamed = read(&daemon, question("two", json!({})));
        let died = daemon.folder().join("models/m/died");
        assert!(died.exists(), "at {at}: the worker did not die");
        assert_whole(&streamed, at);
    }
}

#[test]
fn nor_where_the_answer_is_handed_over_by_its_tokens() {
    let answer = format!("<think>\nhm\n</think>\n\n{}", two_calls());
    let tokens = tokens(&answer, 8);
    let scenario = format!(
        "tokens = {tokens}\neos-token-id = 2\ncontinue-answers = true\n\
         [[answer]]\nwhen-prompt-contains = \"<think>\"\ntokens = [\"handed over as text\"]\n"
    );
    for at in 0..answer.chars().count().div_ceil(8) {
        assert_whole(&of_a_known_tokenizer(at, &scenario, &[]), at);
    }
}

/// Markers that are special tokens come without a text, so the text of such an answer is not all of it.
#[test]
fn nor_where_its_markers_are_tokens_that_are_not_printed() {
    let answer = unprinted_markers();
    let scenario = format!(
        "tokens = [{}]\neos-token-id = 9\ncontinue-answers = true\n",
        answer.join(", ")
    );
    for at in 0..answer.len() {
        assert_whole(&of_a_known_tokenizer(at, &scenario, &MARKERS), at);
    }
}

/// Before its model's first answer has ended it is not known whether the tokenizer makes the runtime's tokens. Then
/// markers are handed over as the texts that they have in prompts.
#[test]
fn nor_where_they_are_handed_over_as_text() {
    let answer = unprinted_markers();
    let scenario = format!(
        "tokens = [{}]\neos-token-id = 9\ncontinue-answers = true\ntoken-delay-us = 1000\n",
        answer.join(", ")
    );
    let mut resumed = 0;
    for at in 0..answer.len() {
        let daemon = dies_at(at, "once", &scenario, &MARKERS);
        let streamed = read(&daemon, question("two", json!({})));
        let died = daemon.folder().join("models/m/die");
        assert!(died.exists(), "at {at}: the worker did not die");
        assert_whole(&streamed, at);
        // What the worker made last may be lost with it.
        let lines = daemon.log.lines();
        let lines: Vec<_> = lines
            .iter()
            .filter(|it| it.contains("resuming an answer"))
            .collect();
        assert!(
            lines.iter().all(|it| it.contains("by_tokens=false")),
            "at {at}: {lines:?}"
        );
        resumed += lines.len();
    }
    assert!(resumed > answer.len() / 2, "only {resumed}");
}
