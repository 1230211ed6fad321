//! A model that calls functions is understood: its calls reach OpenAI's clients as calls, whole or
//! piece by piece, and its thoughts as thoughts.

use crate::daemon_support::python_session;
use crate::function_calls::{
    CHAT, HARD, both_calls, byte_tokens, call, message, prompt, question, read, scenario,
    scenario_of, start, tool, two_calls,
};
use serde_json::{Value, json};

const OPENAI: &str = "openai==3.54.0";

#[test]
fn calls_arrive_as_the_model_wrote_them_however_tokens_cut_them() {
    for chars in [1, 3, 7, 1000] {
        let daemon = start(&scenario(&[("two", &two_calls())], chars));
        let streamed = read(&daemon, question("two", json!({})));
        assert_eq!(streamed.calls, both_calls(), "{chars}");
        assert_eq!(streamed.content.trim_end(), "Let me see.", "{chars}");
        assert_eq!(streamed.reason, "tool_calls");
        assert_ne!(streamed.ids[0], streamed.ids[1]);

        let (message, reason) = message(&daemon.post(CHAT, &question("two", json!({}))));
        assert_eq!(reason, "tool_calls");
        let calls = message["tool_calls"].as_array().expect("calls");
        let whole: Vec<_> = calls
            .iter()
            .map(|call| {
                assert_eq!(call["type"], "function");
                let text = |value: &Value| value.as_str().expect("a text").to_owned();
                (
                    text(&call["function"]["name"]),
                    text(&call["function"]["arguments"]),
                )
            })
            .collect();
        assert_eq!(whole, both_calls(), "{chars}");
    }
}

#[test]
fn characters_may_be_split_over_tokens_anywhere_in_a_call() {
    for bytes in [1, 3, 5, 7] {
        let two = two_calls();
        let scenario = scenario_of(&[("two", &two)], |answer| byte_tokens(answer, bytes));
        let daemon = start(&scenario);
        let streamed = read(&daemon, question("two", json!({})));
        assert_eq!(streamed.calls, both_calls(), "{bytes}");
        assert_eq!(streamed.content.trim_end(), "Let me see.", "{bytes}");
    }
}

#[test]
fn an_answer_that_is_only_calls_has_no_content() {
    let daemon = start(&scenario(&[("one", &call("f", "{}"))], 4));
    let (message, _) = message(&daemon.post(CHAT, &question("one", json!({}))));
    assert_eq!(message["content"], Value::Null);
    assert_eq!(read(&daemon, question("one", json!({}))).content, "");
}

#[test]
fn one_call_at_a_time_if_the_client_says_so() {
    let daemon = start(&scenario(&[("two", &two_calls())], 3));
    for stream in [false, true] {
        let body = question("two", json!({"parallel_tool_calls": false}));
        let calls = match stream {
            true => read(&daemon, body).calls.len(),
            false => {
                let (message, reason) = message(&daemon.post(CHAT, &body));
                assert_eq!(reason, "tool_calls");
                message["tool_calls"].as_array().expect("calls").len()
            }
        };
        assert_eq!(calls, 1);
    }
}

#[test]
fn without_functions_what_looks_like_a_call_is_text() {
    let daemon = start(&scenario(&[("two", &two_calls())], 5));
    for extra in [json!({"tools": null}), json!({"tool_choice": "none"})] {
        let streamed = read(&daemon, question("two", extra));
        assert_eq!(streamed.content, two_calls());
        assert_eq!((streamed.calls.len(), &*streamed.reason), (0, "stop"));
    }
}

#[test]
fn a_stop_string_ends_content_and_cuts_no_call() {
    let answer = format!("{}\nthe END of it", call("f", r#"{"text":"END"}"#));
    let daemon = start(&scenario(&[("two", &answer)], 2));
    let streamed = read(&daemon, question("two", json!({"stop": ["END"]})));
    assert_eq!(
        streamed.calls,
        [("f".to_owned(), r#"{"text":"END"}"#.to_owned())]
    );
    assert_eq!(streamed.content.trim(), "the");
}

#[test]
fn what_the_budget_cuts_is_delivered_as_far_as_it_came() {
    let daemon = start(&scenario(&[("one", &call("f", HARD))], 1));
    let opened = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"text\":\"a";
    let budget = opened.chars().count();
    let streamed = read(&daemon, question("one", json!({"max_tokens": budget})));
    assert_eq!(
        streamed.calls,
        [("f".to_owned(), "{\"text\":\"a".to_owned())]
    );
    assert_eq!(streamed.reason, "length");
}

#[test]
fn thoughts_are_told_apart_and_counted() {
    let answer = "<think>\nWhat <b>is</b> it?\n</think>\n\nIt is 4.";
    let daemon = start(&scenario(&[("sum", answer)], 2));
    let body = question("sum", json!({}));
    let streamed = read(&daemon, body.clone());
    assert_eq!(streamed.reasoning.trim(), "What <b>is</b> it?");
    assert_eq!(streamed.content, "It is 4.");
    let whole = daemon.post(CHAT, &body);
    let (message, _) = message(&whole);
    assert_eq!(
        message["reasoning_content"].as_str().map(str::trim),
        Some("What <b>is</b> it?")
    );
    assert_eq!(message["content"], "It is 4.");
    let usage = &whole.json()["usage"];
    let thought = usage["completion_tokens_details"]["reasoning_tokens"]
        .as_u64()
        .expect("a count");
    let all = usage["completion_tokens"].as_u64().expect("a count");
    assert!(thought >= 9 && thought < all, "{usage}");

    let kept = read(
        &daemon,
        question("sum", json!({"reasoning_format": "none"})),
    );
    assert_eq!((&*kept.content, &*kept.reasoning), (answer, ""));
}

#[test]
fn a_wish_for_strict_arguments_is_told_not_to_be_kept() {
    let daemon = start(&scenario(&[], 1));
    for (strict, told) in [(false, None), (true, Some("tools[].function.strict"))] {
        let mut body = question("x", json!({}));
        body["tools"][1]["function"]["strict"] = strict.into();
        let answer = daemon.post(CHAT, &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("x-rkllmd-not-applied"), told);
    }
}

#[test]
fn the_older_form_is_understood_and_answered_in_kind() {
    let daemon = start(&scenario(&[("one", &call("f", HARD))], 3));
    let function = tool("f")["function"].clone();
    let body = question("one", json!({"tools": null, "functions": [function]}));
    let (message, reason) = message(&daemon.post(CHAT, &body));
    assert_eq!(reason, "function_call");
    assert_eq!(message["function_call"]["name"], "f");
    assert_eq!(message["function_call"]["arguments"], HARD);
    let again = json!({"model": "m", "functions": [function], "messages": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": null, "function_call": message["function_call"]},
        {"role": "function", "name": "f", "content": "done"},
    ]});
    let shown = prompt(&daemon, &again);
    assert!(
        shown.contains("<tool_response>\ndone\n</tool_response>"),
        "{shown}"
    );
}

#[test]
fn the_official_client_puts_calls_together() {
    let answers = [
        ("second of", "<think>so</think>All done."),
        ("</tool_response>", &call("g", r#"{"text": "y"}"#)),
        ("both", &two_calls()),
    ];
    // Tokens of a model that writes bytes: characters are split over them.
    let daemon = start(&scenario_of(&answers, |answer| byte_tokens(answer, 3)));
    let url = format!("http://{}/v1", daemon.address);
    let script = "openai_tools_client.py";
    python_session(script, OPENAI, &[&url, "m", HARD], "agent loop ok");
}
