//! What a model's file or tokenizer says of its own size, and what a tokenizer asks to be done, harms nothing:
//! it is told, and what can be served is.

use std::fs;

use crate::daemon_support::{Daemon, chat, completion, eventually, readers};
use rustix::process::Signal;
use serde_json::json;

use super::models_folder_support::{CHAT, TEXT, listed, serves, setup};

#[test]
fn a_tokenizer_that_cannot_be_read_costs_the_counts_alone() {
    let daemon = setup()
        .scenario("m", "tokens = [\"x\"]\n")
        .model_file("m", "tokenizer.json", "{\"model\": 7}")
        .start();
    serves(&daemon, "m");
    let answer = daemon.post(TEXT, &completion("m", "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let refused = daemon.post("/tokenize", &json!({"model": "m", "content": "a"}));
    assert_eq!(refused.error_code(), "tokenizer_failed", "{}", refused.body);
    daemon.log.wait_for("prompts are not counted");
}

/// A GGUF header whose pairs are these bytes.
fn gguf(pairs: u64, rest: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(0u64.to_le_bytes());
    file.extend(pairs.to_le_bytes());
    file.extend(rest);
    file
}

#[test]
fn files_that_lie_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let array = |key: &str, kind: u32, count: u64| {
        let head = [9u32.to_le_bytes(), kind.to_le_bytes()].concat();
        [text(key), head, count.to_le_bytes().to_vec()].concat()
    };
    write("many-pairs.gguf", &gguf(u64::MAX, b""));
    write("long-key.gguf", &gguf(1, &u64::MAX.to_le_bytes()));
    write(
        "many-tokens.gguf",
        &gguf(1, &array("tokenizer.ggml.tokens", 8, u64::MAX)),
    );
    write("many-bytes.gguf", &gguf(1, &array("x", 0, u64::MAX)));
    let nested = [text("x"), [9u32.to_le_bytes(); 3000].concat()].concat();
    write("nested.gguf", &gguf(1, &nested));
    write("a/m.rkllm", b"x");
    write("a/tokenizer_config.json", "[".repeat(1_000_000).as_bytes());
    write("b/m.rkllm", b"x");
    write(
        "b/tokenizer.json",
        format!("{{\"a\":{}", "{\"a\":".repeat(1_000_000)).as_bytes(),
    );
    write("c/m.rkllm", b"x");
    write(
        "c/model.toml",
        format!("a = {}", "[".repeat(100_000)).as_bytes(),
    );
    let text = listed(folder.path());
    for name in [
        "many-pairs",
        "long-key",
        "many-tokens",
        "many-bytes",
        "nested",
    ] {
        let is_told = text.lines().any(|line| {
            line.starts_with("problem: ")
                && line.contains(&format!("/{name}.gguf: its GGUF header"))
        });
        assert!(is_told, "{name}: {text}");
    }
    for file in ["a/tokenizer_config.json", "b/tokenizer.json", "c/m.rkllm"] {
        let is_told = text
            .lines()
            .any(|line| line.starts_with("problem: ") && line.contains(file));
        assert!(is_told, "{file}: {text}");
    }
}

fn tokenizer(pattern: &str) -> String {
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2,
            "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[unknown]"},
        "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[unknown]": 0, "a": 1}, "unk_token": "[unknown]"}
    })
    .to_string()
}

/// The texts of its control tokens cannot be kept out of prompts, so it is not used; nothing ends for it.
#[test]
fn a_model_of_too_many_control_tokens_is_told_so() {
    let tokens: Vec<_> = (0..100)
        .map(|id| {
            json!({"id": id, "content": format!("<|{id:0>26}|>"), "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let text = json!({"added_tokens": tokens}).to_string();
    let daemon = setup()
        .settings("reader.control-tokens-limit-bytes = 2048")
        .scenario("evil", "tokens = [\"x\"]\n")
        .model_file("evil", "tokenizer.json", &text)
        .start();
    serves(&daemon, "good");
    let skipped = daemon.log.wait_for("model skipped");
    assert!(
        skipped.contains("control-tokens-limit-bytes") && skipped.contains("evil"),
        "{skipped}"
    );
    let refused = daemon.post(CHAT, &chat("evil", "x", json!({})));
    assert_eq!(refused.error_code(), "model_not_found", "{}", refused.body);
    // As they are read from what stands there now.
    fs::write(daemon.folder().join("models/good/tokenizer.json"), &text).unwrap();
    rewritten(&daemon);
    let refused = daemon.post(CHAT, &chat("good", "x", json!({})));
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (500, "model_files_unusable"),
        "{}",
        refused.body
    );
}

/// Ends the idle readers, so that the next request reads the files as they are now.
fn rewritten(daemon: &Daemon) {
    for reader in readers(daemon.pid()) {
        crate::daemon_support::signal(reader, Signal::KILL);
    }
    eventually("the end of the readers", || {
        readers(daemon.pid()).is_empty().then_some(())
    });
}

#[test]
fn a_tokenizer_cuts_nothing_short_and_harms_no_other_model() {
    let daemon = setup()
        .scenario("words", "tokens = [\"x\"]\n")
        .model_file("words", "tokenizer.json", &tokenizer("a"))
        .scenario("evil", "tokens = [\"x\"]\n")
        .model_file(
            "evil",
            "tokenizer.json",
            &tokenizer("(a|a)*(a|a)*(a|a)*b(?=c)"),
        )
        .start();
    let tokens = daemon.post(
        "/tokenize",
        &json!({"model": "words", "content": "aaaaaaaa"}),
    );
    assert_eq!(tokens.json()["tokens"], json!([1, 1, 1, 1, 1, 1, 1, 1]));
    let long = "a".repeat(5000);
    let answer = daemon.post("/tokenize", &json!({"model": "evil", "content": long}));
    assert!(
        ["tokenizer_failed", "deadline_exceeded"].contains(&&*answer.error_code())
            || answer.status == 200,
        "{}",
        answer.body
    );
    serves(&daemon, "good");
    serves(&daemon, "words");
}
