//! What else the vendor's library is made to do by looking at its tokens: it tells how likely they were, keeps
//! bans, and keeps calls that a model makes as it likes to their schemas. On the CPU runtime without what the
//! vendor's library does not have, and on each family of that, whatever it does on the way.

use std::sync::OnceLock;

use crate::daemon_support::{Answer, Daemon, FAMILIES_RUN, Setup, chat, completion};
use crate::formats_support::MODEL;
use crate::formats_without_a_hook::{ABOUT_AS_LIKELY, demo, metric as metric_of_demo};
use crate::function_calls::TEMPLATE;
use crate::the_vendors_oddities_keep_formats::{
    asked, each_odd_library, is_kept, metric, setup, tokenizer_of,
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn the_real_model_says_how_likely_its_tokens_were_as_with_a_hook() {
    /// Rows of the same tokens that were evaluated in other pieces differ by less.
    const CLOSE: f64 = 1e-2;
    let (hooked, drawn_again) = (demo(true), demo(false));
    let schema = json!({"type": "object", "required": ["on"],
        "properties": {"on": {"type": "boolean"}}});
    let format = json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": schema}});
    for format in [json!({"type": "text"}), format] {
        for prompt in ["Is the lamp on?", "Name three colours."] {
            let asked = json!({"temperature": 0, "repeat_penalty": 1, "max_tokens": 12,
                "response_format": format, "logprobs": true, "top_logprobs": 3});
            let asked = chat(MODEL, prompt, asked);
            let told = [&hooked, &drawn_again].map(|daemon| {
                let answer = daemon.post(CHAT, &asked);
                assert_eq!(answer.status, 200, "{}", answer.body);
                let told = answer.json()["choices"][0]["logprobs"]["content"].clone();
                let told = told.as_array().cloned().expect("tokens");
                let bytes = told.iter().flat_map(|token| -> Vec<u8> {
                    serde_json::from_value(token["bytes"].clone()).expect("bytes")
                });
                assert_eq!(bytes.collect::<Vec<u8>>(), answer.content().as_bytes());
                told
            });
            let [hooked, drawn_again] = told;
            assert!(!hooked.is_empty());
            let value = |token: &Value| token["logprob"].as_f64().expect("a number");
            for (one, other) in hooked.iter().zip(&drawn_again) {
                if one["bytes"] != other["bytes"] {
                    let far = (value(one) - value(other)).abs();
                    assert!(far <= ABOUT_AS_LIKELY, "{one} {other}");
                    break;
                }
                assert!((value(one) - value(other)).abs() <= CLOSE, "{one} {other}");
                let top = |token: &Value| token["top_logprobs"].as_array().map(Vec::len);
                assert_eq!((top(one), top(other)), (Some(3), Some(3)));
            }
        }
    }
}

#[test]
fn the_real_model_keeps_bans_as_with_a_hook() {
    let (hooked, drawn_again) = (demo(true), demo(false));
    let ask = |daemon: &Daemon, banned: &[u64]| {
        let banned: serde_json::Map<String, Value> = banned
            .iter()
            .map(|id| (id.to_string(), json!(-100)))
            .collect();
        let asked = json!({"model": MODEL, "prompt": "The capital of France is", "n_predict": 8,
            "n_probs": 1, "temperature": 0, "repeat_penalty": 1, "logit_bias": banned});
        let answer = daemon.post("/completion", &asked);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let told = answer.json()["completion_probabilities"].clone();
        let ids = told.as_array().expect("tokens").iter();
        ids.map(|token| token["id"].as_u64().expect("an id"))
            .collect::<Vec<_>>()
    };
    let free = ask(&hooked, &[]);
    let banned = &free[..2];
    let kept = ask(&hooked, banned);
    assert!(kept.iter().all(|id| !banned.contains(id)), "{kept:?}");
    let again = ask(&drawn_again, banned);
    assert!(again.iter().all(|id| !banned.contains(id)), "{again:?}");
    assert_eq!(kept[0], again[0]);
    assert!(metric_of_demo(&drawn_again, "rkllmd_redraws_total") > 0.0);
    // By itself, without being told how likely tokens were.
    let banned: serde_json::Map<String, Value> = (free.iter())
        .map(|id| (id.to_string(), json!(-100)))
        .collect();
    let more = json!({"temperature": 0, "repeat_penalty": 1, "max_tokens": 8,
        "logit_bias": banned});
    let asked = completion(MODEL, "The capital of France is", more);
    let texts = [&hooked, &drawn_again].map(|daemon| {
        let answer = daemon.post("/v1/completions", &asked);
        assert_eq!(
            answer.header("x-rkllmd-not-applied"),
            None,
            "{}",
            answer.body
        );
        answer.json()["choices"][0]["text"].clone()
    });
    let begins = |text: &Value| {
        text.as_str()
            .map(|text| text.chars().take(3).collect::<String>())
    };
    assert_eq!(begins(&texts[0]), begins(&texts[1]), "{texts:?}");
}

/// Bytes of the tokens that an answer tells of, one after the other.
fn told_bytes(answer: &Answer, top: usize) -> Vec<u8> {
    let told = answer.json()["choices"][0]["logprobs"]["content"].clone();
    let told = told.as_array().expect("tokens").clone();
    let bytes = |token: &Value| -> Vec<u8> {
        let logprob = token["logprob"].as_f64().expect("a number");
        assert!((-9999.0..=0.0).contains(&logprob), "{token}");
        assert_eq!(token["top_logprobs"].as_array().map(Vec::len), Some(top));
        serde_json::from_value(token["bytes"].clone()).expect("bytes")
    };
    told.iter().flat_map(bytes).collect()
}

#[test]
fn tokens_say_how_likely_they_were_in_each_family_whatever_the_library_does() {
    let of_format = {
        let mut asked = asked(2);
        asked["logprobs"] = json!(true);
        asked["top_logprobs"] = json!(2);
        asked
    };
    let free = chat(
        "m",
        "Say it",
        json!({"max_tokens": 12, "logprobs": true, "top_logprobs": 2}),
    );
    let first = OnceLock::new();
    each_odd_library(|family, more| {
        let daemon = setup(family, more).start();
        let mode_of_format = match family {
            "1_2_1" => "logits, loaded-penalties",
            _ => "logits",
        };
        let told = [(&of_format, mode_of_format), (&free, "logits")].map(|(asked, mode)| {
            let answer = daemon.post(CHAT, asked);
            assert_eq!(answer.status, 200, "{family} {more}: {}", answer.body);
            assert_eq!(answer.header("x-rkllmd-run-mode"), Some(mode));
            assert_eq!(answer.header("x-rkllmd-not-applied"), None);
            let text = answer.content();
            assert_eq!(told_bytes(&answer, 2), text.as_bytes(), "{family} {more}");
            let logprobs = answer.json()["choices"][0]["logprobs"].clone();
            (text, logprobs)
        });
        assert!(is_kept(&told[0].0, 2), "{family} {more}: {}", told[0].0);
        assert_eq!(*first.get_or_init(|| told.clone()), told, "{family} {more}");
        assert!(metric(
            &daemon,
            "rkllmd_redraw_logits_runs_total{model=\"m\"}"
        ));
    });
}

#[test]
fn banned_tokens_never_come_whatever_the_library_does() {
    let ask = |daemon: &Daemon, biases: Value| {
        let more = json!({"max_tokens": 20, "logit_bias": biases});
        let answer = daemon.post(CHAT, &chat("m", "Say it", more));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    };
    let first = OnceLock::new();
    each_odd_library(|family, more| {
        let daemon = setup(family, more).start();
        // `yes`, `Sure`, and what ends an answer.
        let answer = ask(&daemon, json!({"1": -100, "3": -100, "8": -100}));
        assert_eq!(answer.header("x-rkllmd-not-applied"), None);
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
        let text = answer.content();
        assert!(!text.contains("yes") && !text.contains("Sure"), "{text}");
        assert_eq!(*first.get_or_init(|| text.clone()), text, "{family} {more}");
    });
    // What only makes a token more or less likely is not done.
    let daemon = setup("1_3_1", "").start();
    for biases in [json!({"1": 5}), json!({"1": -100, "2": -99})] {
        let answer = ask(&daemon, biases);
        assert_eq!(answer.header("x-rkllmd-not-applied"), Some("logit_bias"));
    }
}

pub const CALLERS_WORDS: [&str; 15] = [
    "[UNK]",
    "<tool_call>",
    "</tool_call>",
    "{",
    "}",
    "\"name\"",
    "\"arguments\"",
    "\"set_lamp\"",
    "\"on\"",
    "true",
    "false",
    ":",
    ",",
    "hm",
    "[end]",
];

/// A model that calls a function, and does not know how. `known`: the words of its tokenizer.
pub fn caller(family: &str, more: &str, known: &[&str]) -> Daemon {
    const WORDS: [&str; 15] = CALLERS_WORDS;
    let end = WORDS.len() - 1;
    let likely = |id: usize| {
        let mut row = vec!["0.0"; WORDS.len()];
        row[id] = "9.0";
        row.join(", ")
    };
    // Behind the prompt it calls, and behind a call it ends.
    let scenario = format!(
        "words = {WORDS:?}\neos-token-id = {end}\nrow-seed = 123\n{more}\n\
         [[row]]\nbehind = [0]\nlogits = [{}]\n[[row]]\nbehind = [2]\nlogits = [{}]\n",
        likely(1),
        likely(end)
    );
    Setup::with_family(family)
        .model_file("m", "model.rkllm", &scenario)
        .model_file(
            "m",
            "model.toml",
            &format!("eos-ids = [{end}]\n[sampling]\ntemperature = 0.0\n"),
        )
        .model_file("m", "chat_template.jinja", TEMPLATE)
        .model_file("m", "tokenizer.json", &tokenizer_of(known))
        .settings("constraints.max-redraws-without-reuse = 256")
        .start()
}

pub fn asked_to_call(most_tokens: u32) -> Value {
    let tool = json!({"type": "function", "function": {"name": "set_lamp", "strict": true,
        "description": "Switches it", "parameters": {"type": "object", "required": ["on"],
            "properties": {"on": {"type": "boolean"}}, "additionalProperties": false}}});
    chat(
        "m",
        "Light",
        json!({"tools": [tool], "max_tokens": most_tokens}),
    )
}

/// What the caller says of itself, by its library alone.
fn says_of_itself(daemon: &Daemon) {
    let answer = daemon.post(CHAT, &asked_to_call(6));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = answer.header("x-rkllmd-not-applied");
    assert_eq!(told, Some("tools[].function.strict"));
    assert_eq!(answer.content(), "truefalse,:,false");
}

#[test]
fn calls_that_begin_by_themselves_are_kept_to_their_schemas() {
    let mut first = None;
    for family in FAMILIES_RUN {
        for more in ["", "abort-late-tokens = 2", "logits-come = \"with-ids\""] {
            let daemon = caller(family, more, &CALLERS_WORDS);
            // That the library's tokens are the tokenizer's is known once it has printed some.
            says_of_itself(&daemon);
            let answer = daemon.post(CHAT, &asked_to_call(80));
            assert_eq!(answer.status, 200, "{family} {more}: {}", answer.body);
            assert_eq!(answer.header("x-rkllmd-not-applied"), None);
            let choice = answer.json()["choices"][0].clone();
            assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
            let call = &choice["message"]["tool_calls"][0]["function"];
            assert_eq!(call["name"], "set_lamp");
            let arguments = call["arguments"].as_str().expect("a text");
            let arguments: Value = serde_json::from_str(arguments).expect("JSON");
            assert!(arguments["on"].is_boolean(), "{choice}");
            assert_eq!(arguments.as_object().map(serde_json::Map::len), Some(1));
            assert!(metric(&daemon, "rkllmd_redraws_total{model=\"m\"}"));
            let first = first.get_or_insert_with(|| arguments.clone());
            assert_eq!(*first, arguments, "{family} {more}");
        }
    }
}

#[test]
fn a_library_whose_tokens_are_others_is_left_alone_where_nothing_asks_for_it() {
    let mut others = CALLERS_WORDS;
    others.reverse();
    for family in FAMILIES_RUN {
        let daemon = caller(family, "", &others);
        for _ in 0..3 {
            says_of_itself(&daemon);
        }
        assert!(!metric(&daemon, "rkllmd_redraws_total{model=\"m\"}"));
        // A ban by the tokenizer's numbers would be one of other words.
        let mut banned = asked_to_call(6);
        banned["tools"] = json!([]);
        banned["logit_bias"] = json!({"7": -100});
        let answer = daemon.post(CHAT, &banned);
        assert_eq!(answer.status, 200, "{family}: {}", answer.body);
        assert_eq!(answer.header("x-rkllmd-not-applied"), Some("logit_bias"));
    }
}
