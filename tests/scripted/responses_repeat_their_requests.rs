//! What a response repeats of its request, and how much of it.

use crate::http_support::*;
use crate::responses_requests_are_checked::{PATH, server, submitted};
use serde_json::{Value, json};

#[tokio::test]
async fn a_response_repeats_its_request() {
    let mut server = server().await;
    let body = json!({
        "model": "tiny", "input": "a", "instructions": "i", "max_output_tokens": 5, "temperature": 0.5, "top_p": 1,
        "metadata": {"a": "b\n"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k",
        "service_tier": "flex", "truncation": "auto", "parallel_tool_calls": false, "tool_choice": "none",
        "reasoning": {"effort": "none"}, "text": {"format": {"type": "text"}}, "store": false, "stop": ["x"],
    });
    let (request, answer) = submitted(&mut server, &body).await;
    assert_eq!(request.max_new_tokens, Some(5));
    let response = answer.json();
    is_whole_resource(&response);
    for (name, value) in body.as_object().expect("an object") {
        match name.as_str() {
            "model" => assert_eq!(response["model"], "test/model-1.0"),
            "input" | "stop" => {}
            "reasoning" => assert_eq!(
                response["reasoning"],
                json!({"effort": "none", "summary": null})
            ),
            "top_p" => assert_eq!(response["top_p"], 1.0),
            name => assert_eq!(&response[name], value, "{name}"),
        }
    }
    let told = answer.header("x-rkllmd-not-applied").expect("names");
    assert!(told.split(", ").any(|name| name == "stop"), "{told}");
    let request_id = answer.header("x-request-id").expect("an id");
    let digits = request_id.strip_prefix("req-").expect("its kind");
    assert_eq!(response["id"], format!("resp_{digits}"));
    let plain = json!({"model": "tiny", "input": "a"});
    let (_, answer) = submitted(&mut server, &plain).await;
    let response = answer.json();
    assert_eq!(response["store"], true);
    for unsaid in [
        "temperature",
        "max_output_tokens",
        "service_tier",
        "instructions",
    ] {
        assert_eq!(response[unsaid], Value::Null, "{unsaid}");
    }
    // A line of the client's in an event stays in its line.
    let streamed = json!({"model": "thinker", "input": "a", "stream": true,
        "metadata": {"a": "\n"}, "tool_choice": "auto"});
    let streamed = streamed.to_string().replace("\"auto\"", "\n \"auto\"");
    let tools = r#","tools":[{"type":"function","name":"f","parameters":{ "type":
        "object" }}]}"#;
    let streamed = format!("{}{tools}", &streamed[..streamed.len() - 1]);
    let heard = heard_response(&server.post(PATH, streamed).await);
    assert_eq!(
        heard.response["tools"][0]["parameters"],
        json!({"type": "object"})
    );
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_repeated_is_short() {
    let server = server().await;
    let many = |count: usize| {
        let entries = (0..count).map(|n| (format!("k{n}"), json!("v")));
        Value::Object(entries.collect())
    };
    let text = |most: usize| json!("ä".repeat(most));
    let entry = |name: usize, value: usize| json!({"k".repeat(name): text(value)});
    for (field, longest, longer) in [
        ("metadata", many(16), many(17)),
        ("metadata", entry(64, 512), entry(65, 1)),
        ("metadata", entry(1, 512), entry(1, 513)),
        ("user", text(512), text(513)),
        ("safety_identifier", text(64), text(65)),
        ("prompt_cache_key", text(64), text(65)),
        ("service_tier", text(64), text(65)),
    ] {
        let body = json!({"model": "tiny", "input": "a", field: longest});
        let answer = server.post(PATH, body.to_string()).await;
        assert_eq!((answer.status, &answer.json()[field]), (200, &longest));
        let body = json!({"model": "tiny", "input": "a", field: longer});
        let answer = server.post(PATH, body.to_string()).await;
        let (_, param, code) = answer.error();
        assert_eq!(
            (answer.status, param.as_deref(), &*code),
            (400, Some(field), "invalid_value")
        );
    }
    let body = json!({"model": "tiny", "input": "a", "reasoning": {"effort": "none", "summary": text(65)}});
    let answer = server.post(PATH, body.to_string()).await;
    assert_eq!(answer.error().1.as_deref(), Some("reasoning.summary"));
    server.shut_down().await;
}
