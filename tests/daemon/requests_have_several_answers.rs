//! Several answers to one request: each is a run of its own.

use std::collections::BTreeMap;

use crate::daemon_support::{Daemon, Setup, chat, completion, word_tokenizer};
use serde_json::{Value, json};

const MODEL: &str = "smollm2";
const CHATS: &str = "/v1/chat/completions";
const TEXTS: &str = "/v1/completions";

fn texts(answer: &Value, at: &str) -> Vec<String> {
    let choices = answer["choices"].as_array().expect("choices");
    let indices: Vec<_> = choices
        .iter()
        .map(|choice| choice["index"].clone())
        .collect();
    assert_eq!(
        indices,
        (0..choices.len()).map(Value::from).collect::<Vec<_>>()
    );
    let text = |choice: &Value| {
        choice
            .pointer(at)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    choices
        .iter()
        .map(|choice| text(choice).expect("a text"))
        .collect()
}

fn usage(answer: &Value, name: &str) -> u64 {
    answer["usage"][name].as_u64().expect("a count")
}

fn long_prompt() -> String {
    "The old lighthouse keeper wrote in his diary every evening about the ships. ".repeat(20)
        + "Tell me what he wrote today."
}

#[test]
fn each_answer_draws_by_its_own_seed_and_the_prompt_is_evaluated_once() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let ask = |seed: i64, n: u32| {
        let more = json!({"temperature": 1.1, "max_tokens": 16, "seed": seed, "n": n});
        let answer = daemon.post(CHATS, &chat(MODEL, &long_prompt(), more));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let one = ask(40, 1);
    let prompt = usage(&one, "prompt_tokens");
    let all = ask(40, 4);
    let four = texts(&all, "/message/content");
    assert_eq!(four.len(), 4);
    for (index, text) in four.iter().enumerate() {
        let seed = 40 + index as i64;
        let alone = texts(&ask(seed, 1), "/message/content");
        assert_eq!(
            alone,
            std::slice::from_ref(text),
            "the seed of choice {index}"
        );
    }
    assert!(four.iter().any(|text| *text != four[0]), "{four:?}");
    assert_eq!(usage(&all, "prompt_tokens"), prompt, "{all}");
    let made = usage(&all, "completion_tokens");
    assert!((5..=64).contains(&made), "{all}");
    assert_eq!(usage(&all, "total_tokens"), prompt + made);

    // By a worker that has read nothing yet: of each further answer's prompt a last piece is evaluated again.
    let fresh = Setup::new().demo_model(MODEL).start();
    let more = json!({"temperature": 1.1, "max_tokens": 4, "n": 4});
    let answer = fresh.post(CHATS, &chat(MODEL, &long_prompt(), more)).json();
    let evaluated = answer["timings"]["prompt_n"].as_u64().expect("a count");
    assert!(prompt > 250, "{prompt}");
    assert!(
        (prompt..=prompt + 3 * 67).contains(&evaluated),
        "{evaluated} of {prompt}"
    );
}

#[test]
fn a_stream_has_all_answers_by_their_index() {
    let daemon = Setup::new()
        .demo_model(MODEL)
        .model_file(MODEL, "model.toml", "parallel = 3\n")
        .start();
    let more = json!({"temperature": 1.1, "max_tokens": 12, "seed": 5, "n": 3});
    let mut body = chat(MODEL, "Invent a name for a boat.", more);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = daemon.stream(CHATS, &body).collect();
    assert_eq!(events.last().expect("an end").1, "[DONE]");
    let chunks: Vec<Value> = events
        .iter()
        .filter_map(|(_, data)| serde_json::from_str(data).ok())
        .collect();
    let (mut texts, mut ended) = (BTreeMap::<u64, String>::new(), Vec::new());
    for chunk in &chunks {
        let Some(choice) = chunk["choices"].get(0) else {
            continue;
        };
        let index = choice["index"].as_u64().expect("an index");
        assert!(!ended.contains(&index), "nothing follows its end: {chunk}");
        let piece = choice["delta"]["content"].as_str().unwrap_or_default();
        texts.entry(index).or_default().push_str(piece);
        if !choice["finish_reason"].is_null() {
            ended.push(index);
        }
    }
    // They are made beside each other, so they are not what they would be alone.
    assert!(
        texts.len() == 3 && texts.values().all(|text| text.len() > 8),
        "{texts:?}"
    );
    assert!(texts[&0] != texts[&1], "{texts:?}");
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2]);
    let last = chunks.last().expect("a usage");
    assert_eq!(last["choices"], json!([]));
    assert!(usage(last, "completion_tokens") > 3, "{last}");
}

fn scripted() -> Daemon {
    Setup::new()
        .scenario("fake", "tokens = [\"one \", \"two \", \"three \"]\n")
        .model_file("fake", "tokenizer.json", &word_tokenizer(&["<|end|>"]))
        .settings("chat.max-prompts = 3\nchat.max-choices = 2\n")
        .start()
}

#[test]
fn each_prompt_is_answered() {
    let daemon = scripted();
    let ask = |prompt: Value, more: Value| {
        let mut body = completion("fake", "", more);
        body["prompt"] = prompt;
        daemon.post(TEXTS, &body)
    };
    let answer = ask(
        json!(["a", "b c", "d"]),
        json!({"n": 2, "max_tokens": 2, "echo": true}),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = texts(&answer.json(), "/text");
    assert_eq!(told[..2], ["aone two ", "aone two "]);
    assert_eq!(told[2..4], ["b cone two ", "b cone two "]);
    assert_eq!(told[4..], ["done two ", "done two "]);
    assert_eq!(usage(&answer.json(), "completion_tokens"), 12);
    for (prompt, more, param) in [
        (json!(["a", "b", "c", "d"]), json!({}), "prompt"),
        (json!(["a", ""]), json!({}), "prompt[1]"),
        (json!([]), json!({}), "prompt"),
        (json!([[1], []]), json!({}), "prompt[1]"),
        (json!("a"), json!({"n": 3}), "n"),
        (json!("a"), json!({"n": 0}), "n"),
        (json!("a"), json!({"best_of": 2}), "best_of"),
    ] {
        let refused = ask(prompt, more);
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert_eq!(refused.json()["error"]["param"], param, "{}", refused.body);
    }
}

#[test]
fn one_that_fails_ends_the_request() {
    let daemon = Setup::new()
        .scenario("fake", "tokens = [\"one \"]\n")
        .settings("queue.capacity = 2\n")
        .start();
    // Three do not fit in the queue, whatever runs first.
    let body = chat("fake", "x", json!({"n": 8}));
    let refused = daemon.post(CHATS, &body);
    assert_eq!(refused.status, 429, "{}", refused.body);
    let answer = daemon.post(CHATS, &chat("fake", "x", json!({"n": 2})));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// A model that says its prompt back, whose vocabulary marks gaps.
fn echoing() -> Daemon {
    gaps(&[], "")
}

/// The same with further tokens.
fn gaps(more: &[&str], manifest: &str) -> Daemon {
    let mut tokens = vec!["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|end|>"];
    tokens.extend(more);
    Setup::new()
        .scenario("fake", "echo-prompt = true\n")
        .model_file("fake", "tokenizer.json", &word_tokenizer(&tokens))
        .model_file(
            "fake",
            "model.toml",
            &format!("template = \"chatml\"\n{manifest}"),
        )
        .start()
}

#[test]
fn a_gap_is_marked_as_the_model_knows_it() {
    let daemon = echoing();
    let more = json!({"suffix": "c <|end|>", "max_tokens": -1});
    let answer = daemon.post(TEXTS, &completion("fake", "a b", more));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let text = &texts(&answer.json(), "/text")[0];
    assert!(text.starts_with("<fim_prefix>a b<fim_suffix>c "), "{text}");
    assert!(
        text.ends_with("<fim_middle>") && !text.contains("<|end|>"),
        "{text}"
    );
    assert_eq!(answer.header("x-rkllmd-neutralised"), Some("prompt"));
    let without = scripted();
    let refused = without.post(TEXTS, &completion("fake", "a", json!({"suffix": "b"})));
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert_eq!(
        refused.json()["error"]["param"],
        "suffix",
        "{}",
        refused.body
    );
}

#[test]
fn a_gap_is_filled_in_the_shape_of_llama_cpps_server() {
    let daemon = gaps(&["<file_sep>", "<repo_name>"], "context-length = 64\n");
    let ask = |more: Value| {
        let mut body = json!({"input_prefix": "a b", "input_suffix": "c <|end|>", "prompt": "d"});
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("fields").clone());
        let answer = daemon.post("/infill", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let prompt = answer.json()["content"]
            .as_str()
            .expect("a text")
            .to_owned();
        (prompt, answer)
    };
    let (prompt, answer) = ask(json!({}));
    assert!(
        prompt.starts_with("<fim_prefix>a b<fim_suffix>c "),
        "{prompt}"
    );
    assert!(
        prompt.ends_with("<fim_middle>d") && !prompt.contains("<|end|>"),
        "{prompt}"
    );
    assert_eq!(answer.header("x-rkllmd-neutralised"), Some("input_prefix"));
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    // Other files stand before it, and those that do not fit are left out, the first ones first.
    let file = |name: &str, words: usize| json!({"filename": name, "text": "w ".repeat(words)});
    let (prompt, answer) = ask(json!({"input_extra": [file("one", 3), file("two", 3)]}));
    let begins = "<repo_name>myproject\n<file_sep>one\nw w w \n<file_sep>two\nw w w \n<file_sep>filename\n\
        <fim_prefix>";
    assert!(prompt.starts_with(begins), "{prompt}");
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    let files = [file("one", 40), file("two", 10), file("three", 3)];
    let (prompt, answer) = ask(json!({"input_extra": files}));
    let begins = "<repo_name>myproject\n<file_sep>two\n";
    assert!(prompt.starts_with(begins), "{prompt}");
    assert_eq!(answer.header("x-rkllmd-not-applied"), Some("input_extra"));
    assert_eq!(answer.header("x-rkllmd-dropped-messages"), None);
    // What is around the gap is not cut.
    let long = json!({"input_prefix": "w ".repeat(70), "input_suffix": "", "input_extra": files});
    let refused = daemon.post("/infill", &long);
    assert_eq!(
        refused.error_code(),
        "context_length_exceeded",
        "{}",
        refused.body
    );
    drop(daemon);
    // Where no marker is for files they are put before it.
    let daemon = gaps(&[], "");
    let body = json!({"input_prefix": "a", "input_suffix": "", "input_extra": [file("one", 1)]});
    let answer = daemon.post("/infill", &body).json();
    assert_eq!(
        answer["content"],
        "w \n<fim_prefix>a<fim_suffix><fim_middle>"
    );
}

#[test]
fn a_gap_is_filled_as_ollamas_clients_ask() {
    let daemon = echoing();
    let shown = daemon.post("/api/show", &json!({"model": "fake"})).json();
    let capabilities = shown["capabilities"].as_array().expect("a list");
    assert!(capabilities.contains(&json!("insert")), "{shown}");
    // Continue asks a model to fill gaps whose template has `.Suffix`.
    assert_eq!(
        shown["template"],
        "<fim_prefix>{{ .Prompt }}<fim_suffix>{{ .Suffix }}<fim_middle>"
    );
    let body = json!({"model": "fake", "prompt": "a b", "suffix": "c", "system": "Be brief.", "stream": false});
    let answer = daemon.post("/api/generate", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let response = answer.json()["response"]
        .as_str()
        .expect("a text")
        .to_owned();
    assert_eq!(response, "<fim_prefix>a b<fim_suffix>c<fim_middle>");
    assert_eq!(answer.header("x-rkllmd-not-applied"), Some("system"));
    let raw = json!({"model": "fake", "prompt": "a", "suffix": "b", "raw": true});
    let refused = daemon.post("/api/generate", &raw);
    assert_eq!(
        (refused.status, &refused.json()["param"]),
        (400, &json!("suffix"))
    );
    let without = scripted();
    let shown = without.post("/api/show", &json!({"model": "fake"})).json();
    let capabilities = shown["capabilities"].as_array().expect("a list");
    assert!(!capabilities.contains(&json!("insert")), "{capabilities:?}");
    assert_eq!(shown.get("template"), None, "{shown}");
}

#[test]
fn texts_and_tokens_are_one_prompt() {
    let daemon = echoing();
    let body = json!({"prompt": [0, "a b", 0, 0], "n_predict": 3});
    let answer = daemon.post("/completion", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["tokens_evaluated"], 5, "{}", answer.body);
    let refused = daemon.post("/completion", &json!({"prompt": ["a", 4]}));
    assert_eq!(
        refused.error_code(),
        "control_token_in_message",
        "{}",
        refused.body
    );
    let refused = daemon.post("/completion", &json!({"prompt": [0, "a ".repeat(300_000)]}));
    assert_eq!(
        refused.error_code(),
        "context_length_exceeded",
        "{}",
        refused.body
    );
}

#[test]
fn control_tokens_come_on_purpose_only() {
    let daemon = echoing();
    let ask = |more: Value| daemon.post(TEXTS, &completion("fake", "a <|end|> b", more));
    let plain = ask(json!({"max_tokens": -1}));
    assert_eq!(plain.header("x-rkllmd-neutralised"), Some("prompt"));
    assert!(!texts(&plain.json(), "/text")[0].contains("<|end|>"));
    // No keys are asked for, so every client is its administrator.
    let special = ask(json!({"max_tokens": -1, "special": true}));
    assert_eq!(special.header("x-rkllmd-neutralised"), None);
    assert_eq!(texts(&special.json(), "/text"), ["a <|end|> b"]);
    // By their ids they come as little.
    for (ids, special, status) in [
        (json!([0, 4, 0]), false, 400),
        (json!([0, 4, 0]), true, 200),
        (json!([[0, 0], [0]]), false, 200),
    ] {
        let mut body = completion("fake", "", json!({"special": special, "max_tokens": 3}));
        body["prompt"] = ids;
        let answer = daemon.post(TEXTS, &body);
        assert_eq!(answer.status, status, "{}", answer.body);
        if status == 400 {
            assert_eq!(answer.error_code(), "control_token_in_message");
        }
    }
}
