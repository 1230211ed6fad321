//! A stranger's first request: real text from a real model, token by token, through every layer.

use crate::daemon_support::{Setup, chat, completion};
use serde_json::{Value, json};

const MODEL: &str = "smollm2";

#[test]
fn text_arrives_token_by_token_while_it_is_made() {
    let daemon = Setup::new().demo_model(MODEL).all_threads().start();
    let body = chat(
        MODEL,
        "Write two sentences about the sea.",
        json!({
            "stream": true, "max_tokens": 64, "temperature": 0,
            "stream_options": {"include_usage": true},
        }),
    );
    // Loaded first, so that the time to the first token is that of the stream.
    assert_eq!(
        daemon
            .post("/v1/chat/completions", &body_without_stream(&body))
            .status,
        200
    );
    let stream = daemon.stream("/v1/chat/completions", &body);
    assert_eq!(stream.status, 200);
    let sent_at = stream.sent_at;
    let events = stream.collect();
    let (done, chunks) = events.split_last().expect("events");
    assert_eq!(done.1, "[DONE]");
    let chunks: Vec<(_, Value)> = chunks
        .iter()
        .map(|(at, data)| (*at, serde_json::from_str(data).expect("a chunk is JSON")))
        .collect();

    let first = &chunks[0].1;
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    for (_, chunk) in &chunks {
        for key in ["id", "created", "model"] {
            assert_eq!(chunk[key], first[key], "{key} is the same in every chunk");
        }
        assert_eq!(chunk["object"], "chat.completion.chunk");
    }
    let contents: Vec<_> = chunks
        .iter()
        .filter_map(|(at, chunk)| {
            let text = chunk["choices"][0]["delta"]["content"].as_str()?;
            (!text.is_empty()).then_some((*at, text))
        })
        .collect();
    assert!(contents.len() > 20, "{} content chunks", contents.len());
    let mut moments: Vec<_> = contents.iter().map(|(at, _)| *at).collect();
    moments.dedup();
    assert!(
        moments.len() > 20,
        "only {} moments in which chunks arrived",
        moments.len()
    );
    let total = done.0 - sent_at;
    let to_first = contents[0].0 - sent_at;
    assert!(
        to_first * 3 < total,
        "first text after {to_first:?} of {total:?}"
    );

    let text: String = contents.iter().map(|(_, text)| *text).collect();
    assert!(
        text.to_lowercase().contains("sea") || text.to_lowercase().contains("ocean"),
        "{text}"
    );
    let last = &chunks[chunks.len() - 2].1;
    let usage = &chunks[chunks.len() - 1].1["usage"];
    let finish = last["choices"][0]["finish_reason"].as_str();
    assert!(matches!(finish, Some("stop" | "length")), "{last}");
    let completion_tokens = usage["completion_tokens"].as_u64().expect("counted");
    assert!((20..=64).contains(&completion_tokens), "{usage}");
    assert!(
        usage["prompt_tokens"].as_u64().expect("counted") > 10,
        "{usage}"
    );
    assert!(
        last["timings"]["predicted_per_second"]
            .as_f64()
            .expect("measured")
            > 0.0,
        "{last}"
    );
}

fn body_without_stream(body: &Value) -> Value {
    let mut body = body.clone();
    let fields = body.as_object_mut().expect("an object");
    fields.remove("stream");
    fields.remove("stream_options");
    body
}

#[test]
fn greedy_answers_repeat_and_the_second_prefill_is_cached() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let body = chat(
        MODEL,
        "Count from one to five.",
        json!({"max_tokens": 24, "temperature": 0}),
    );
    let first = daemon.post("/v1/chat/completions", &body);
    let second = daemon.post("/v1/chat/completions", &body);
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(first.content(), second.content());
    let (first, second) = (first.json(), second.json());
    let prompt = first["usage"]["prompt_tokens"].as_u64().expect("counted");
    assert_eq!(second["usage"]["prompt_tokens"].as_u64(), Some(prompt));
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    // The last tokens of a prompt are evaluated again.
    let evaluated = cached.and_then(|cached| prompt.checked_sub(cached));
    assert!(matches!(evaluated, Some(1..8)), "{cached:?} of {prompt}");
    assert_eq!(second["timings"]["prompt_n"].as_u64(), evaluated);
}

#[test]
fn a_raw_completion_continues_its_prompt() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let extra = json!({"max_tokens": 8, "temperature": 0});
    let answer = daemon.post(
        "/v1/completions",
        &completion(MODEL, "The capital of France is", extra),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    let text = body["choices"][0]["text"].as_str().expect("text");
    assert!(text.contains("Paris"), "{text}");
    assert_eq!(body["usage"]["completion_tokens"], 8);
}

#[test]
fn a_prompt_over_the_context_names_both_numbers() {
    let toml = "context-length = 64\n";
    let daemon = Setup::new()
        .demo_model(MODEL)
        .model_file(MODEL, "model.toml", toml)
        .start();
    let long = "many words ".repeat(200);
    let answer = daemon.post("/v1/chat/completions", &chat(MODEL, &long, json!({})));
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "context_length_exceeded")
    );
    let message = answer.json()["error"]["message"].to_string();
    let numbers: Vec<u32> = message
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    assert!(
        numbers.iter().any(|&n| n > 200) && numbers.iter().any(|&n| n <= 64),
        "{message}"
    );
    // The next one fits.
    let answer = daemon.post(
        "/v1/chat/completions",
        &chat(MODEL, "Hi", json!({"max_tokens": 4})),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[test]
fn an_answer_ends_with_length_before_the_window_shifts() {
    let toml = "context-length = 96\n";
    let daemon = Setup::new()
        .demo_model(MODEL)
        .model_file(MODEL, "model.toml", toml)
        .start();
    let prompt = "Write a very long story about a dragon and a knight, with many chapters.";
    let answer = daemon.post(
        "/v1/chat/completions",
        &chat(MODEL, prompt, json!({"temperature": 0})),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    let total = body["usage"]["total_tokens"].as_u64().expect("counted");
    assert!(
        (60..=96).contains(&total),
        "{total} tokens in a window of 96"
    );
}
