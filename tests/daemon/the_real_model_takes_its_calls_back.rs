//! What the real model has written of a call comes back in the next request as the same tokens, under the
//! templates that allow it: the second turn evaluates what is new and nothing else.

use crate::daemon_support::{Daemon, Setup};
use crate::template_support::templates;
use serde_json::{Value, json};

/// Templates of the demo model's own turns (`<|im_start|>` is a token of it), each with a form of calls of
/// its own.
const TEMPLATES: [&str; 4] = [
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "Qwen3-Coder",
    "openbmb-MiniCPM5-1B",
];

/// Calls that a small model can copy.
fn examples() -> Vec<Value> {
    let cities = ["Paris", "Rome", "Oslo", "Madrid", "Vienna"];
    let turns = cities.iter().enumerate().flat_map(|(index, city)| {
        [
            json!({"role": "user", "content": format!("city {city}")}),
            json!({"role": "assistant", "content": null, "tool_calls": [{
                "id": format!("call0000{index}"), "type": "function",
                "function": {"name": "weather", "arguments": format!("{{\"city\": \"{city}\"}}")},
            }]}),
        ]
    });
    let mut messages: Vec<Value> = turns.collect();
    messages.push(json!({"role": "user", "content": "city London"}));
    messages
}

fn ask(daemon: &Daemon, model: &str, messages: &[Value], max_tokens: u32) -> Value {
    let body = json!({
        "model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0,
        "tools": [{"type": "function", "function": {
            "name": "weather", "description": "Tells it.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        }}],
    });
    let answer = daemon.post("/v1/chat/completions", &body);
    assert_eq!(answer.status, 200, "{model}: {}", answer.body);
    answer.json()
}

fn count(answer: &Value, pointer: &str) -> u64 {
    let count = answer.pointer(pointer).and_then(Value::as_u64);
    count.unwrap_or_else(|| panic!("{pointer} of {answer}"))
}

/// The next turn of a conversation in which the model has called `weather` with `arguments`.
fn with_result(arguments: &str, answer: &Value) -> Vec<Value> {
    let mut message = answer["choices"][0]["message"].clone();
    let call = &mut message["tool_calls"][0];
    call["function"]["arguments"] = arguments.into();
    let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "windy"});
    let mut messages = examples();
    messages.extend([message, result]);
    messages
}

#[test]
fn the_second_turn_evaluates_only_what_is_new() {
    let all = templates();
    let mut setup = Setup::new().demo_model(TEMPLATES[0]);
    for name in &TEMPLATES[1..] {
        setup = setup.demo_model_again(name);
    }
    for name in TEMPLATES {
        setup = setup.model_file(name, "chat_template.jinja", &all[name]);
    }
    let daemon = setup.start();
    for name in TEMPLATES {
        let first = ask(&daemon, name, &examples(), 48);
        let choice = &first["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{name}: {first}");
        let function = &choice["message"]["tool_calls"][0]["function"];
        let arguments = function["arguments"].as_str().expect("a text");
        assert!(arguments.contains("London"), "{name}: {first}");
        // The last token ends the answer: it is made and never evaluated.
        let held =
            count(&first, "/usage/prompt_tokens") + count(&first, "/usage/completion_tokens") - 1;
        let cached = "/usage/prompt_tokens_details/cached_tokens";

        let second = ask(&daemon, name, &with_result(arguments, &first), 2);
        assert_eq!(count(&second, cached), held, "{name}: {second}");
        let prompt = count(&second, "/usage/prompt_tokens");
        assert_eq!(count(&second, "/timings/prompt_n"), prompt - held, "{name}");

        // The same call in other words is another text.
        let reworded = arguments.replace("London", "Dublin");
        let other = ask(&daemon, name, &with_result(&reworded, &first), 2);
        assert!(count(&other, cached) < held, "{name}: {other}");
    }
}
