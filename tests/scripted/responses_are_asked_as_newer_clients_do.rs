//! What newer clients of OpenAI's responses leave out or add: it is done, or told as what is not.

use crate::http_support::*;
use crate::responses_requests_are_checked::{PATH, server, submitted};
use serde_json::{Value, json};

fn told(answer: &Answer) -> Vec<&str> {
    let told = answer.header("x-rkllmd-not-applied");
    let mut told: Vec<&str> = told.map_or_else(Vec::new, |told| told.split(", ").collect());
    told.sort_unstable();
    told
}

#[tokio::test]
async fn what_goes_on_from_a_response_may_say_nothing_new() {
    let mut server = server().await;
    let first = json!({"model": "thinker", "input": "hi"});
    let (_, first) = submitted(&mut server, &first).await;
    let id = first.json()["id"].clone();
    let empty = json!({"model": "thinker", "previous_response_id": id, "input": []});
    let (expected, _) = submitted(&mut server, &empty).await;
    for input in [None, Some(Value::Null)] {
        let body = with(&empty, "/input", input.as_ref());
        let (request, _) = submitted(&mut server, &body).await;
        assert_eq!(request.prompt, expected.prompt, "{body}");
        for path in ["input_tokens", "compact"] {
            let asked = |body: &Value| post(&format!("{PATH}/{path}"), body.to_string());
            let answer = server.ask(asked(&body)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            if path == "input_tokens" {
                assert_eq!(answer.json(), server.ask(asked(&empty)).await.json());
            }
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_asked_and_not_done_is_told_wherever_it_stands() {
    let mut server = server().await;
    let body = json!({
        "model": "tiny", "input": "a", "service_tier": "priority", "prompt_cache_retention": "24h",
        "stream_options": {"include_obfuscation": true}, "max_tool_calls": 3, "moderation": {"model": "m"},
        "reasoning": {"context": "auto", "a,b": 1, "mode": null}, "text": {"verbosity": "low", "style": "s"},
    });
    let (_, answer) = submitted(&mut server, &body).await;
    assert_eq!(
        told(&answer),
        [
            "max_tool_calls",
            "moderation",
            "prompt_cache_retention",
            "reasoning.a%2Cb",
            "reasoning.context",
            "service_tier",
            "stream_options.include_obfuscation",
            "text.style",
            "text.verbosity",
        ]
    );
    let body = json!({
        "model": "tiny", "input": "a", "service_tier": "auto", "prompt_cache_retention": "in_memory",
        "stream_options": {"include_obfuscation": false}, "reasoning": {}, "text": {"verbosity": "medium"},
    });
    let (_, answer) = submitted(&mut server, &body).await;
    assert_eq!(told(&answer), [""; 0]);
    server.shut_down().await;
}

#[tokio::test]
async fn tools_that_are_not_known_may_be_among_those_that_are_allowed() {
    let mut server = server().await;
    let f = json!({"type": "function", "name": "f"});
    let search = json!({"type": "web_search"});
    let body = |mode: &str, tools: Value, allowed: Value| {
        json!({"model": "picky", "input": "a", "tools": tools,
            "tool_choice": {"type": "allowed_tools", "mode": mode, "tools": allowed}})
    };
    let known = ["tool_choice.tools[].web_search", "tools[].web_search"];
    for (mode, tools, allowed, is_told) in [
        ("auto", json!([f, search]), json!([f, search]), true),
        ("required", json!([f, search]), json!([search, f]), true),
        ("auto", json!([f, search]), json!([search]), false),
        ("auto", json!([search]), json!([search]), false),
    ] {
        let body = body(mode, tools, allowed);
        let (request, answer) = submitted(&mut server, &body).await;
        assert_eq!(told(&answer), known, "{body}");
        assert_eq!(request.prompt.contains("\"f\""), is_told, "{body}");
    }
    let nothing = body("required", json!([f, search]), json!([search]));
    let refused = server.post(PATH, nothing.to_string()).await;
    let (_, param, code) = refused.error();
    assert_eq!(
        (refused.status, param.as_deref(), &*code),
        (400, Some("tool_choice.tools"), "unsupported_parameter")
    );
    server.shut_down().await;
}
