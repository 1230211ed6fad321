//! What clients read of the real model's log probabilities, in chats, streams and texts.

use crate::daemon_support::{Daemon, Setup, chat};
use serde_json::{Value, json};

pub const MODEL: &str = "smollm2";
pub const CHATS: &str = "/v1/chat/completions";
pub const TEXTS: &str = "/v1/completions";

pub fn start() -> Daemon {
    Setup::new().demo_model(MODEL).start()
}

pub const ROCKETS: &str = "🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀";

/// A chat whose answer goes on with rockets.
pub fn of_rockets(more: Value) -> Value {
    begun("Send rockets.", ROCKETS, more)
}

/// A chat whose answer is begun.
pub fn begun(question: &str, answer: &str, more: Value) -> Value {
    let mut body = chat(MODEL, question, more);
    let begun = json!({"role": "assistant", "content": answer});
    body["messages"]
        .as_array_mut()
        .expect("messages")
        .push(begun);
    body
}

pub fn bytes_of(tokens: &[Value]) -> Vec<u8> {
    let bytes = |token: &Value| -> Vec<u8> {
        serde_json::from_value(token["bytes"].clone()).expect("bytes")
    };
    tokens.iter().flat_map(bytes).collect()
}

/// The whole characters of the tokens, and whether they end within a further one.
pub fn characters(tokens: &[Value]) -> (String, bool) {
    let bytes = bytes_of(tokens);
    let whole = match str::from_utf8(&bytes) {
        Ok(text) => text.len(),
        Err(error) => {
            assert_eq!(error.error_len(), None, "{bytes:?}");
            error.valid_up_to()
        }
    };
    let text = String::from_utf8(bytes[..whole].to_vec()).expect("whole characters");
    (text, whole < bytes.len())
}

/// What holds of each token with its likeliest ones.
pub fn hold(token: &Value, top: usize) {
    let likeliest = token["top_logprobs"].as_array().expect("a list");
    assert_eq!(likeliest.len(), top, "{token}");
    let value = |of: &Value| of["logprob"].as_f64().expect("a number");
    let all: Vec<f64> = likeliest.iter().map(value).collect();
    assert!(all.is_sorted_by(|a, b| a >= b), "{token}");
    assert!(all.iter().map(|value| value.exp()).sum::<f64>() < 1.0 + 1e-4);
    assert!(value(token) <= 0.0);
    let own = likeliest
        .iter()
        .find(|other| other["bytes"] == token["bytes"]);
    assert!(
        own.is_none_or(|own| own["logprob"] == token["logprob"]),
        "{token}"
    );
}

/// The chunks of a stream, and their content with its tokens.
pub fn streamed(daemon: &Daemon, body: &Value) -> (Vec<Value>, String, Vec<Value>) {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let events = daemon.stream(CHATS, &body).collect();
    let chunks = events.iter().map(|(_, data)| data);
    let chunks: Vec<Value> = chunks
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    for chunk in &chunks {
        assert!(chunk.get("error").is_none(), "{chunk}");
        let choice = &chunk["choices"][0];
        let piece = choice["delta"]["content"].as_str().unwrap_or_default();
        text.push_str(piece);
        let of_piece = choice["logprobs"]["content"].as_array();
        assert!(of_piece.is_some() || piece.is_empty(), "{chunk}");
        if let Some(last) = of_piece.filter(|_| piece.is_empty()) {
            // Of a character that the answer ends within.
            assert_eq!(characters(last), (String::new(), true), "{chunk}");
        }
        tokens.extend(of_piece.into_iter().flatten().cloned());
    }
    (chunks, text, tokens)
}

/// The parallel lists of a text's log probabilities.
pub fn lists(choice: &Value) -> (Vec<String>, Vec<Option<f64>>, Vec<usize>) {
    let told = &choice["logprobs"];
    let list = |name: &str| told[name].clone();
    let lists: (Vec<String>, Vec<Option<f64>>, Vec<usize>) = (
        serde_json::from_value(list("tokens")).expect("texts"),
        serde_json::from_value(list("token_logprobs")).expect("numbers"),
        serde_json::from_value(list("text_offset")).expect("places"),
    );
    let count = told["top_logprobs"].as_array().expect("a list").len();
    assert_eq!([lists.1.len(), lists.2.len(), count], [lists.0.len(); 3]);
    lists
}
