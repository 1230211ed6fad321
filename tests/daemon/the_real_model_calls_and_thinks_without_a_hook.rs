//! With a library that lets no program forbid tokens the real model calls what it is to call, keeps to the schemas
//! of what it calls by itself, and thinks freely before an answer that is kept. On the CPU runtime without what the
//! vendor's library does not have.

use crate::calls_obey::{ask, calls, calls_what_it_has_to, named, of_each_family, tiny_models};
use crate::daemon_support::Setup;
use crate::formats_support::{MODEL, THINKS, thinks_and_keeps_to_a_format};
use crate::formats_without_a_hook::{demo, installed, metric, without_a_hook};
use crate::function_calls::{CHAT, TEMPLATE};
use crate::json_judge::fault;
use crate::tokenizers_of_gguf::tokenizer_json;
use rkllmd::reply::ReplyFamily;
use serde_json::{Value, json};

fn with_template(template: &str) -> Setup {
    without_a_hook(installed().model_file(MODEL, "chat_template.jinja", template))
}

#[test]
fn calls_that_are_required_are_made() {
    let daemon = demo(false);
    for seed in 0..3 {
        let one = json!({"tool_choice": "required", "parallel_tool_calls": false, "seed": seed});
        let (made, reason) = calls(&ask(&daemon, MODEL, one));
        assert_eq!((made.len(), reason.as_str()), (1, "tool_calls"), "{made:?}");
    }
    let (made, _) = calls(&ask(
        &daemon,
        MODEL,
        json!({"tool_choice": named("set_lamp")}),
    ));
    assert_eq!(made[0].0, "set_lamp");
}

#[test]
fn every_form_of_calls_is_obeyed() {
    let setup = ReplyFamily::ALL
        .iter()
        .fold(tiny_models(), |setup, family| {
            let id = family.to_string();
            let file = setup.models().join(&id).join("model.gguf");
            let tokenizer = tokenizer_json(&file, false);
            setup.model_file(&id, "tokenizer.json", &tokenizer)
        });
    let daemon = without_a_hook(setup).start();
    of_each_family(|family| {
        calls_what_it_has_to(&daemon, family, 0);
    });
    assert!(metric(&daemon, "rkllmd_redraws_total") > 0.0);
}

#[test]
fn calls_that_begin_by_themselves_are_kept() {
    let daemon = with_template(TEMPLATE).start();
    let parameters = json!({"type": "object", "required": ["place", "unit"],
        "properties": {"place": {"type": "string", "maxLength": 12},
            "unit": {"enum": ["kelvin", "rankine"]}},
        "additionalProperties": false});
    let tool = json!({"type": "function", "function": {"name": "get_weather", "strict": true,
        "parameters": parameters}});
    // What it is shown to do, and does, is not of the schema.
    let before = ["Paris", "Rome", "Oslo", "Madrid"].map(|place| {
        let arguments = json!({"place": place, "unit": "celsius"}).to_string();
        [
            json!({"role": "user", "content": format!("What is the weather in {place}?")}),
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": place,
                "type": "function",
                "function": {"name": "get_weather", "arguments": arguments}}]}),
        ]
    });
    let question = json!({"role": "user", "content": "What is the weather in London?"});
    let messages: Vec<Value> = before.into_iter().flatten().chain([question]).collect();
    let asked = json!({"model": MODEL, "messages": messages, "tools": [tool], "temperature": 0,
        "repeat_penalty": 1, "max_tokens": 100});
    let ask = || {
        let answer = daemon.post(CHAT, &asked);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let choice = answer.json()["choices"][0].clone();
        assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
        let call = &choice["message"]["tool_calls"][0]["function"];
        assert_eq!(call["name"], "get_weather", "{choice}");
        let arguments = call["arguments"].as_str().expect("a text").to_owned();
        let not_applied = answer.header("x-rkllmd-not-applied").map(str::to_owned);
        (arguments, not_applied)
    };
    // That the library's tokens are the tokenizer's is known once it has printed some.
    let (free, not_applied) = ask();
    assert_eq!(not_applied.as_deref(), Some("tools[].function.strict"));
    assert!(fault(&parameters, &free).is_some(), "{free}");
    assert_eq!(metric(&daemon, "rkllmd_redraws_total"), 0.0);
    let (kept, not_applied) = ask();
    assert_eq!(not_applied, None);
    assert_eq!(fault(&parameters, &kept), None, "{kept}");
    assert!(metric(&daemon, "rkllmd_redraws_total") > 0.0);
}

#[test]
fn a_thought_is_free_and_closed_by_its_budget_and_what_follows_is_kept() {
    let daemon = with_template(THINKS).start();
    assert_eq!(thinks_and_keeps_to_a_format(&daemon), Some(12));
    assert!(metric(&daemon, "rkllmd_redraws_total") > 0.0);
}
