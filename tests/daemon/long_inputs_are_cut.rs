//! Texts that are to be embedded and do not fit the model's context: their beginnings are, where Ollama's clients do
//! not forbid it, and how many were cut is told; OpenAI's are refused.

use crate::daemon_support::{Answer, Daemon, Setup, word_tokenizer};
use serde_json::{Value, json};

const OLLAMA: &str = "/api/embed";
const OPENAI: &str = "/v1/embeddings";
const CUT: &str = "x-rkllmd-truncated-inputs";

/// A model whose context has 64 tokens, each a word.
fn start(manifest: &str) -> Daemon {
    Setup::new()
        .scenario("m", "tokens = [\"x\"]\n")
        .model_file("m", "tokenizer.json", &word_tokenizer(&["<|end|>"]))
        .model_file(
            "m",
            "model.toml",
            &format!("template = \"chatml\"\ncontext-length = 64\n{manifest}"),
        )
        .start()
}

fn body(input: Value, more: Value) -> Value {
    let mut body = json!({"model": "m", "input": input});
    let more = more.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

fn words(count: usize) -> String {
    "ä本 ".repeat(count)
}

/// The rows, how many texts were cut, and how many tokens were read.
fn embedded(answer: &Answer) -> (usize, Option<&str>, u64) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = answer.json();
    let rows = told["embeddings"].as_array().expect("rows").len();
    let tokens = told["prompt_eval_count"].as_u64().expect("a count");
    (rows, answer.header(CUT), tokens)
}

#[test]
fn the_beginning_is_embedded_unless_that_is_forbidden() {
    for manifest in ["", "[embeddings]\nsuffix = \" <|end|>\"\n"] {
        let daemon = start(manifest);
        let input = json!([words(3), words(500), words(70), words(40)]);
        for more in [
            json!({}),
            json!({"truncate": true}),
            json!({"truncate": null}),
        ] {
            let answer = daemon.post(OLLAMA, &body(input.clone(), more));
            let (rows, cut, tokens) = embedded(&answer);
            assert_eq!((rows, cut), (4, Some("2")));
            // Two of them fill the context but for what may stand around a text, and nearly so.
            let whole = 3 + 40 + 2 * 64;
            assert!(
                (whole - 22..=whole).contains(&tokens),
                "{tokens} of {whole}"
            );
            assert_eq!(answer.header("x-rkllmd-not-applied"), None);
        }
        let refused = daemon.post(OLLAMA, &body(input.clone(), json!({"truncate": false})));
        let error = refused.json();
        assert_eq!(
            (refused.status, &error["code"], &error["param"]),
            (400, &json!("context_length_exceeded"), &json!("input[1]"))
        );
        let refused = daemon.post(OPENAI, &body(input, json!({})));
        assert_eq!(
            (refused.status, refused.error_code().as_str()),
            (400, "context_length_exceeded")
        );
    }
}

#[test]
fn what_is_longer_than_any_text_that_fits_is_cut_as_well() {
    let daemon = start("");
    // A word of many bytes is one token, and no more bytes than these are looked at.
    let long = format!("{} {}", "w".repeat(3000), words(3000));
    let answer = daemon.post(OLLAMA, &body(json!(long), json!({})));
    let (rows, cut, tokens) = embedded(&answer);
    assert_eq!((rows, cut), (1, Some("1")));
    assert!((50..=64).contains(&tokens), "{tokens}");
}

#[test]
fn where_no_token_can_be_counted_that_is_said() {
    let daemon = Setup::new().scenario("m", "tokens = [\"x\"]\n").start();
    let long = json!("w ".repeat(3000));
    let asked = daemon.post(OLLAMA, &body(long.clone(), json!({"truncate": true})));
    assert_eq!(asked.header("x-rkllmd-not-applied"), Some("truncate"));
    let not_asked = daemon.post(OLLAMA, &body(long, json!({})));
    assert_eq!(not_asked.header("x-rkllmd-not-applied"), None);
}
