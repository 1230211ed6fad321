//! A thought that has used its budget is closed and the answer goes on behind it, whatever becomes of
//! the worker meanwhile; its tokens are counted as they were made.

use std::thread;

use crate::daemon_support::{Answer, Daemon, Setup, eventually, word_tokenizer};
use crate::slots_support::{file, gauge, streamed};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// Opens a thought, or leaves one out, where it is told to.
const TEMPLATE: &str = r#"{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if opened is defined %}<think>
{% elif enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"#;

/// Thinks on and on, unless its thought is closed.
const THINKER: &str = r#"
tokens = ["<think>", "a ", "b ", "c ", "d ", "</think>", "long ", "answer"]
eos-token-id = 2
continue-answers = true
[[answer]]
when-prompt-contains = "<think>a b </think>"
tokens = ["short ", "answer"]
[[answer]]
when-prompt-contains = "<think>\n</think>"
tokens = ["at ", "once"]
"#;

fn setup(scenario: &str, added: &[&str]) -> Setup {
    Setup::new()
        .model_file("m", "model.rkllm", scenario)
        .model_file("m", "chat_template.jinja", TEMPLATE)
        .model_file("m", "tokenizer.json", &word_tokenizer(added))
}

fn ask(daemon: &Daemon, extra: Value) -> Answer {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "why"}]});
    if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
        body.extend(extra);
    }
    let answer = daemon.post(CHAT, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// Thought, content, and how it ended.
fn parts(answer: &Answer) -> [String; 3] {
    let choice = &answer.json()["choices"][0];
    [
        &choice["message"]["reasoning_content"],
        &choice["message"]["content"],
        &choice["finish_reason"],
    ]
    .map(|value| value.as_str().unwrap_or_default().trim().to_owned())
}

/// Tokens of the prompt, of the answer and of its thought.
fn counts(answer: &Answer) -> [u64; 3] {
    let usage = &answer.json()["usage"];
    [
        &usage["prompt_tokens"],
        &usage["completion_tokens"],
        &usage["completion_tokens_details"]["reasoning_tokens"],
    ]
    .map(|count| count.as_u64().unwrap_or_else(|| panic!("{usage}")))
}

#[test]
fn a_thought_is_closed_when_it_has_used_its_budget() {
    let daemon = setup(THINKER, &[]).start();
    let free = ask(&daemon, json!({}));
    assert_eq!(parts(&free), ["a b c d", "long answer", "stop"]);
    let [prompt, ..] = counts(&free);
    for name in [
        "thinking_budget_tokens",
        "reasoning_budget_tokens",
        "thinking_token_budget",
    ] {
        let cut = ask(&daemon, json!({name: 3}));
        assert_eq!(parts(&cut), ["a b", "short answer", "stop"], "{name}");
        // Two words and the end-of-text token follow; what closes the thought is no token of the model's.
        assert_eq!(counts(&cut), [prompt, 6, 3], "{name}");
        assert_eq!(cut.header("x-rkllmd-not-applied"), None);
    }
    let unlimited = ask(&daemon, json!({"thinking_budget_tokens": -1}));
    assert_eq!(parts(&unlimited), parts(&free));
    let ample = ask(&daemon, json!({"thinking_budget_tokens": 6}));
    assert_eq!(parts(&ample), parts(&free));
    assert_eq!(counts(&ample), counts(&free));
}

#[test]
fn in_a_batch_it_goes_on_in_the_next_one_and_holds_no_slot_until_then() {
    let others = r#"
[[answer]]
when-prompt-contains = "blocker"
tokens = ["x ", "y "]
[[answer]]
when-prompt-contains = "held"
tokens = ["1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "8 "]
[[fault]]
call = "run"
kind = "wait"
text = "go"
after-tokens = 1
when-prompt-contains = "blocker"
[[fault]]
call = "run"
kind = "wait"
text = "on"
after-tokens = 7
when-prompt-contains = "held"
"#;
    let daemon = setup(&format!("{THINKER}{others}"), &[])
        .model_file("m", "model.toml", "batch = 2\n")
        .start();
    let is = |name: &str, value: &str| {
        eventually(name, || (gauge(&daemon, name)? == value).then_some(()));
    };
    let mut blocker = daemon.stream(CHAT, &streamed("blocker"));
    blocker.next_content().expect("a token");
    thread::scope(|scope| {
        let cut = scope.spawn(|| ask(&daemon, json!({"thinking_budget_tokens": 3})));
        let held = scope.spawn(|| {
            let mut held = daemon.stream(CHAT, &streamed("held"));
            held.next_content().expect("a token");
            held
        });
        is("rkllmd_queue_length", "2");
        file(&daemon, "go");
        let mut held = held.join().expect("a stream");
        is("rkllmd_slots_in_use", "1");
        file(&daemon, "on");
        while held.next_content().is_some() {}
        let cut = cut.join().expect("an answer");
        assert_eq!(parts(&cut), ["a b", "short answer", "stop"]);
    });
}

#[test]
fn no_token_for_a_thought_closes_it_at_once() {
    let daemon = setup(THINKER, &[]).start();
    let variables = json!({"opened": true});
    let body =
        |budget: i32| json!({"thinking_budget_tokens": budget, "chat_template_kwargs": variables});
    let opened = ask(&daemon, body(0));
    assert_eq!(parts(&opened), ["", "at once", "stop"]);
    let [prompt, ..] = counts(&ask(&daemon, body(-1)));
    assert_eq!(counts(&opened), [prompt, 3, 0]);
}

#[test]
fn both_budgets_are_kept() {
    let daemon = setup(THINKER, &[]).start();
    for (tokens, content) in [(3, ""), (4, "short"), (5, "short answer")] {
        let cut = ask(
            &daemon,
            json!({"thinking_budget_tokens": 3, "max_tokens": tokens}),
        );
        assert_eq!(parts(&cut), ["a b", content, "length"], "{tokens}");
        assert_eq!(counts(&cut)[1..], [tokens, 3], "{tokens}");
    }
}

#[test]
fn a_models_owner_can_set_the_budget() {
    let daemon = setup(THINKER, &[])
        .model_file("m", "model.toml", "thinking-budget-tokens = 3\n")
        .start();
    assert_eq!(parts(&ask(&daemon, json!({})))[1], "short answer");
    let own = ask(&daemon, json!({"thinking_budget_tokens": -1}));
    assert_eq!(parts(&own)[1], "long answer");
}

#[test]
fn a_worker_that_dies_at_any_token_changes_nothing() {
    let expected = ["a b", "short answer", "stop"];
    let faults = (0..=3)
        .map(|at| format!("after-tokens = {at}\n"))
        .chain((0..=2).map(|at| {
            format!("after-tokens = {at}\nwhen-prompt-contains = \"<think>a b </think>\"\n")
        }));
    for fault in faults {
        let scenario = format!(
            "{THINKER}[[fault]]\ncall = \"run\"\nonce = \"died\"\nkind = \"segv\"\n{fault}"
        );
        let daemon = setup(&scenario, &[]).start();
        let answer = ask(&daemon, json!({"thinking_budget_tokens": 3}));
        assert_eq!(parts(&answer), expected, "{fault}");
        assert_eq!(counts(&answer)[1..], [6, 3], "{fault}");
    }
}

#[test]
fn a_closer_that_is_a_token_is_handed_over_as_that_token() {
    let scenario = r#"
tokens = [{ text = "", id = 1 }, { text = "a ", id = 11 }, { text = "b ", id = 12 }, "c"]
eos-token-id = 9
[[answer]]
when-prompt-contains = " 1 11 12 2"
tokens = ["by its token"]
[[answer]]
when-prompt-contains = "<think>a b </think>"
tokens = ["by its text"]
"#;
    let daemon = setup(scenario, &["<think>", "</think>"]).start();
    let budget = json!({"thinking_budget_tokens": 3});
    // That the runtime makes the same tokens as the tokenizer is known once it has run.
    let answer = ask(&daemon, budget.clone());
    assert_eq!(parts(&answer)[0], "a b");
    let answer = ask(&daemon, budget);
    assert_eq!(parts(&answer), ["a b", "by its token", "stop"]);
    assert_eq!(counts(&answer)[1..], [5, 3]);
}

#[test]
fn what_cannot_be_kept_is_told() {
    let daemon = setup(THINKER, &[])
        .model_file(
            "plain",
            "model.rkllm",
            "tokens = [\"word\"]\neos-token-id = 2\n",
        )
        .model_file("plain", "model.toml", "template = \"gemma\"\n")
        .start();
    let not_applied = |extra: Value| {
        let answer = ask(&daemon, extra);
        answer.header("x-rkllmd-not-applied").map(str::to_owned)
    };
    let told = Some("thinking_budget_tokens".to_owned());
    let plain = json!({"model": "plain", "thinking_budget_tokens": 3});
    assert_eq!(not_applied(plain), told);
    let kept_in_content = json!({"reasoning_format": "none", "thinking_budget_tokens": 3});
    assert_eq!(not_applied(kept_in_content), told);
    let unlimited = json!({"model": "plain", "thinking_budget_tokens": -1});
    assert_eq!(not_applied(unlimited), None);
}

/// A token may be a part of a character, and an answer may end in one.
#[test]
fn each_token_of_a_thought_is_counted_once_whatever_its_text_is() {
    let scenario = "tokens = [\"<think>\", \"a \", { bytes = [0xc3] }, { bytes = [0xa9] }, \"b\", \
                    { bytes = [0xe2, 0x82] }]\n";
    let daemon = setup(scenario, &[]).start();
    let answer = ask(&daemon, json!({}));
    assert_eq!(parts(&answer), ["a \u{e9}b\u{fffd}", "", "stop"]);
    let [_, answer, thought] = counts(&answer);
    assert_eq!((answer, thought), (6, 6));
}

#[test]
fn a_thought_that_goes_past_its_budget_is_logged_once() {
    // Of what the runtime did not print only the tokens would tell, and they are not trusted yet.
    let scenario = r#"
tokens = ["<think>", { text = "", id = 7 }, "a ", "b ", "c ", "</think>", "answer"]
eos-token-id = 9
"#;
    let daemon = setup(scenario, &[]).start();
    let answer = ask(&daemon, json!({"thinking_budget_tokens": 3}));
    assert_eq!(parts(&answer), ["a b c", "answer", "stop"]);
    daemon.log.wait_for("a thought goes past its budget");
    let log = daemon.log.lines().join("\n");
    assert_eq!(
        log.matches("a thought goes past its budget").count(),
        1,
        "{log}"
    );
    assert!(log.contains("did not print a special token"), "{log}");
}
