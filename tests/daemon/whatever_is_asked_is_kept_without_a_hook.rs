//! With a library that lets no program forbid tokens, an answer is kept to its format whatever else its request asks
//! for, on each family and in each of its odd behaviours: right or a typed error.

use std::sync::OnceLock;

use crate::daemon_support::{Answer, Daemon, FAMILIES_RUN, Setup, chat, eventually};
use crate::formats_support::THINKS;
use crate::formats_without_a_hook::metric;
use crate::the_vendors_library_tells_and_bans::{CALLERS_WORDS, asked_to_call, caller};
use crate::the_vendors_oddities_keep_formats::{
    asked, each_odd_library, is_kept, setup, tokenizer_of,
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// By the ids of the model of words.
const YES: &str = "1";
const OPEN: &str = "4";
const CLOSE: &str = "5";
const ONE: &str = "6";
/// Words that an answer has at least, but one.
const LEAST: usize = 4;

fn with(mut body: Value, more: Value) -> Value {
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

fn ask(daemon: &Daemon, more: Value) -> Answer {
    daemon.post(CHAT, &with(asked(LEAST), more))
}

/// Text, reason and tokens of an answer that is one.
fn parts(answer: &Answer) -> (String, String, u64) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    let choice = &body["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap_or_default();
    let reason = choice["finish_reason"].as_str().expect("a reason");
    let tokens = body["usage"]["completion_tokens"].as_u64();
    (
        text.to_owned(),
        reason.to_owned(),
        tokens.expect("a number of tokens"),
    )
}

/// Each is a token.
fn words_of(text: &str) -> Vec<&str> {
    let inside = &text[1..text.len() - 1];
    let words = inside.split(',').flat_map(|word| [word, ","]);
    let mut words: Vec<&str> = std::iter::once("{").chain(words).collect();
    // Behind the last word there is none.
    words.pop();
    words.push("}");
    words
}

#[test]
fn budgets_stops_choices_and_bans_hold_whatever_the_library_does() {
    each_odd_library(|family, more| {
        let of = format!("{family} {more}");
        let daemon = setup(family, more).start();
        let (whole, reason, tokens) = parts(&ask(&daemon, json!({})));
        assert!(is_kept(&whole, LEAST), "{of}: {whole}");
        let words = words_of(&whole);
        assert_eq!((&*reason, tokens), ("stop", words.len() as u64), "{of}");
        // Where a budget ends, in the middle of a way back as well: most words are drawn again.
        for budget in [1, 2, 3, 5, words.len() - 1, words.len()] {
            let (text, reason, tokens) = parts(&ask(&daemon, json!({"max_tokens": budget})));
            let expected = match budget == words.len() {
                true => "stop",
                false => "length",
            };
            assert_eq!(text, words[..budget].concat(), "{of}: {budget}");
            assert_eq!((&*reason, tokens), (expected, budget as u64), "{of}");
        }
        // A stop text inside of it.
        let (text, reason, _) = parts(&ask(&daemon, json!({"stop": [","]})));
        assert_eq!((text, &*reason), (words[..2].concat(), "stop"), "{of}");
        // Several answers, in which the likeliest tokens are the same.
        let several = ask(&daemon, json!({"n": 2}));
        assert_eq!(several.status, 200, "{of}: {}", several.body);
        let choices = several.json()["choices"].clone();
        let texts: Vec<&str> = choices
            .as_array()
            .expect("choices")
            .iter()
            .filter_map(|choice| choice["message"]["content"].as_str())
            .collect();
        assert_eq!(texts, [&*whole; 2], "{of}");
        // Bans leave words that its format allows.
        let (text, reason, _) = parts(&ask(&daemon, json!({"logit_bias": {YES: -100, ONE: -100}})));
        assert!(is_kept(&text, LEAST), "{of}: {text}");
        assert!(!text.contains("yes") && !text.contains('1'), "{of}: {text}");
        assert_eq!(reason, "stop", "{of}");
        eventually("no slot is in use", || {
            (metric(&daemon, "rkllmd_slots_in_use{") == 0.0).then_some(())
        });
    });
}

#[test]
fn what_allows_no_token_ends_at_once_or_is_told_whatever_the_library_does() {
    each_odd_library(|family, more| {
        let of = format!("{family} {more}");
        let daemon = setup(family, more).start();
        // There is nothing to say.
        for nothing in [
            json!({"guided_regex": null, "guided_choice": [""]}),
            json!({"guided_regex": "^$"}),
            json!({"guided_regex": null, "guided_grammar": "root ::= \"\""}),
        ] {
            let (text, reason, tokens) = parts(&ask(&daemon, nothing));
            assert_eq!((&*text, &*reason, tokens), ("", "stop", 0), "{of}");
        }
        // No word of the model's spells it; what alone may come is forbidden, at the beginning and at the end.
        for impossible in [
            json!({"guided_regex": "x+"}),
            json!({"logit_bias": {OPEN: -100}}),
            json!({"logit_bias": {CLOSE: -100}}),
        ] {
            let failed = ask(&daemon, impossible.clone());
            assert_eq!(
                (failed.status, &*failed.error_code()),
                (422, "format_not_kept"),
                "{of} {impossible}: {}",
                failed.body
            );
        }
        // The next one is served.
        let (text, ..) = parts(&ask(&daemon, json!({})));
        assert!(is_kept(&text, LEAST), "{of}: {text}");
    });
}

#[test]
fn a_full_context_ends_an_answer_on_its_way_whatever_the_library_does() {
    const CONTEXT: u64 = 64;
    /// Some releases take so many for themselves.
    const RESERVE: u64 = 4;
    let settings = format!(
        "template = \"chatml\"\neos-ids = [8]\ncontext-length = {CONTEXT}\n\
         [sampling]\ntemperature = 0.0\n"
    );
    let first = OnceLock::new();
    each_odd_library(|family, more| {
        let of = format!("{family} {more}");
        let daemon = setup(family, more)
            .model_file("m", "model.toml", &settings)
            .start();
        for tells in [false, true] {
            // More words than there is room for.
            let mut body = with(asked(60), json!({"logprobs": tells}));
            body.as_object_mut()
                .expect("an object")
                .remove("max_tokens");
            let answer = daemon.post(CHAT, &body);
            let (text, reason, tokens) = parts(&answer);
            assert_eq!(reason, "length", "{of}");
            let prompt = answer.json()["usage"]["prompt_tokens"].as_u64();
            assert_eq!(
                prompt.map(|prompt| prompt + tokens),
                Some(CONTEXT - RESERVE),
                "{of}"
            );
            assert!(text.starts_with('{') && !text.contains("Sure"), "{of}");
            assert_eq!(*first.get_or_init(|| text.clone()), text, "{of}");
        }
        let plain = daemon.post(CHAT, &chat("m", "Go", json!({"max_tokens": 2})));
        assert_eq!(plain.status, 200, "{of}: {}", plain.body);
    });
}

#[test]
fn an_abort_that_fails_hangs_or_crashes_changes_no_answer() {
    let first = OnceLock::new();
    for family in FAMILIES_RUN {
        for kind in [
            "kind = \"fail\"",
            "kind = \"delay\"\nms = 20",
            "kind = \"hang\"\nonce = \"hung\"",
            "kind = \"segv\"\nonce = \"crashed\"",
        ] {
            let more = format!("[[fault]]\ncall = \"abort\"\n{kind}");
            let daemon = setup(family, &more)
                .settings("deadlines.abort-to-finish = \"1s\"")
                .start();
            let (text, reason, _) = parts(&ask(&daemon, json!({})));
            assert!(is_kept(&text, LEAST), "{family} {kind}: {text}");
            assert_eq!(reason, "stop", "{family} {kind}");
            assert_eq!(*first.get_or_init(|| text.clone()), text, "{family} {kind}");
        }
    }
}

#[test]
fn a_library_that_never_says_that_it_has_ended_is_believed_when_it_returns() {
    let first = OnceLock::new();
    for family in FAMILIES_RUN {
        for more in ["", "abort-late-tokens = 2\n", "eos-silent = true\n"] {
            let more = format!(
                "{more}[[fault]]\ncall = \"run\"\nkind = \"never-finish\"\nafter-tokens = 1\n"
            );
            let daemon = setup(family, &more).start();
            for tells in [false, true] {
                let (text, reason, _) = parts(&ask(&daemon, json!({"logprobs": tells})));
                assert!(is_kept(&text, LEAST), "{family} {more}: {text}");
                assert_eq!(reason, "stop", "{family} {more}");
                assert_eq!(*first.get_or_init(|| text.clone()), text, "{family} {more}");
            }
        }
    }
}

#[test]
fn answers_that_are_made_beside_each_other_are_what_they_are_alone() {
    let settings = "template = \"chatml\"\neos-ids = [8]\nparallel = 2\n\
                    [sampling]\ntemperature = 0.0\n";
    for family in FAMILIES_RUN {
        let more = "prefix-reuse = true\ntoken-delay-us = 1000\nabort-late-tokens = 1";
        let daemon = setup(family, more)
            .model_file("m", "model.toml", settings)
            .start();
        let (alone, ..) = parts(&ask(&daemon, json!({})));
        assert!(is_kept(&alone, LEAST), "{family}: {alone}");
        std::thread::scope(|scope| {
            let asking: Vec<_> = [false, true, false, true]
                .map(|tells| {
                    let daemon = &daemon;
                    scope.spawn(move || parts(&ask(daemon, json!({"logprobs": tells}))).0)
                })
                .into_iter()
                .collect();
            for asked in asking {
                assert_eq!(asked.join().expect("it was asked"), alone, "{family}");
            }
        });
    }
}

#[test]
fn a_thought_is_closed_by_its_budget_and_what_follows_is_kept_in_each_family() {
    const WORDS: [&str; 10] = [
        "[UNK]", "yes", "no", "hm", "{", "}", "1", ",", "</think>", "[end]",
    ];
    let end = WORDS.len() - 1;
    // Behind whatever it says it would think on.
    let scenario = format!(
        "words = {WORDS:?}\neos-token-id = {end}\n\
         [[row]]\nbehind = []\nlogits = [0.0, 2.0, 1.0, 5.0, 0.0, 0.5, 0.2, 0.1, 0.0, 4.0]\n"
    );
    for family in FAMILIES_RUN {
        for more in [
            "",
            "abort-late-tokens = 2\n",
            "logits-come = \"with-ids\"\n",
        ] {
            let settings = format!("eos-ids = [{end}]\n[sampling]\ntemperature = 0.0\n");
            let daemon = Setup::with_family(family)
                .model_file("m", "model.rkllm", &format!("{more}{scenario}"))
                .model_file("m", "model.toml", &settings)
                .model_file("m", "chat_template.jinja", THINKS)
                .model_file("m", "tokenizer.json", &tokenizer_of(&WORDS))
                .settings("constraints.max-redraws-without-reuse = 256")
                .start();
            let answer = ask(&daemon, json!({"thinking_budget_tokens": 3}));
            let (text, reason, _) = parts(&answer);
            assert!(is_kept(&text, LEAST), "{family} {more}: {}", answer.body);
            assert_eq!(reason, "stop", "{family} {more}");
            let body = answer.json();
            let thought = &body["choices"][0]["message"]["reasoning_content"];
            assert_eq!(thought.as_str().map(str::trim), Some("hmhmhm"), "{body}");
            let counted = &body["usage"]["completion_tokens_details"]["reasoning_tokens"];
            assert_eq!(counted, 3, "{body}");
            // All of the budget is the thought's.
            let answer = ask(
                &daemon,
                json!({"thinking_budget_tokens": 3, "max_tokens": 3}),
            );
            let (text, reason, tokens) = parts(&answer);
            assert_eq!(
                (&*text, &*reason, tokens),
                ("", "length", 3),
                "{family} {more}"
            );
        }
    }
}

#[test]
fn calls_that_are_required_are_made_in_each_family() {
    for family in FAMILIES_RUN {
        for more in ["", "abort-late-tokens = 2", "logits-come = \"with-ids\""] {
            let daemon = caller(family, more, &CALLERS_WORDS);
            let named = json!({"type": "function", "function": {"name": "set_lamp"}});
            for (choice, expected) in [(json!("required"), "tool_calls"), (named, "stop")] {
                let choice = json!({"tool_choice": choice, "parallel_tool_calls": false});
                let answer = daemon.post(CHAT, &with(asked_to_call(80), choice));
                assert_eq!(answer.status, 200, "{family} {more}: {}", answer.body);
                assert_eq!(answer.header("x-rkllmd-not-applied"), None);
                let choice = answer.json()["choices"][0].clone();
                assert_eq!(
                    choice["finish_reason"], expected,
                    "{family} {more}: {choice}"
                );
                let made = choice["message"]["tool_calls"].as_array();
                assert_eq!(made.map(Vec::len), Some(1), "{family} {more}: {choice}");
                let call = &choice["message"]["tool_calls"][0]["function"];
                assert_eq!(call["name"], "set_lamp", "{family} {more}");
                let arguments = call["arguments"].as_str().expect("a text");
                let arguments: Value = serde_json::from_str(arguments).expect("JSON");
                assert!(arguments["on"].is_boolean(), "{family} {more}: {choice}");
            }
        }
    }
}

#[test]
fn a_library_whose_tokens_are_others_than_the_tokenizers_is_told() {
    let words = ["yes", "no", "Sure", "{", "}", "1", ",", "[end]", "[UNK]"];
    for family in FAMILIES_RUN {
        for more in ["", "prefix-reuse = true", "abort-late-tokens = 1"] {
            let daemon = setup(family, more)
                .model_file("m", "tokenizer.json", &tokenizer_of(&words))
                .start();
            let of = format!("{family} {more}");
            for tells in [false, true] {
                // Of a few tokens it could not be told.
                let failed = daemon.post(CHAT, &with(asked(30), json!({"logprobs": tells})));
                let error = failed.json()["error"].clone();
                assert_eq!(
                    (failed.status, error["code"].as_str()),
                    (422, Some("format_not_kept")),
                    "{of}: {error}"
                );
                let message = error["message"].as_str().expect("a message");
                assert!(message.contains("`tokenizer.json`"), "{of}: {message}");
            }
            // What asks for nothing of the kind is what the library says.
            let plain = daemon.post(CHAT, &chat("m", "Go", json!({"max_tokens": 4})));
            assert_eq!(plain.status, 200, "{of}: {}", plain.body);
        }
    }
}

#[test]
fn each_answer_tells_what_it_took() {
    let daemon = setup("1_3_1", "prefix-reuse = true").start();
    let sum = |name: &str| metric(&daemon, &format!("rkllmd_redraw_{name}_per_answer_sum"));
    let count = |name: &str| metric(&daemon, &format!("rkllmd_redraw_{name}_per_answer_count"));
    let mut made = 0;
    for at in 1..=4 {
        let (text, ..) = parts(&ask(&daemon, json!({"max_tokens": 10 * at})));
        made += words_in(&text);
        for name in ["restarts", "wasted_tokens", "prompt_tokens"] {
            assert_eq!(count(name), f64::from(at), "{name}");
        }
    }
    assert_eq!(
        sum("wasted_tokens"),
        metric(&daemon, "rkllmd_redraw_wasted_tokens_total")
    );
    let (evaluated, restarts) = (sum("prompt_tokens"), sum("restarts"));
    assert_eq!(
        evaluated,
        metric(&daemon, "rkllmd_redraw_prompt_tokens_total")
    );
    // What is new is a token of the answer; for the row behind what is there the last one comes again.
    assert!(
        restarts > 0.0 && evaluated >= restarts,
        "{evaluated}, {restarts}"
    );
    assert!(
        evaluated <= made as f64 + restarts,
        "{evaluated}, {made}, {restarts}"
    );
    // One that is free takes nothing, and is none of them.
    let plain = daemon.post(CHAT, &chat("m", "Go", json!({"max_tokens": 2})));
    assert_eq!(plain.status, 200, "{}", plain.body);
    assert_eq!(count("restarts"), 4.0);
}

/// Also of an answer that was cut.
fn words_in(text: &str) -> usize {
    let marks = text.matches(['{', ',', '}']).count();
    let words = text.split(['{', ',', '}']);
    marks + words.filter(|word| !word.is_empty()).count()
}
