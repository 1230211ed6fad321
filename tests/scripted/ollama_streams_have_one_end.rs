//! Random replies through Ollama's API and OpenAI's: whatever a model writes and wherever it fails, the
//! lines are in order and balanced, they have one end, and both say the same.

use crate::http_support::*;
use crate::random_replies::{End, Happens, whatever_a_model_writes};
use proptest::prelude::*;
use serde_json::Value;

/// What the same reply says through OpenAI's API: thoughts and content.
fn openai(answer: &Answer) -> (String, String, usize) {
    let (mut thinking, mut content, mut calls) = (String::new(), String::new(), 0);
    for line in answer.text().lines() {
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            continue;
        };
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        let delta = &chunk["choices"][0]["delta"];
        thinking.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        content.push_str(delta["content"].as_str().unwrap_or_default());
        let begun = delta["tool_calls"].as_array().into_iter().flatten();
        calls += begun.filter(|call| call.get("id").is_some()).count();
    }
    (thinking, content, calls)
}

#[test]
fn whatever_a_model_writes_the_lines_have_one_end() {
    whatever_a_model_writes(async |server, script, end| {
        let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;
        let answer = server.post("/api/chat", body).await;
        let other = server.ask(chat(r#","stream":true"#)).await;
        if end == End::Failure && script.is_empty() {
            prop_assert_eq!((answer.status, other.status), (503, 503));
            prop_assert!(answer.json()["error"].is_string());
            return Ok(());
        }
        let said = said(&answer);
        prop_assert_eq!(said.error.is_some(), end == End::Failure);
        if let Some(last) = &said.last {
            let reason = if end == End::Length { "length" } else { "stop" };
            prop_assert_eq!(&last["done_reason"], reason);
        }
        let (thinking, content, calls) = openai(&other);
        prop_assert_eq!(&said.thinking, &thinking);
        // Calls that cannot be told as such are content.
        let as_content = said
            .content
            .matches("{\"name\": \"f\", \"arguments\": ")
            .count();
        let lost =
            usize::from(end == End::Failure && matches!(script.last(), Some(Happens::Called(_))));
        prop_assert_eq!(said.calls.len() + as_content + lost, calls);
        if as_content == 0 {
            prop_assert_eq!(&said.content, &content);
        }
        Ok(())
    });
}
