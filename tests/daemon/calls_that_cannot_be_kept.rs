//! What a call cannot be kept to is named or refused, and costs no other request anything.

use crate::calls_obey::{MODEL, ask, calls, named, tools};
use crate::daemon_support::Setup;
use serde_json::{Value, json};

#[test]
fn an_odd_schema_breaks_no_request_unless_it_is_strict() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let odd = |strict: bool| {
        json!({"type": "function", "function": {"name": "odd", "strict": strict, "parameters": {
            "type": "object", "properties": {"a": {"type": "string", "maxLength": 3},
                "b": {"type": "array", "uniqueItems": true}}}}})
    };
    for choice in [json!("auto"), json!("required"), named("get_weather")] {
        let with = |odd: Value| {
            let mut tools = tools();
            tools.as_array_mut().expect("tools").push(odd);
            json!({"tools": tools, "tool_choice": choice, "max_tokens": 8, "seed": 1})
        };
        let answer = ask(&daemon, MODEL, with(odd(false)));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let named_places = answer.header("x-rkllmd-not-applied").unwrap_or_default();
        let place = "/tools/2/function/parameters/properties/b/uniqueItems";
        let is_callable = choice != named("get_weather");
        assert_eq!(
            named_places == place,
            is_callable,
            "{choice}: {named_places}"
        );
        let answer = ask(&daemon, MODEL, with(odd(true)));
        if !is_callable {
            assert_eq!(answer.status, 200, "{}", answer.body);
            continue;
        }
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["code"]),
            (400, &json!("unsupported_schema")),
            "{error}"
        );
        assert_eq!(error["param"], "tools[2].function.parameters");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("/properties/b/uniqueItems"), "{message}");
    }
}

#[test]
fn what_cannot_be_called_is_refused() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let refused = |more: Value, param: &str| {
        let answer = ask(&daemon, MODEL, more);
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["param"]),
            (400, &json!(param)),
            "{error}"
        );
    };
    refused(json!({"tool_choice": named("unknown")}), "tool_choice");
    refused(
        json!({"tools": [], "tool_choice": "required"}),
        "tool_choice",
    );
    refused(json!({"tool_choice": "any"}), "tool_choice");
    let begun = json!([{"role": "user", "content": "Go."}, {"role": "assistant", "content": "So"}]);
    refused(
        json!({"tool_choice": "required", "messages": begun}),
        "tool_choice",
    );
    // On a runtime that has nothing to keep it with.
    let daemon = Setup::new().scenario("npu", "tokens = [\"a\"]\n").start();
    let answer = ask(&daemon, "npu", json!({"tool_choice": "required"}));
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "model_has_no_tokenizer")
    );
    let answer = ask(
        &daemon,
        "npu",
        json!({"tool_choice": "auto", "max_tokens": 1}),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// A schema that costs more than a reader may use is its request's alone: the model is as trusted as before.
#[test]
fn a_costly_function_is_no_fault_of_the_models() {
    let daemon = Setup::new()
        .demo_model(MODEL)
        .settings("chat.tools-limit-bytes = 4194304\nchat.max-values = 200000\ndeadlines.reader-call = \"2s\"")
        .start();
    let words: Vec<String> = (0..60_000).map(|n| format!("word number {n}")).collect();
    let costly = json!({"type": "function", "function": {"name": "costly", "parameters": {
        "type": "object", "properties": {"w": {"enum": words}}}}});
    let catastrophe = json!({"type": "function", "function": {"name": "costly", "parameters": {
        "type": "object", "properties": {"w": {"type": "string", "pattern": "^((a{1,500}){1,500}){1,500}$"}}}}});
    for tool in [costly, catastrophe] {
        for choice in ["required", "auto"] {
            let more = json!({"tools": [tool], "tool_choice": choice, "max_tokens": 4});
            let answer = ask(&daemon, MODEL, more);
            let begin = answer.body.get(..200).unwrap_or(&answer.body);
            assert!(
                matches!(answer.status, 200 | 400),
                "{choice}: {} {begin}",
                answer.status
            );
        }
    }
    // A model that is not trusted any more is read by one reader at a time, and is told of.
    let lines = daemon.log.lines();
    assert!(
        !lines
            .iter()
            .any(|line| line.contains("blame") || line.contains("suspect")),
        "{lines:?}"
    );
    let (made, _) = calls(&ask(
        &daemon,
        MODEL,
        json!({"tool_choice": named("set_lamp")}),
    ));
    assert_eq!(made.len(), 1);
}
