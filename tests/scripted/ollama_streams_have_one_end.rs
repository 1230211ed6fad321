//! Random replies through Ollama's API and OpenAI's: whatever a model writes and wherever it fails, the
//! lines are in order and balanced, they have one end, and both say the same.

use std::sync::{Arc, Mutex};

use crate::http_support::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{FinishReason, GenerationError, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::Value;

const SCRIPTS: u32 = 1000;

/// What happens, piece by piece.
#[derive(Clone, Debug)]
enum Happens {
    Thought(String),
    Said(String),
    /// Arguments, in pieces.
    Called(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Stop,
    /// In the middle of a call, if there is one.
    Length,
    Failure,
}

fn happens() -> impl Strategy<Value = Happens> {
    let words = "[a-z\"\\\\\n é😀{}]{1,8}";
    prop_oneof![
        words.prop_map(Happens::Thought),
        words.prop_map(Happens::Said),
        prop_oneof![
            Just(vec!["{\"a\": ".to_owned(), "[1,\n \"}\"]}".to_owned()]),
            Just(vec!["{}".to_owned()]),
            Just(Vec::new()),
            // No object.
            Just(vec!["[1, ".to_owned(), "2]".to_owned()]),
        ]
        .prop_map(Happens::Called),
    ]
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Stop), Just(End::Length), Just(End::Failure)]
}

fn events(script: &[Happens], end: End) -> Vec<ReplyEvent> {
    let mut events = vec![started(&[])];
    let mut calls = 0;
    for (place, happens) in script.iter().enumerate() {
        let is_last = place + 1 == script.len();
        events.push(match happens {
            Happens::Thought(text) => ReplyEvent::Piece(ReplyPiece::Reasoning(text.clone())),
            Happens::Said(text) => ReplyEvent::Piece(ReplyPiece::Text(text.clone())),
            Happens::Called(deltas) => {
                let index = calls;
                calls += 1;
                let mut pieces = vec![ReplyPiece::ToolCall {
                    index,
                    id: None,
                    name: "f".to_owned(),
                }];
                let deltas = deltas.iter().cloned();
                pieces.extend(deltas.map(|delta| ReplyPiece::ToolArguments { index, delta }));
                if !is_last || end == End::Stop {
                    pieces.push(ReplyPiece::ToolCallEnd { index });
                }
                ReplyEvent::Pieces(pieces)
            }
        });
    }
    events.push(match end {
        End::Stop => finished(),
        End::Length => finished_unmeasured(FinishReason::Length),
        End::Failure => ReplyEvent::Failed(GenerationError::RunFailed {
            request: "r".to_owned(),
        }),
    });
    events
}

/// What the same reply says through OpenAI's API: thoughts and content.
fn openai(answer: &Answer) -> (String, String, usize) {
    let (mut thinking, mut content, mut calls) = (String::new(), String::new(), 0);
    for line in answer.text().lines() {
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            continue;
        };
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        let delta = &chunk["choices"][0]["delta"];
        thinking.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        content.push_str(delta["content"].as_str().unwrap_or_default());
        let begun = delta["tool_calls"].as_array().into_iter().flatten();
        calls += begun.filter(|call| call.get("id").is_some()).count();
    }
    (thinking, content, calls)
}

#[test]
fn whatever_a_model_writes_the_lines_have_one_end() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let next: Arc<Mutex<Vec<ReplyEvent>>> = Arc::default();
    let script = Arc::clone(&next);
    let server = runtime.block_on(Server::start(Settings::default(), move |_| {
        Ok(replay(script.lock().unwrap().clone()))
    }));
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(SCRIPTS)
    });
    let scripts = (prop::collection::vec(happens(), 0..6), ends());
    let checked = runner.run(&scripts, |(script, end)| {
        *next.lock().unwrap() = events(&script, end);
        let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;
        let answer = runtime.block_on(server.post("/api/chat", body));
        let other = runtime.block_on(server.ask(chat(r#","stream":true"#)));
        if end == End::Failure && script.is_empty() {
            prop_assert_eq!((answer.status, other.status), (503, 503));
            prop_assert!(answer.json()["error"].is_string());
            return Ok(());
        }
        let said = said(&answer);
        prop_assert_eq!(said.error.is_some(), end == End::Failure);
        if let Some(last) = &said.last {
            let reason = if end == End::Length { "length" } else { "stop" };
            prop_assert_eq!(&last["done_reason"], reason);
        }
        let (thinking, content, calls) = openai(&other);
        prop_assert_eq!(&said.thinking, &thinking);
        // Calls that cannot be told as such are content.
        let as_content = said
            .content
            .matches("{\"name\": \"f\", \"arguments\": ")
            .count();
        let lost =
            usize::from(end == End::Failure && matches!(script.last(), Some(Happens::Called(_))));
        prop_assert_eq!(said.calls.len() + as_content + lost, calls);
        if as_content == 0 {
            prop_assert_eq!(&said.content, &content);
        }
        Ok(())
    });
    runtime.block_on(server.shut_down());
    checked.expect("every script");
}
