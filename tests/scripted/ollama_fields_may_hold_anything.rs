//! Every field of Ollama's endpoints with every kind of value: what is wrong is refused by its name, and
//! nothing is the daemon's fault.

use crate::http_support::*;
use rkllmd::library_calls::PooledRows;
use rkllmd::settings::Settings;
use rkllmd::supervisor::Phase;
use serde_json::json;

async fn server() -> Server {
    let server = Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await;
    server.set_rows(|request| {
        Ok(PooledRows {
            rows: vec![vec![3.0, 4.0]; request.inputs.len()],
            prompt_tokens: Some(7),
        })
    });
    // A request for nothing finds them loaded.
    let ready = |id| (id, status_of(Phase::Ready));
    server
        .status
        .send_replace(snapshot(["test/model-1.0", "thinker"].map(ready)));
    server
}

/// Every field of every endpoint, absent, null, empty and of every wrong type.
#[tokio::test]
async fn no_value_of_a_field_is_the_daemons_fault() {
    let server = server().await;
    let good = [
        (
            "/api/chat",
            json!({
                "model": "thinker", "stream": false, "think": true, "keep_alive": "5m", "format": "",
                "truncate": false, "shift": false, "logprobs": false, "top_logprobs": 0, "options": {
                    "num_predict": 3, "temperature": 0.1, "top_p": 0.5, "top_k": 3, "repeat_penalty": 1.0,
                    "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": 1, "stop": ["a"], "num_ctx": 1,
                    "min_p": 0.1, "num_keep": 1, "use_mmap": true, "mirostat": 1},
                "messages": [
                    {"role": "user", "content": "a", "images": []},
                    {"role": "assistant", "content": "", "thinking": "b", "tool_calls": [
                        {"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}]},
                    {"role": "tool", "content": "d", "tool_name": "f", "tool_call_id": "c"}],
                "tools": [{"type": "function", "function": {"name": "f", "description": "e", "parameters": {}}}],
            }),
        ),
        (
            "/api/generate",
            json!({
                "model": "tiny", "prompt": "a", "system": "b", "raw": false, "suffix": "", "template": "{{ .Prompt }}",
                "context": [], "images": [], "stream": false, "options": {"temperature": 0.1}, "think": false, "special": false,
            }),
        ),
        (
            "/api/embed",
            json!({"model": "tiny", "input": ["a"], "truncate": false, "dimensions": 1,
            "options": {"num_ctx": 1}, "keep_alive": 0}),
        ),
        ("/api/embeddings", json!({"model": "tiny", "prompt": "a"})),
        (
            "/api/show",
            json!({"model": "tiny", "name": "tiny", "verbose": true}),
        ),
        (
            "/api/pull",
            json!({"model": "x", "name": "x", "insecure": true, "stream": false}),
        ),
        ("/api/copy", json!({"source": "tiny", "destination": "y"})),
        (
            "/api/create",
            json!({"model": "z", "name": "z", "from": "tiny", "system": "be kind", "stream": false,
            "messages": [{"role": "user", "content": "a"}], "parameters": {"seed": 1, "stop": ["a"]},
            "license": ["none"], "template": "", "files": {}, "quantize": ""}),
        ),
    ];
    let values = odd_values();
    let mut asked = 0;
    for (path, good) in &good {
        let answer = server.post(path, good.to_string()).await;
        let is_offered = *path != "/api/pull";
        assert_eq!(
            answer.status,
            if is_offered { 200 } else { 400 },
            "{path}: {}",
            answer.text()
        );
        for place in places(good) {
            for value in values.iter().map(Some).chain([None]) {
                let body = with(good, &place, value);
                let answer = server.post(path, body.to_string()).await;
                asked += 1;
                assert!(answer.status < 500, "{path} {body}: {}", answer.text());
                if answer.status == 400 {
                    let error = answer.json();
                    let is_named = error["param"].is_string() || error["code"] == "invalid_json";
                    assert!(
                        is_named || error["code"] == "not_offered",
                        "{path} {body}: {error}"
                    );
                }
            }
        }
    }
    assert!(asked > 800, "{asked}");
    server.shut_down().await;
}
