//! A call that is being written when its worker dies comes as the model would have written it.

use crate::daemon_support::{Setup, word_tokenizer};
use crate::function_calls::{
    HARD, TEMPLATE, both_calls, byte_tokens, pieces, question, read, scenario_of, start, tokens,
    two_calls,
};
use serde_json::json;

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
        assert_eq!(streamed.error, None, "at {at}");
        assert_eq!(streamed.calls, both_calls(), "at {at}");
        assert_eq!(streamed.reasoning.trim(), "hm", "at {at}");
        assert_eq!(streamed.content.trim_end(), "Let me see.", "at {at}");
    }
}

#[test]
fn nor_where_the_answer_is_handed_over_by_its_tokens() {
    let answer = format!("<think>\nhm\n</think>\n\n{}", two_calls());
    let tokens = tokens(&answer, 8);
    for at in 0..answer.chars().count().div_ceil(8) {
        let scenario = format!(
            "tokens = {tokens}\neos-token-id = 2\ncontinue-answers = true\n\
             [[answer]]\nwhen-prompt-contains = \"<think>\"\ntokens = [\"handed over as text\"]\n\
             [[fault]]\ncall = \"run\"\nafter-tokens = {at}\nwhen-file = \"die\"\nkind = \"segv\"\n"
        );
        let daemon = Setup::new()
            .model_file("m", "model.rkllm", &scenario)
            .model_file("m", "chat_template.jinja", TEMPLATE)
            .model_file("m", "tokenizer.json", &word_tokenizer(&[]))
            .start();
        // That the runtime makes the same tokens as the tokenizer is known once it has run.
        assert_eq!(
            read(&daemon, question("two", json!({}))).calls,
            both_calls()
        );
        let die = daemon.folder().join("models/m/die");
        std::fs::write(&die, "").expect("a file");
        let streamed = read(&daemon, question("two", json!({})));
        assert!(!die.exists(), "at {at}: the worker did not die");
        assert_eq!(streamed.error, None, "at {at}");
        assert_eq!(streamed.calls, both_calls(), "at {at}");
        assert_eq!(streamed.reasoning.trim(), "hm", "at {at}");
        assert_eq!(streamed.content.trim_end(), "Let me see.", "at {at}");
    }
}

/// Markers that are special tokens come without a text, so the text of such an answer is not all of it.
#[test]
fn nor_where_its_markers_are_tokens_that_are_not_printed() {
    const MARKERS: [&str; 4] = ["<tool_call>", "</tool_call>", "<think>", "</think>"];
    let marker = |text: &str| {
        let index = MARKERS.iter().position(|marker| *marker == text);
        let id = 1 + index.expect("a marker");
        vec![format!("{{ text = \"\", id = {id} }}")]
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
    // Its first text is no end of the prompt, behind which the runtime would go on.
    let answer = [
        marker("<think>"),
        pieces("hm\n", 12),
        marker("</think>"),
        pieces("\n\nLet me see.\n", 12),
        call("f", HARD),
        call("g", r#"{"text" : "x"}"#),
    ]
    .concat();
    let tokens = answer.join(", ");
    for at in 0..answer.len() {
        let scenario = format!(
            "tokens = [{tokens}]\neos-token-id = 9\ncontinue-answers = true\n\
             [[fault]]\ncall = \"run\"\nafter-tokens = {at}\nwhen-file = \"die\"\nkind = \"segv\"\n"
        );
        let daemon = Setup::new()
            .model_file("m", "model.rkllm", &scenario)
            .model_file("m", "chat_template.jinja", TEMPLATE)
            .model_file("m", "tokenizer.json", &word_tokenizer(&MARKERS))
            .start();
        // That the runtime makes the same tokens as the tokenizer is known once it has run.
        assert_eq!(
            read(&daemon, question("two", json!({}))).calls,
            both_calls()
        );
        let die = daemon.folder().join("models/m/die");
        std::fs::write(&die, "").expect("a file");
        let streamed = read(&daemon, question("two", json!({})));
        assert!(!die.exists(), "at {at}: the worker did not die");
        assert_eq!(streamed.error, None, "at {at}");
        assert_eq!(streamed.calls, both_calls(), "at {at}");
        assert_eq!(streamed.reasoning.trim(), "hm", "at {at}");
        assert_eq!(streamed.content.trim_end(), "Let me see.", "at {at}");
    }
}
