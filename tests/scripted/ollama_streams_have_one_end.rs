//! Random replies through Ollama's API and OpenAI's: whatever a model writes and wherever it fails, the
//! lines and the chunks are in order and balanced, they have one end, and both say the same.

use crate::http_support::*;
use crate::random_replies::{End, Happens, whatever_a_model_writes};
use proptest::prelude::*;

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
        let other = chunks(&other);
        prop_assert_eq!(other.error.is_some(), end == End::Failure);
        prop_assert_eq!(&said.thinking, &other.thinking);
        // Calls that cannot be told as such are content.
        let as_content = said
            .content
            .matches("{\"name\": \"f\", \"arguments\": ")
            .count();
        let lost =
            usize::from(end == End::Failure && matches!(script.last(), Some(Happens::Called(_))));
        prop_assert_eq!(said.calls.len() + as_content + lost, other.calls.len());
        if as_content == 0 {
            prop_assert_eq!(&said.content, &other.content);
        }
        Ok(())
    });
}
