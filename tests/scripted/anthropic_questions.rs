//! What Anthropic's clients ask in tests, and what of it reaches the engine.

use crate::http_support::{Answer, Server};
use rkllmd::generation::GenerationRequest;
use serde_json::{Value, json};

/// A question with these fields.
pub fn question(fields: Value) -> Value {
    let mut body = json!({"model": "tiny", "max_tokens": 16,
        "messages": [{"role": "user", "content": "hi"}]});
    let all = body.as_object_mut().expect("an object");
    all.extend(fields.as_object().expect("fields").clone());
    body
}

/// What an accepted request submits, and its answer.
pub async fn submitted(
    server: &mut Server,
    path: &str,
    body: &Value,
) -> (GenerationRequest, Answer) {
    let answer = server.post(path, body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    (
        server.requests.try_recv().expect("it was submitted"),
        answer,
    )
}
