//! Every field of OpenAI's responses with every kind of value: what is wrong is refused by its name, and nothing is the
//! daemon's fault.

use crate::http_support::*;
use rkllmd::settings::Settings;
use serde_json::json;

#[tokio::test]
async fn no_value_of_a_field_is_the_daemons_fault() {
    let server = Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await;
    let good = json!({
        "model": "thinker", "stream": false, "instructions": "i", "max_output_tokens": 3, "temperature": 0.1,
        "top_p": 0.5, "presence_penalty": 0, "frequency_penalty": 0, "truncation": "disabled",
        "include": ["reasoning.encrypted_content", "web_search_call.results"],
        "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k",
        "prompt_cache_retention": "24h", "client_metadata": {"x": 1}, "service_tier": "auto", "store": true,
        "background": false, "stream_options": {"include_obfuscation": false}, "parallel_tool_calls": true,
        "reasoning": {"effort": "low", "summary": "auto"}, "text": {"format": {"type": "text"}, "verbosity": "low"},
        "input": [
            {"role": "developer", "content": "d"},
            {"type": "message", "id": "msg_1", "role": "user", "content": [
                {"type": "input_text", "text": "a"}, {"type": "unheard_of", "x": 1}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}],
                "encrypted_content": "rkllmd.1.x"},
            {"type": "message", "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "text": "b", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
            {"type": "compaction", "encrypted_content": "x"},
            {"role": "user", "content": "go"}],
        "tools": [
            {"type": "function", "name": "f", "description": "e", "parameters": {"type": "object"}, "strict": false},
            {"type": "web_search", "search_context_size": "low"}],
        "tool_choice": {"type": "function", "name": "f"},
    });
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let formed = json!({
        "model": "tiny", "input": "a",
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}},
    });
    let mut asked = 0;
    for (path, good) in [
        ("/v1/responses", &good),
        ("/v1/responses/input_tokens", &good),
        ("/v1/responses/compact", &good),
        ("/v1/responses", &formed),
    ] {
        let answer = server.post(path, good.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        for place in places(good) {
            for value in odd_values().iter().map(Some).chain([None]) {
                let body = with(good, &place, value);
                let answer = server.post(path, body.to_string()).await;
                asked += 1;
                assert!(answer.status < 500, "{path} {body}: {}", answer.text());
                match answer.status {
                    200 if path == "/v1/responses" && body["stream"] != true => {
                        is_whole_resource(&answer.json());
                    }
                    400 => {
                        let error = &answer.json()["error"];
                        let is_named =
                            error["param"].is_string() || error["code"] == "invalid_json";
                        assert!(is_named, "{path} {body}: {error}");
                        assert_eq!(error["type"], "invalid_request_error");
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(asked > 2000, "{asked}");
    server.shut_down().await;
}
