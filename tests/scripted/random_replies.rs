//! Random replies for the dialects: whatever a model may write, and wherever it fails.

use std::sync::{Arc, Mutex};

use crate::http_support::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{FinishReason, GenerationError, ReplyEvent};
use rkllmd::settings::Settings;

pub const SCRIPTS: u32 = 1000;

/// What happens, piece by piece.
#[derive(Clone, Debug)]
pub enum Happens {
    Thought(String),
    Said(String),
    /// Arguments, in pieces.
    Called(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Stop,
    /// In the middle of a call, if there is one.
    Length,
    Failure,
}

pub fn happens() -> impl Strategy<Value = Happens> {
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

pub fn events(script: &[Happens], end: End) -> Vec<ReplyEvent> {
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

/// Has a server replay each of many scripts to whatever `check` asks it.
pub fn whatever_a_model_writes(
    check: impl AsyncFn(&Server, &[Happens], End) -> Result<(), TestCaseError>,
) {
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
        runtime.block_on(check(&server, &script, end))
    });
    runtime.block_on(server.shut_down());
    checked.expect("every script");
}
