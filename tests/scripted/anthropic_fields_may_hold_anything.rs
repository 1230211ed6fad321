//! Every field of Anthropic's endpoints with every kind of value: what is wrong is refused by its name, and
//! nothing is the daemon's fault.

use crate::http_support::*;
use rkllmd::settings::Settings;
use serde_json::json;

#[tokio::test]
async fn no_value_of_a_field_is_the_daemons_fault() {
    let server = Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await;
    let text = json!({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}, "citations": []});
    let good = json!({
        "model": "thinker", "max_tokens": 3, "stream": false, "system": [text], "temperature": 0.1,
        "top_p": 0.5, "top_k": 3, "stop_sequences": ["a"], "metadata": {"user_id": "u"}, "truncate": false,
        "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
        "output_config": {"effort": "low"}, "cache_control": {"type": "ephemeral", "ttl": "1h"},
        "service_tier": "auto",
        "messages": [
            {"role": "user", "content": [text, {"type": "container_upload", "file_id": "f"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "b", "signature": "rkllmd.1."},
                {"type": "redacted_thinking", "data": "x"},
                text,
                {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": [text], "is_error": true},
                text]},
            {"role": "system", "content": "now"},
            {"role": "user", "content": "go"}],
        "tools": [
            {"type": "custom", "name": "f", "description": "e", "input_schema": {"type": "object"}, "strict": false},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
    });
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let formed = json!({
        "model": "tiny", "max_tokens": 3, "messages": [{"role": "user", "content": "a"}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
        "output_format": {"type": "json_schema", "schema": schema},
    });
    let mut asked = 0;
    for (path, good) in [
        ("/v1/messages", &good),
        ("/v1/messages/count_tokens", &good),
        ("/v1/messages", &formed),
    ] {
        let answer = server.post(path, good.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        for place in places(good) {
            for value in odd_values().iter().map(Some).chain([None]) {
                let body = with(good, &place, value);
                let answer = server.post(path, body.to_string()).await;
                asked += 1;
                assert!(answer.status < 500, "{path} {body}: {}", answer.text());
                if answer.status == 400 {
                    let error = &answer.json()["error"];
                    let is_named = error["param"].is_string() || error["code"] == "invalid_json";
                    assert!(is_named, "{path} {body}: {error}");
                    assert_eq!(error["type"], "invalid_request_error");
                }
            }
        }
    }
    assert!(asked > 2000, "{asked}");
    server.shut_down().await;
}
