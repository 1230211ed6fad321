//! A model that is given functions and a format either calls, in whatever form it writes calls, or its content is of
//! the format.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::calls_obey::{MODEL, ask, calls, id_of, of_each_family, tiny_models};
use crate::daemon_support::{Answer, Daemon, Setup};
use crate::json_judge::fault;
use rkllmd::reply::ReplyFamily;
use serde_json::{Value, json};

/// JSON that an answer is where it calls nothing.
fn sky() -> Value {
    json!({"type": "object", "required": ["sky"], "properties": {"sky": {"enum": ["blue", "grey"]}},
        "additionalProperties": false})
}

fn with_format(mut more: Value) -> Value {
    more["response_format"] = json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": sky()}});
    more
}

/// Whether it is of the format; otherwise it is calls, and of their schemas.
fn is_of_the_format(answer: &Answer) -> bool {
    let (made, reason) = calls(answer);
    let content = &answer.json()["choices"][0]["message"]["content"];
    match made.is_empty() {
        true => {
            assert_eq!(reason, "stop", "{}", answer.body);
            let content = content.as_str().expect("it has a content");
            assert_eq!(fault(&sky(), content), None, "{content}");
        }
        false => {
            assert_eq!(reason, "tool_calls", "{}", answer.body);
            let content = content.as_str().unwrap_or_default();
            assert_eq!(content.trim(), "", "{}", answer.body);
        }
    }
    made.is_empty()
}

#[test]
fn beside_functions_an_answer_without_calls_is_of_its_format() {
    let daemon = Setup::new().demo_model(MODEL).start();
    for seed in 0..6 {
        let asked = json!({"seed": seed, "parallel_tool_calls": false});
        let answer = ask(&daemon, MODEL, with_format(asked));
        println!("{}", is_of_the_format(&answer));
        assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    }
    let none = ask(
        &daemon,
        MODEL,
        with_format(json!({"seed": 1, "tool_choice": "none"})),
    );
    assert!(is_of_the_format(&none), "{}", none.body);
    let required = json!({"seed": 1, "tool_choice": "required", "parallel_tool_calls": false});
    let required = ask(&daemon, MODEL, with_format(required));
    assert!(!is_of_the_format(&required), "{}", required.body);
    let not_applied = required.header("x-rkllmd-not-applied");
    assert_eq!(not_applied, Some("response_format"));
}

#[test]
fn beside_a_format_models_call_with_their_markers() {
    let daemon = tiny_models().start();
    let tried = AtomicUsize::new(0);
    of_each_family(|family| {
        let both = usize::from(calls_or_answers(&daemon, family));
        tried.fetch_add(both, Ordering::Relaxed);
    });
    let tried = tried.into_inner();
    assert!(tried >= 8, "{tried}");
}

/// `false`: its calls begin with no token of its own, or its content does.
fn calls_or_answers(daemon: &Daemon, family: ReplyFamily) -> bool {
    let format = family.format();
    let Some(calls_of) = format.calls.filter(|_| format.content.is_none()) else {
        return false;
    };
    let around = calls_of.section.iter().chain(&calls_of.call).next();
    let opener = around.map(|around| around.open.text.clone());
    let Some(id) = opener.and_then(|opener| id_of(family, &opener)) else {
        return false;
    };
    let thought = format.reasoning.map(|thought| thought.open.text);
    let thought = thought.and_then(|open| id_of(family, &open));
    for bias in [100, -100] {
        let mut biases: Value = thought.iter().map(|id| (id, json!(-100))).collect();
        biases[&id] = json!(bias);
        let asked = json!({"seed": 3, "max_tokens": 1500, "parallel_tool_calls": false,
            "logit_bias": biases});
        let answer = ask(daemon, &family.to_string(), with_format(asked));
        println!("{family}: {}", answer.body);
        let is_content = is_of_the_format(&answer);
        // One of them has another opener, which is a text.
        assert!(
            is_content || bias > 0 || calls_of.call.len() > 1,
            "{family}"
        );
        assert!(!is_content || bias < 0, "{family}");
    }
    true
}
