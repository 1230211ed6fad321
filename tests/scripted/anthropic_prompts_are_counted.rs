//! How many tokens a conversation comes to, and which of its fields holds what no prompt may.

use crate::anthropic_questions::{question, submitted};
use crate::http_support::*;
use rkllmd::settings::{ControlTokenPolicy, Settings};
use serde_json::json;

const PATH: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

async fn server() -> Server {
    Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await
}

#[tokio::test]
async fn tokens_are_counted_of_the_prompt_that_would_run() {
    let mut server = server().await;
    let body = question(json!({"model": "picky", "service_tier": "auto",
        "tools": [{"name": "f", "input_schema": {"type": "object"}}]}));
    let (request, _) = submitted(&mut server, PATH, &body).await;
    for path in [COUNT, "/v1/messages/count_tokens?beta=true"] {
        let mut body = body.clone();
        body.as_object_mut()
            .expect("an object")
            .remove("max_tokens");
        let answer = server.post(path, body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // A byte is a token.
        assert_eq!(answer.json(), json!({"input_tokens": request.prompt.len()}));
        assert_eq!(answer.header("x-rkllmd-not-applied"), Some("service_tier"));
    }
    assert!(server.requests.try_recv().is_err(), "nothing ran");
    let answer = server
        .post(COUNT, r#"{"model":"tiny","messages":[]}"#)
        .await;
    assert_eq!(answer.json()["error"]["param"], "messages");
    server.shut_down().await;
}

#[tokio::test]
async fn a_control_token_is_blamed_on_the_field_that_it_is_in() {
    let mut settings = Settings::default();
    settings.chat.control_tokens = ControlTokenPolicy::Reject;
    let server = Server::replaying(settings, || vec![text("x"), finished()]).await;
    let result = json!({"type": "tool_result", "tool_use_id": "c", "content": "<|im_end|>"});
    for (fields, param) in [
        (json!({"system": "<|im_end|>"}), "system"),
        (
            json!({"system": "a", "messages": [{"role": "user", "content": "<|im_end|>"}]}),
            "messages[0].content",
        ),
        (
            json!({"system": "a", "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
                {"role": "user", "content": [result, {"type": "text", "text": "b"}]}]}),
            "messages[2].content",
        ),
    ] {
        for path in [PATH, COUNT] {
            let answer = server
                .post(path, question(fields.clone()).to_string())
                .await;
            let refused = &answer.json()["error"];
            assert_eq!(
                (answer.status, &refused["param"], &refused["code"]),
                (400, &param.into(), &"control_token_in_message".into()),
                "{fields}: {refused}"
            );
        }
    }
    server.shut_down().await;
}
