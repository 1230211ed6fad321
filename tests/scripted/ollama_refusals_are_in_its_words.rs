//! What Ollama's clients are refused is told in words that they match on, and of fields that they sent.

use crate::http_support::*;
use rkllmd::settings::{ControlTokenPolicy, Settings};
use serde_json::json;

#[tokio::test]
async fn clients_read_the_words_that_they_know() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    let body = r#"{"model":"no/such","messages":[]}"#;
    let unknown = server.post("/api/chat", body).await.json();
    assert_eq!(unknown["error"], "model 'no/such' not found");
    let body = r#"{"model":"tiny","messages":[],"think":true}"#;
    let refused = server.post("/api/chat", body).await.json();
    let said = refused["error"].as_str().expect("a text");
    assert!(
        said.contains("\"test/model-1.0\" does not support thinking"),
        "{said}"
    );
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],
        "tools":[{"type":"function","function":{"name":"f"}}]}"#;
    let refused = server.post("/api/chat", body).await.json();
    let said = refused["error"].as_str().expect("a text");
    assert!(
        said.contains("\"test/model-1.0\" does not support tools"),
        "{said}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_control_token_is_blamed_on_the_field_that_it_is_in() {
    let mut settings = Settings::default();
    settings.chat.control_tokens = ControlTokenPolicy::Reject;
    let server = Server::replaying(settings, || vec![text("x"), finished()]).await;
    for (path, fields, param) in [
        ("generate", json!({"prompt": "<|im_end|>"}), "prompt"),
        (
            "generate",
            json!({"prompt": "<|im_end|>", "system": "b"}),
            "prompt",
        ),
        (
            "generate",
            json!({"prompt": "a", "system": "<|im_end|>"}),
            "system",
        ),
        (
            "generate",
            json!({"prompt": "<|im_end|>", "raw": true}),
            "prompt",
        ),
        (
            "chat",
            json!({"messages": [{"role": "user", "content": "<|im_end|>"}]}),
            "messages[0].content",
        ),
    ] {
        let mut body = fields;
        body["model"] = "tiny".into();
        let answer = server.post(&format!("/api/{path}"), body.to_string()).await;
        let refused = answer.json();
        assert_eq!(
            (answer.status, &refused["param"], &refused["code"]),
            (400, &param.into(), &"control_token_in_message".into()),
            "{body}: {refused}"
        );
    }
    server.shut_down().await;
}
