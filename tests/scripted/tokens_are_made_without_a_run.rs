//! `/tokenize` and `/detokenize` answer in the shapes of llama.cpp's server, load no model and wait
//! for no answer; whatever happens to a tokenizer's process, the next request is answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::daemon_support::{
    Daemon, FAMILIES_RUN, Setup, chat as chat_body, eventually, kill, readers, resident_bytes,
};
use crate::http_support::*;
use rkllmd::settings::Settings;
use serde_json::{Value, json};

async fn server() -> Server {
    let mut settings = Settings::default();
    settings.tokenizer.limit_bytes = 1024;
    Server::replaying(settings, Vec::new).await
}

#[tokio::test]
async fn the_shapes_are_llama_cpps() {
    let server = server().await;
    let answers = [
        (
            "/tokenize",
            r#"{"model":"tiny","content":"hé"}"#,
            json!({"tokens": [104, 195, 169]}),
        ),
        (
            "/tokenize",
            r#"{"model":"tiny","content":"","parse_special":true}"#,
            json!({"tokens": []}),
        ),
        (
            "/tokenize",
            r#"{"model":"tiny","content":"h","add_special":true}"#,
            json!({"tokens": [1, 104, 2]}),
        ),
        (
            "/tokenize",
            r#"{"model":"tiny","content":"hé","with_pieces":true}"#,
            json!({"tokens": [
                {"id": 104, "piece": "h"}, {"id": 195, "piece": [195]}, {"id": 169, "piece": [169]},
            ]}),
        ),
        (
            "/detokenize",
            r#"{"model":"tiny","tokens":[104,195,169]}"#,
            json!({"content": "hé"}),
        ),
    ];
    for (path, body, expected) in answers {
        let answer = server.post(path, body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        assert_eq!(answer.json(), expected, "{body}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name() {
    let server = server().await;
    let long = format!(r#"{{"model":"tiny","content":"{}"}}"#, "a".repeat(1025));
    let many = format!(r#"{{"model":"tiny","tokens":[{}0]}}"#, "0,".repeat(256));
    let refusals = [
        ("/tokenize", "[]", 400, "-", "invalid_json"),
        (
            "/tokenize",
            r#"{"content":"a"}"#,
            400,
            "model",
            "missing_required_parameter",
        ),
        (
            "/tokenize",
            r#"{"model":"tiny"}"#,
            400,
            "content",
            "missing_required_parameter",
        ),
        (
            "/tokenize",
            r#"{"model":"tiny","content":["a"]}"#,
            400,
            "content",
            "invalid_type",
        ),
        (
            "/tokenize",
            r#"{"model":"none","content":"a"}"#,
            404,
            "model",
            "model_not_found",
        ),
        (
            "/tokenize",
            r#"{"model":"raw","content":"a"}"#,
            400,
            "model",
            "tokenizer_unknown",
        ),
        (
            "/tokenize",
            r#"{"model":"tiny","content":"a","parse_special":false}"#,
            400,
            "parse_special",
            "unsupported_parameter",
        ),
        ("/tokenize", &long, 400, "content", "invalid_value"),
        (
            "/detokenize",
            r#"{"model":"tiny"}"#,
            400,
            "tokens",
            "missing_required_parameter",
        ),
        (
            "/detokenize",
            r#"{"model":"tiny","tokens":[7,256]}"#,
            400,
            "tokens[1]",
            "invalid_value",
        ),
        (
            "/detokenize",
            r#"{"model":"tiny","tokens":[7,-1]}"#,
            400,
            "tokens[1]",
            "invalid_value",
        ),
        (
            "/detokenize",
            r#"{"model":"raw","tokens":[7]}"#,
            400,
            "model",
            "tokenizer_unknown",
        ),
        ("/detokenize", &many, 400, "tokens", "invalid_value"),
    ];
    for (path, body, status, param, code) in refusals {
        let answer = server.post(path, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        let (_, blamed, found) = answer.error();
        let blamed = blamed.unwrap_or_else(|| "-".to_owned());
        assert_eq!((&*blamed, &*found), (param, code), "{path} {body}");
    }
    server.shut_down().await;
}

/// Bytes are written as GPT-2 writes them; `<s>` and `</s>` belong around a text.
fn byte_level() -> String {
    byte_level_with(&[])
}

/// Likewise, with further special tokens.
fn byte_level_with(reserved: &[String]) -> String {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": false});
    let mut added = vec![special(7, "<s>"), special(8, "</s>")];
    added.extend(
        (9..)
            .zip(reserved)
            .map(|(id, content)| special(id, content)),
    );
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added,
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                "<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [8], "tokens": ["</s>"]}}},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false,
            "vocab": {"h": 0, "i": 1, "Ġ": 2, "â": 3, "Ĥ": 4, "¬": 5, "hi": 6},
            "merges": ["h i"]},
    })
    .to_string()
}

fn setup(family: &str, scenario: &str) -> Setup {
    Setup::with_family(family)
        .scenario("m", scenario)
        .model_file("m", "tokenizer.json", &byte_level())
}

fn tokens(daemon: &Daemon, content: &str) -> Value {
    let answer = daemon.post("/tokenize", &json!({"content": content}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["tokens"].clone()
}

#[test]
fn a_text_comes_back_from_its_tokens_in_every_family() {
    for family in FAMILIES_RUN {
        let daemon = setup(family, "tokens = [\"x\"]\n").start();
        // The only model there is needs no name.
        assert_eq!(
            tokens(&daemon, "hi €</s>"),
            json!([6, 2, 3, 4, 5, 8]),
            "{family}"
        );
        let body = json!({"model": "m", "content": "€", "add_special": true, "with_pieces": true});
        let pieces = daemon.post("/tokenize", &body);
        let expected = json!({"tokens": [
            {"id": 7, "piece": "<s>"}, {"id": 3, "piece": [0xE2]}, {"id": 4, "piece": [0x82]},
            {"id": 5, "piece": [0xAC]}, {"id": 8, "piece": "</s>"},
        ]});
        assert_eq!(pieces.json(), expected, "{family}");
        let body = json!({"tokens": [7, 6, 2, 3, 4, 5, 8]});
        let text = daemon.post("/detokenize", &body);
        assert_eq!(text.json(), json!({"content": "<s>hi €</s>"}), "{family}");
        let unknown = daemon.post("/detokenize", &json!({"tokens": [6, 9]}));
        assert_eq!(
            (unknown.status, &*unknown.error_code()),
            (400, "invalid_value"),
            "{family}"
        );
        assert_eq!(
            daemon.phase("m"),
            "unloaded",
            "{family}: nothing was loaded"
        );
    }
}

/// A vocabulary may reserve many special tokens; the time a token takes must not grow with them.
#[test]
fn the_pieces_of_a_long_text_are_there_in_time() {
    let reserved: Vec<String> = (0..2000).map(|n| format!("<|reserved_{n}|>")).collect();
    let daemon = Setup::new()
        .scenario("m", "tokens = [\"a\"]\n")
        .model_file("m", "tokenizer.json", &byte_level_with(&reserved))
        .settings("deadlines.reader-call = \"5s\"")
        .start();
    let words = 20_000;
    let request = json!({"content": "hi ".repeat(words), "with_pieces": true});
    let answer = daemon.post("/tokenize", &request);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let tokens = answer.json()["tokens"].as_array().unwrap().clone();
    assert_eq!(tokens.len(), 2 * words);
    assert_eq!(tokens[0], json!({"id": 6, "piece": "hi"}));
    assert_eq!(tokens[1], json!({"id": 2, "piece": " "}));
}

/// Each byte of the text is a token, and each token some thirty bytes of the answer.
#[test]
fn a_text_that_amplifies_is_charged_before_it_is_an_answer() {
    const BYTES: usize = 1_000_000;
    const MIB: u64 = 1024 * 1024;
    let content = " ".repeat(BYTES);
    let request = json!({"content": content, "with_pieces": true});
    for (limit_bytes, most_growth) in [(256 * MIB, 64 * MIB), (32 * MIB, 32 * MIB)] {
        let daemon = Setup::new()
            .scenario("m", "tokens = [\"a\"]\n")
            .model_file("m", "tokenizer.json", &byte_level_with(&[]))
            .settings(&format!(
                "memory.requests-limit-bytes = {limit_bytes}\ndeadlines.reader-call = \"60s\""
            ))
            .start();
        let small = json!({"content": "hi", "with_pieces": true});
        assert_eq!(daemon.post("/tokenize", &small).status, 200);
        let before = resident_bytes(daemon.pid());
        let enough = AtomicBool::new(false);
        let (answer, peak) = thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut peak = 0;
                while !enough.load(Ordering::Relaxed) {
                    peak = peak.max(resident_bytes(daemon.pid()));
                    // Growth is seen by sampling; there is no event for it.
                    thread::sleep(Duration::from_millis(1));
                }
                peak
            });
            let answer = daemon.post("/tokenize", &request);
            enough.store(true, Ordering::Relaxed);
            (answer, watcher.join().expect("the watcher"))
        });
        if limit_bytes > 100 * MIB {
            assert_eq!(answer.status, 200);
            let tokens = answer.json()["tokens"].as_array().unwrap().clone();
            assert_eq!(tokens.len(), BYTES);
            assert_eq!(tokens[BYTES - 1], json!({"id": 2, "piece": " "}));
        } else {
            assert_eq!(answer.status, 413, "{}", &answer.body[..200]);
            assert_eq!(answer.error_code(), "request_too_large");
        }
        assert!(
            peak < before + most_growth,
            "limit {limit_bytes}: {before} became {peak} for an answer of {} bytes",
            answer.body.len()
        );
    }
}

#[test]
fn a_model_without_a_tokenizer_says_so() {
    let daemon = Setup::new().scenario("m", "tokens = [\"x\"]\n").start();
    for (path, body) in [
        ("/tokenize", json!({"content": "a"})),
        ("/detokenize", json!({"tokens": [1]})),
    ] {
        let answer = daemon.post(path, &body);
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (400, "tokenizer_unknown")
        );
    }
}

#[test]
fn a_broken_tokenizer_is_an_error_and_no_more() {
    let daemon = Setup::new()
        .scenario("m", "tokens = [\"x\"]\n")
        .model_file("m", "tokenizer.json", "{\"model\": 7}")
        .start();
    for _ in 0..2 {
        let answer = daemon.post("/tokenize", &json!({"content": "a"}));
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (500, "tokenizer_failed")
        );
    }
    assert_eq!(daemon.get("/health").status, 200);
}

#[test]
fn tokens_do_not_wait_for_an_answer() {
    let slow = "token-delay-us = 50000\nrepeat = { token = \"w \", times = 3000 }\n";
    let daemon = setup("1_3_1", slow).start();
    let body = chat_body("m", "x", json!({"stream": true}));
    let mut stream = daemon.stream("/v1/chat/completions", &body);
    assert_eq!(stream.next_content().as_deref(), Some("w "));
    for _ in 0..3 {
        assert_eq!(tokens(&daemon, "hi"), json!([6]));
    }
    assert_eq!(daemon.phase("m"), "running");
    assert_eq!(stream.next_content().as_deref(), Some("w "), "it goes on");
}

/// The only reader.
fn process(daemon: &Daemon) -> u32 {
    let found = readers(daemon.pid());
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

#[test]
fn a_process_that_hangs_or_dies_is_replaced() {
    let daemon = setup("1_3_1", "tokens = [\"x\"]\n")
        .settings("deadlines.reader-call = \"300ms\"")
        .start();
    tokens(&daemon, "hi");
    let first = process(&daemon);
    tokens(&daemon, "hi");
    assert_eq!(process(&daemon), first, "it is kept");
    let _stopped = crate::daemon_support::stop(first);
    let late = daemon.post("/tokenize", &json!({"content": "hi"}));
    assert_eq!(
        (late.status, &*late.error_code()),
        (503, "deadline_exceeded")
    );
    eventually("the end of a hung process", || {
        crate::daemon_support::is_gone(first).then_some(())
    });
    assert_eq!(tokens(&daemon, "hi"), json!([6]));
    let second = process(&daemon);
    kill(second);
    eventually("the end of a killed process", || {
        crate::daemon_support::is_gone(second).then_some(())
    });
    assert_eq!(tokens(&daemon, "hi"), json!([6]), "no request notices");
    let metrics = daemon.get("/metrics").body;
    let counted = "rkllmd_deadlines_passed_total{deadline=\"reader-call\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn an_idle_process_ends() {
    let daemon = setup("1_3_1", "tokens = [\"x\"]\n")
        .settings("reader.idle-timeout = \"50ms\"")
        .start();
    tokens(&daemon, "hi");
    eventually("the end of an idle process", || {
        readers(daemon.pid()).is_empty().then_some(())
    });
    assert_eq!(tokens(&daemon, "hi"), json!([6]));
}
