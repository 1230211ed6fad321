//! A model that is given functions and a format either calls, in whatever form it writes calls, or its content is of
//! the format, whether that is JSON, an expression, a choice or a grammar; with a hook and without one.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::calls_obey::{MODEL, ask, calls, id_of, of_each_family, tiny_models};
use crate::daemon_support::{Answer, Daemon, Setup};
use crate::formats_without_a_hook::{demo, metric};
use crate::json_judge::fault;
use rkllmd::reply::ReplyFamily;
use serde_json::{Value, json};

/// JSON that an answer is where it calls nothing.
fn sky() -> Value {
    json!({"type": "object", "required": ["sky"], "properties": {"sky": {"enum": ["blue", "grey"]}},
        "additionalProperties": false})
}

/// How a request asks for a format, and whether a content is of it.
#[derive(Clone, Copy)]
struct Format {
    field: &'static str,
    value: fn() -> Value,
    is_of: fn(&str) -> bool,
}

const JSON: Format = Format {
    field: "response_format",
    value: || {
        json!({"type": "json_schema",
            "json_schema": {"name": "answer", "strict": true, "schema": sky()}})
    },
    is_of: |content| fault(&sky(), content).is_none(),
};

const CHOICE: Format = Format {
    field: "guided_choice",
    value: || json!(["blue", "grey", "as it was"]),
    is_of: |content| ["blue", "grey", "as it was"].contains(&content),
};

/// The other fields that ask for what is no JSON.
const TEXTS: [Format; 6] = [
    CHOICE,
    Format {
        field: "guided_regex",
        value: || json!("(yes|no)[0-9]{1,2}"),
        is_of: is_count,
    },
    Format {
        field: "grammar",
        value: || json!("root ::= (\"yes\" | \"no\") [0-9] [0-9]?"),
        is_of: is_count,
    },
    Format {
        field: "guided_grammar",
        value: || json!("start: (\"yes\" | \"no\") DIGIT DIGIT?\nDIGIT: /[0-9]/\n"),
        is_of: is_count,
    },
    Format {
        field: "structured_outputs",
        value: || json!({"choice": ["blue", "grey", "as it was"]}),
        is_of: CHOICE.is_of,
    },
    Format {
        field: "structured_outputs",
        value: || json!({"regex": "(yes|no)[0-9]{1,2}"}),
        is_of: is_count,
    },
];

fn is_count(content: &str) -> bool {
    let count = content.strip_prefix("yes").or(content.strip_prefix("no"));
    count.is_some_and(|count| {
        (1..=2).contains(&count.len()) && count.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn with(format: Format, mut more: Value) -> Value {
    more[format.field] = (format.value)();
    more
}

/// Whether it is of the format; otherwise it is calls, and of their schemas.
fn is_of_the_format(format: Format, answer: &Answer) -> bool {
    let (made, reason) = calls(answer);
    let content = &answer.json()["choices"][0]["message"]["content"];
    match made.is_empty() {
        true => {
            assert_eq!(reason, "stop", "{}", answer.body);
            let content = content.as_str().expect("it has a content");
            assert!((format.is_of)(content), "{}: {content}", format.field);
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
        let answer = ask(&daemon, MODEL, with(JSON, asked));
        println!("{}", is_of_the_format(JSON, &answer));
        assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    }
    let none = ask(
        &daemon,
        MODEL,
        with(JSON, json!({"seed": 1, "tool_choice": "none"})),
    );
    assert!(is_of_the_format(JSON, &none), "{}", none.body);
    let required = json!({"seed": 1, "tool_choice": "required", "parallel_tool_calls": false});
    let required = ask(&daemon, MODEL, with(JSON, required));
    assert!(!is_of_the_format(JSON, &required), "{}", required.body);
    let not_applied = required.header("x-rkllmd-not-applied");
    assert_eq!(not_applied, Some("response_format"));
}

#[test]
fn beside_functions_an_answer_without_calls_is_one_of_its_texts() {
    let daemon = Setup::new().demo_model(MODEL).start();
    for (seed, format) in TEXTS.into_iter().enumerate() {
        let asked = json!({"seed": seed, "parallel_tool_calls": false});
        let answer = ask(&daemon, MODEL, with(format, asked));
        println!("{}: {}", format.field, is_of_the_format(format, &answer));
        assert_eq!(answer.header("x-rkllmd-not-applied"), None);
        let none = json!({"seed": seed, "tool_choice": "none"});
        let none = ask(&daemon, MODEL, with(format, none));
        assert!(is_of_the_format(format, &none), "{}", none.body);
    }
    let required = json!({"tool_choice": "required", "parallel_tool_calls": false});
    let required = ask(&daemon, MODEL, with(CHOICE, required));
    assert!(!is_of_the_format(CHOICE, &required), "{}", required.body);
    let not_applied = required.header("x-rkllmd-not-applied");
    assert_eq!(not_applied, Some("guided_choice"));
    // Nothing tells its texts from calls.
    for (field, value) in [
        ("guided_regex", json!(".*")),
        ("guided_grammar", json!("root ::= [^x]*")),
    ] {
        let answer = ask(&daemon, MODEL, json!({ field: value }));
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["code"], &error["param"]),
            (400, &json!("unsupported_schema"), &json!(field)),
            "{error}"
        );
    }
}

#[test]
fn beside_functions_the_real_model_keeps_to_texts_without_a_hook() {
    let daemon = demo(false);
    for (seed, format) in TEXTS.into_iter().take(3).enumerate() {
        let asked = json!({"seed": seed, "parallel_tool_calls": false});
        let answer = ask(&daemon, MODEL, with(format, asked));
        println!("{}: {}", format.field, is_of_the_format(format, &answer));
        let none = json!({"seed": seed, "tool_choice": "none"});
        let none = ask(&daemon, MODEL, with(format, none));
        assert!(is_of_the_format(format, &none), "{}", none.body);
    }
    assert!(metric(&daemon, "rkllmd_redraws_total") > 0.0);
}

#[test]
fn beside_a_format_models_call_with_their_markers() {
    let daemon = tiny_models().start();
    let tried = AtomicUsize::new(0);
    of_each_family(|family| {
        for format in [JSON, CHOICE] {
            let both = usize::from(calls_or_answers(&daemon, family, format));
            tried.fetch_add(both, Ordering::Relaxed);
        }
    });
    let tried = tried.into_inner();
    assert!(tried >= 16, "{tried}");
}

/// `false`: its calls begin with no token of its own, or its content does.
fn calls_or_answers(daemon: &Daemon, family: ReplyFamily, asked_for: Format) -> bool {
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
        let answer = ask(daemon, &family.to_string(), with(asked_for, asked));
        println!("{family}: {}", answer.body);
        let is_content = is_of_the_format(asked_for, &answer);
        // One of them has another opener, which is a text.
        assert!(
            is_content || bias > 0 || calls_of.call.len() > 1,
            "{family}"
        );
        assert!(!is_content || bias < 0, "{family}");
    }
    true
}
