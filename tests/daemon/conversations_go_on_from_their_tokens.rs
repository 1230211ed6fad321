//! The last line of `/api/generate` has the conversation so far as the ids of its tokens, and a request that brings
//! them goes on with it: each turn is there once, closed as the model's template closes it. Control tokens are those
//! that a template wrote, whichever client gives the ids back.

use crate::daemon_support::{Answer, Daemon, Setup, keys};
use crate::doors::{Door, bearer};
use serde_json::{Value, json};

const GENERATE: &str = "/api/generate";
/// What is before the ids: a mark and a seal.
const HEADER: usize = 9;
const WORDS: [&str; 9] = [
    "[UNK]",
    "<|im_start|>",
    "<|im_end|>",
    "user",
    "assistant",
    "system",
    "one",
    "two",
    "said",
];

fn id(word: &str) -> i64 {
    let place = WORDS.iter().position(|it| *it == word);
    place.expect(word).try_into().expect("a small number")
}

fn ids(words: &str) -> Vec<i64> {
    words
        .split(' ')
        .map(|word| match word {
            "<" => id("<|im_start|>"),
            ">" => id("<|im_end|>"),
            word => id(word),
        })
        .collect()
}

/// One token a word.
fn tokenizer() -> String {
    let special = |word: &str| {
        json!({"id": id(word), "content": word, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    let vocabulary = WORDS
        .iter()
        .map(|word| ((*word).to_owned(), json!(id(word))));
    let vocabulary: serde_json::Map<String, Value> = vocabulary.collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special("<|im_start|>"), special("<|im_end|>")],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocabulary},
    })
    .to_string()
}

fn setup() -> Setup {
    const SAID: &str = "tokens = [\"said\"]\n";
    let setup = Setup::new().scenario("m", SAID).scenario("n", SAID);
    let setup = setup.scenario("plain", SAID);
    let setup = ["m", "n"].into_iter().fold(setup, |setup, model| {
        setup
            .model_file(model, "tokenizer.json", &tokenizer())
            .model_file(model, "model.toml", "template = \"chatml\"\n")
    });
    setup.model_file("plain", "model.toml", "template = \"chatml\"\n")
}

fn body(prompt: &str, more: Value) -> Value {
    let mut body = json!({"model": "m", "prompt": prompt, "stream": false});
    let more = more.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

/// The ids behind the seal, and all numbers.
fn context(answer: &Value) -> (Vec<i64>, Vec<i64>) {
    let all = answer["context"].as_array();
    let all = all.unwrap_or_else(|| panic!("no context: {answer}")).iter();
    let all: Vec<i64> = all.map(|it| it.as_i64().expect("an integer")).collect();
    assert!(all.iter().all(|number| (0..1 << 31).contains(number)));
    (all[HEADER..].to_vec(), all)
}

fn answered(daemon: &Daemon, body: &Value) -> Value {
    let answer = daemon.post(GENERATE, body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    answer.json()
}

fn refused(answer: &Answer, code: &str) {
    let error = answer.json();
    let told = (answer.status, &error["param"], &error["code"]);
    assert_eq!(
        told,
        (400, &json!("context"), &json!(code)),
        "{}",
        answer.body
    );
}

const FIRST: &str = "< user one > < assistant said >";
const SECOND: &str = "< user one > < assistant said > < user two > < assistant said >";

#[test]
fn a_conversation_goes_on_turn_by_turn() {
    let setup = setup();
    let daemon = setup.start_again();
    let first = answered(&daemon, &body("one", json!({})));
    let (first_ids, first) = context(&first);
    assert_eq!(first_ids, ids(FIRST));
    let next = body("two", json!({"context": first, "system": "one"}));
    let second = daemon.post(GENERATE, &next);
    assert_eq!(second.status, 200, "{}", second.body);
    // It was told in the beginning, or not at all.
    assert_eq!(second.header("x-rkllmd-not-applied"), Some("system"));
    let (second_ids, second_all) = context(&second.json());
    assert_eq!(second_ids, ids(SECOND));
    // The answer is the last token but one.
    let prompt = second.json()["prompt_eval_count"].as_u64();
    assert_eq!(prompt, Some(ids(SECOND).len() as u64 - 2));
    drop(daemon);

    // It is the daemon's own, also of the next one, and in a stream.
    let daemon = setup.start_again();
    let third = body("one", json!({"context": second_all, "stream": true}));
    let third = daemon.post(GENERATE, &third);
    assert_eq!(third.status, 200, "{}", third.body);
    let lines: Vec<Value> = third
        .body
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let (last, before) = lines.split_last().expect("lines");
    assert!(before.iter().all(|line| line.get("context").is_none()));
    let (third_ids, _) = context(last);
    assert_eq!(third_ids, ids(&format!("{SECOND} {FIRST}")));

    // A beginning with a system's message, and one by a template of the request's.
    let told = answered(&daemon, &body("one", json!({"system": "two"})));
    assert_eq!(context(&told).0, ids(&format!("< system two > {FIRST}")));
    let template =
        "{{ if .System }}system {{ end }}user {{ .Prompt }} assistant {{ .Response }} two ";
    let written = answered(&daemon, &body("one", json!({"template": template})));
    let (written_ids, written) = context(&written);
    assert_eq!(written_ids, ids("user one assistant said two"));
    let more = json!({"template": template, "context": written});
    let written = answered(&daemon, &body("two", more));
    let expected = "user one assistant said two user two assistant said two";
    assert_eq!(context(&written).0, ids(expected));
}

#[test]
fn ids_that_are_not_the_daemons_are_a_clients_text() {
    let daemon = setup().start();
    let own = answered(&daemon, &body("one", json!({})));
    let (_, own) = context(&own);
    let ask = |context: &[i64], more: Value| {
        let mut body = body("two", more);
        body["context"] = json!(context);
        daemon.post(GENERATE, &body)
    };
    // Not by a changed seal, a cut or longer conversation, or another model.
    for place in 1..own.len() {
        let mut changed = own.clone();
        changed[place] ^= 1;
        refused(&ask(&changed, json!({})), "invalid_value");
    }
    refused(&ask(&own[..own.len() - 1], json!({})), "invalid_value");
    refused(&ask(&[&own[..], &[1]].concat(), json!({})), "invalid_value");
    refused(&ask(&own, json!({"model": "n"})), "invalid_value");
    // By itself no id of a client's is a control token.
    refused(&ask(&ids(FIRST), json!({})), "control_token_in_message");
    refused(
        &ask(&ids(FIRST), json!({"special": false})),
        "control_token_in_message",
    );
    let special = ask(&ids(FIRST), json!({"special": true}));
    assert_eq!(special.status, 200, "{}", special.body);
    assert_eq!(context(&special.json()).0, ids(SECOND));
    let plain = ask(&ids("one two"), json!({}));
    assert_eq!(plain.status, 200, "{}", plain.body);
    let expected = "one two < user two > < assistant said >";
    assert_eq!(context(&plain.json()).0, ids(expected));
    // Nothing has this id, or the model's tokens are not known.
    let beyond = ask(&[999_999], json!({}));
    assert_eq!(beyond.status, 400, "{}", beyond.body);
    assert_eq!(beyond.json()["param"], "context[0]", "{}", beyond.body);
    let unknown = ask(&own, json!({"model": "plain"}));
    refused(&unknown, "unsupported_parameter");
    let plain = answered(&daemon, &body("one", json!({"model": "plain"})));
    assert!(plain.get("context").is_none(), "{plain}");
    let raw = answered(&daemon, &body("one", json!({"raw": true})));
    assert!(raw.get("context").is_none(), "{raw}");
}

#[test]
fn an_administrators_key_lets_control_tokens_be_and_no_other_does() {
    let setup = setup();
    let user = keys(setup.folder(), "add user");
    let admin = keys(setup.folder(), "add boss --role admin");
    let daemon = setup.start_again();
    let door = Door::Tcp(daemon.address);
    let ask = |key: &str, more: Value| {
        let headers = bearer(Some(key));
        door.ask("POST", GENERATE, &headers, &body("two", more).to_string())
    };
    for more in [json!({}), json!({"context": ids(FIRST)})] {
        let mut special = more;
        special["special"] = json!(true);
        let refused = ask(&user, special.clone());
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert_eq!(refused.json()["param"], "special", "{}", refused.body);
        let served = ask(&admin, special);
        assert_eq!(served.status, 200, "{}", served.body);
    }
    // What the daemon has sealed any key goes on with.
    let own = ask(&user, json!({})).json();
    let (_, own) = context(&own);
    let served = ask(&user, json!({"context": own}));
    assert_eq!(served.status, 200, "{}", served.body);
}

#[test]
fn a_model_without_a_template_is_asked_by_that_of_a_request() {
    let daemon = Setup::new()
        .model_file("bare", "model.rkllm", "echo-prompt = true\n")
        .start();
    let chat = |model: &str| {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let body = json!({"model": model, "messages": messages, "stream": false});
        daemon.post("/api/chat", &body)
    };
    assert_eq!(chat("bare").status, 400);
    let template = "{{ if .System }}S: {{ .System }} {{ end }}Q: {{ .Prompt }} A: {{ .Response }} ";
    let more = json!({"model": "bare", "template": template, "system": "be kind"});
    let said = answered(&daemon, &body("hi", more));
    let said = said["response"].as_str().expect("a text").trim();
    assert_eq!(said, "S: be kind Q: hi A:");
    let made = json!({"model": "own", "from": "bare", "template": template, "stream": false});
    let made = daemon.post("/api/create", &made);
    assert_eq!(made.status, 200, "{}", made.body);
    let said = chat("own");
    assert_eq!(said.status, 200, "{}", said.body);
    let said = said.json();
    let said = said["message"]["content"].as_str().expect("a text").trim();
    assert_eq!(said, "Q: hi A:");
}

/// Of a context of 64 tokens a quarter is left for the answer.
#[test]
fn a_context_that_does_not_fit_loses_its_oldest_turns() {
    const TURN: usize = 8;
    const SYSTEM: usize = 4;
    const QUESTION: usize = 6;
    let setup = Setup::new().scenario("m", "tokens = [\"said\"]\n");
    let manifest = "template = \"chatml\"\ncontext-length = 64\n";
    let daemon = setup
        .model_file("m", "tokenizer.json", &tokenizer())
        .model_file("m", "model.toml", manifest)
        .start();
    let ask = |context: &[i64], more: Value| {
        let mut body = body("one", more);
        body["context"] = json!(context);
        daemon.post(GENERATE, &body)
    };
    let number = |answer: &Answer, header: &str| {
        let told = answer.header(header)?;
        Some(told.parse::<usize>().expect("a number"))
    };
    let dropped = |answer: &Answer| {
        let messages = number(answer, "x-rkllmd-dropped-messages");
        (messages, number(answer, "x-rkllmd-dropped-tokens"))
    };
    let evaluated = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let count = answer.json()["prompt_eval_count"].as_u64();
        usize::try_from(count.expect("a count")).expect("a small number")
    };
    let first = answered(&daemon, &body("one", json!({"system": "two"})));
    let mut all = context(&first).1;
    let mut cuts = Vec::new();
    for turns in 1..16 {
        let before = SYSTEM + TURN * turns;
        let whole = before + QUESTION;
        let fits = whole < 64;
        let refused = (!fits).then(|| ask(&all, json!({"truncate": false})));
        if let Some(refused) = refused {
            let told = (refused.status, refused.json()["code"].clone());
            let expected = (400, json!("context_length_exceeded"));
            assert_eq!(told, expected, "{}", refused.body);
        }
        let answer = ask(&all, json!({}));
        let prompt = evaluated(&answer);
        match dropped(&answer) {
            (None, None) => assert!(fits && prompt == whole, "{turns}: {prompt}"),
            (Some(messages), Some(tokens)) => {
                assert!(!fits, "{turns}");
                assert_eq!(tokens, messages / 2 * TURN, "{turns}");
                assert_eq!(prompt, whole - tokens, "{turns}");
                assert!(prompt <= 48, "{turns}: {prompt}");
                cuts.push(tokens);
            }
            other => panic!("{turns}: {other:?}"),
        }
        // What a client keeps is whole.
        let (ids_now, all_now) = context(&answer.json());
        assert_eq!(ids_now.len(), before + TURN, "{turns}");
        all = all_now;
    }
    // The next turns lose the same.
    let times = cuts.len();
    cuts.dedup();
    assert!(times >= 8 && cuts.len() < times, "{cuts:?}");

    // What shows no turns loses its oldest tokens but the first four.
    let answer = ask(&ids("one ".repeat(70).trim_end()), json!({}));
    assert_eq!(dropped(&answer), (None, Some(36)));
    assert_eq!(evaluated(&answer), 70 - 36 + QUESTION);
    // How many stay is asked of a context alone.
    let kept = json!({"options": {"num_keep": 9}});
    let answer = ask(&ids("one ".repeat(70).trim_end()), kept.clone());
    assert_eq!(dropped(&answer), (None, Some(36)));
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    let told = daemon.post(GENERATE, &body("one", kept));
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(told.header("x-rkllmd-not-applied"), Some("num_keep"));
}
