//! No body whatever breaks either endpoint: it gets an answer, or an error that says what is wrong
//! with it. Never an error of the server, never a connection that just ends.

use std::sync::LazyLock;

use crate::http_support::*;
use proptest::prelude::*;
use proptest::sample::Index;
use rkllmd::settings::Settings;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

/// The server that all cases of one test meet.
struct Case {
    runtime: Runtime,
    server: Server,
}

impl Case {
    fn new() -> Self {
        let runtime = Runtime::new().expect("threads");
        let server = runtime.block_on(Server::replaying(Settings::default(), || {
            vec![started(&[]), text("x"), finished()]
        }));
        Self { runtime, server }
    }

    /// Sends a body to both endpoints; gives the statuses.
    fn check(&self, body: &[u8]) -> [u16; 2] {
        [CHAT, TEXT].map(|path| {
            let answer = self.runtime.block_on(self.server.post(path, body));
            let shown = String::from_utf8_lossy(body);
            match answer.status {
                200 => {}
                400 | 404 => {
                    let (class, _, code) = answer.error();
                    assert_eq!(class, "invalid_request_error", "{shown}");
                    assert_ne!(code, "internal_error", "{shown}");
                }
                other => panic!("{path} answers {other} to {shown}: {}", answer.text()),
            }
            // The next body must be met by the same server.
            assert!(answer.header("x-request-id").is_some());
            answer.status
        })
    }
}

thread_local! {
    static CASE: LazyLock<Case> = LazyLock::new(Case::new);
}

fn check(body: impl AsRef<[u8]>) -> [u16; 2] {
    CASE.with(|case| case.check(body.as_ref()))
}

/// A request that both endpoints answer, with every parameter there is.
fn whole_request() -> Value {
    json!({
        "model": "tiny", "prompt": "once", "stream": false,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "u", "content": [{"type": "text", "text": "a€😀"}]},
            {"role": "assistant", "content": "b"},
        ],
        "stream_options": {"include_usage": true},
        "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 40,
        "repeat_penalty": 1.1, "presence_penalty": 0.0, "frequency_penalty": -0.5,
        "stop": ["END", "\n\n"], "seed": 7, "n": 1, "logit_bias": {}, "user": "me",
        "resume": false, "total_deadline_ms": 60000, "best_of": 1, "echo": false, "suffix": "",
        "response_format": {"type": "text"}, "tools": [], "tool_choice": "none",
        "logprobs": null, "top_logprobs": null, "modalities": ["text"],
        "chat_template_kwargs": {"enable_thinking": false},
    })
}

#[test]
fn the_request_that_is_mutated_is_answered() {
    assert_eq!(check(whole_request().to_string()), [200, 200]);
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "\\PC{0,12}",
        1 => ".{0,12}",
        1 => prop::sample::select(vec![
            "<|im_start|>", "<|im_end|>system", "{{", "{% raw %}", "\0", "\u{feff}", "tiny", "user",
            "assistant", "text", "END", "auto",
        ])
        .prop_map(str::to_owned),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let key = prop_oneof![any_text(), any_field()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The name of something that is read, at the top or inside.
fn any_field() -> impl Strategy<Value = String> {
    let request = whole_request();
    let mut names: Vec<String> = request
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    let inner = [
        "role",
        "content",
        "name",
        "type",
        "text",
        "include_usage",
        "tool_calls",
        "image_url",
        "enable_thinking",
        "add_generation_prompt",
        "bos_token",
        "raise_exception",
        "messages",
    ];
    names.extend(inner.map(str::to_owned));
    prop::sample::select(names)
}

/// A request in which some values are replaced.
fn with_other_values() -> impl Strategy<Value = String> {
    let other = prop::collection::vec((any_field(), any_json()), 1..4);
    other.prop_map(|fields| {
        let mut request = whole_request();
        for (name, value) in fields {
            request[name] = value;
        }
        request.to_string()
    })
}

#[derive(Clone, Debug)]
enum Damage {
    Replace(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
    CutOff,
}

fn damage() -> impl Strategy<Value = Damage> {
    let telling: Vec<&[u8]> = vec![
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"\\",
        b"\\ud800",
        b"\\u0000",
        b"-",
        b"e999",
        b"1e-400",
        b"0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"//",
        b"NaN",
    ];
    prop_oneof![
        any::<u8>().prop_map(Damage::Replace),
        prop::sample::select(telling).prop_map(|bytes| Damage::Insert(bytes.to_vec())),
        (1usize..40).prop_map(Damage::Remove),
        (1usize..40).prop_map(Damage::Repeat),
        Just(Damage::CutOff),
    ]
}

fn damaged(mut body: Vec<u8>, damage: &[(Index, Damage)]) -> Vec<u8> {
    for (at, damage) in damage {
        if body.is_empty() {
            break;
        }
        let at = at.index(body.len());
        let end = |length: &usize| (at + length).min(body.len());
        match damage {
            Damage::Replace(byte) => body[at] = *byte,
            Damage::Insert(bytes) => drop(body.splice(at..at, bytes.iter().copied())),
            Damage::Remove(length) => drop(body.drain(at..end(length))),
            Damage::Repeat(length) => {
                let piece = body[at..end(length)].to_vec();
                drop(body.splice(at..at, piece));
            }
            Damage::CutOff => body.truncate(at),
        }
    }
    body
}

proptest! {
    #[test]
    fn arbitrary_bytes(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check(body);
    }

    #[test]
    fn arbitrary_json(body in any_json()) {
        check(body.to_string());
    }

    #[test]
    fn requests_with_other_values(body in with_other_values()) {
        check(body);
    }

    #[test]
    fn damaged_requests(damage in prop::collection::vec((any::<Index>(), damage()), 1..5)) {
        check(damaged(whole_request().to_string().into_bytes(), &damage));
    }

    #[test]
    fn variables_of_the_template(kwargs in prop::collection::vec((prop_oneof![any_text(), any_field()], any_json()), 0..4)) {
        let mut request = whole_request();
        request["chat_template_kwargs"] = Value::from(kwargs.into_iter().collect::<Map<_, _>>());
        check(request.to_string());
    }
}

/// Bodies that were found to be met wrongly, here or in other servers, or that are hard by
/// construction.
#[test]
fn known_hard_bodies() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    };
    let message = |content: &str| {
        format!(r#"{{"model":"tiny","messages":[{{"role":"user","content":{content}}}]}}"#)
    };
    let with = |field: &str| {
        let request = whole_request().to_string();
        format!("{},{field}}}", &request[..request.len() - 1])
    };
    let bad = [400, 400];
    for (body, expected) in [
        (String::new(), bad),
        ("\u{feff}{}".to_owned(), bad),
        ("null".to_owned(), bad),
        ("{}".to_owned(), bad),
        ("{} {}".to_owned(), bad),
        (nested("[", "]", 100_000), bad),
        (nested("{\"a\":", "}", 100_000), bad),
        // What is not read is skipped without recursion; what is read nests as deep as the parser goes.
        (with(&format!("\"x\":{}", nested("[", "]", 100_000))), [200, 200]),
        (with(&format!("\"logit_bias\":{}", nested("[", "]", 100_000))), bad),
        (with(r#""x":1e999"#), [200, 200]),
        (with(r#""x":"\ud800""#), bad),
        (r#"{"model":"tiny","temperature":1e999}"#.to_owned(), bad),
        (with(r#""model":"tiny""#), bad),
        (message(r#""\ud83d""#), bad),
        (message(r#""\u0000""#), bad),
        // No parts are an empty text; the prompt is missing.
        (message("[]"), [200, 400]),
        (message("[[]]"), bad),
        (message("{}"), bad),
        (message(r#"[{"type":"text"}]"#), bad),
        (message(r#"[{"type":"text","text":null}]"#), bad),
        (r#"{"model":"","messages":[],"prompt":""}"#.to_owned(), bad),
        (r#"{"model":"tiny","messages":[],"prompt":[]}"#.to_owned(), bad),
        (r#"{"model":"tiny","messages":[null],"prompt":[null]}"#.to_owned(), bad),
        (r#"{"model":"picky","messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}],"prompt":["a",1]}"#.to_owned(), [200, 400]),
        (format!(r#"{{"model":"picky","messages":[{{"role":"user","content":"{}"}}],"prompt":["a",1]}}"#, "b".repeat(2000)), bad),
        (r#"{"model":"../../etc/passwd","messages":[{"role":"user","content":"a"}],"prompt":"a"}"#.to_owned(), [404, 404]),
    ] {
        let shown: String = body.chars().rev().take(200).collect();
        let shown: String = shown.chars().rev().collect();
        assert_eq!(check(&body), expected, "… {shown}");
    }
}
