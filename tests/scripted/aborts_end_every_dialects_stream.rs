//! Random replies that an administrator aborts, wherever that meets them, through every dialect of chats: what was begun
//! is ended in order, the stream has one end, which says why, and the generation is over.

use std::cell::{Cell, RefCell};

use crate::http_support::*;
use crate::random_replies::{End, Happens, SCRIPTS, events, happens};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rkllmd::generation::ReplyEvent;
use rkllmd::settings::Settings;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const CODE: &str = "aborted_by_administrator";

/// A dialect's path, how much it is asked beside the model, and the code at the end of a stream that keeps its form.
type Dialect = (&'static str, fn() -> Value, fn(&Answer) -> Value);

const DIALECTS: [Dialect; 4] = [
    (CHAT, asked, |answer| {
        chunks(answer).error.expect("an error")["error"]["code"].clone()
    }),
    ("/api/chat", asked, |answer| {
        said(answer).error.expect("an error")["code"].clone()
    }),
    (
        "/v1/messages",
        || {
            let mut body = asked();
            body["max_tokens"] = 9.into();
            body
        },
        |answer| heard(answer).error.expect("an error")["error"]["code"].clone(),
    ),
    (
        "/v1/responses",
        || json!({"input": "hi", "stream": true}),
        |answer| heard_response(answer).error.expect("an error")["code"].clone(),
    ),
];

fn asked() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "stream": true})
}

async fn abort_the_only(server: &Server) {
    let answer = server.get("/v1/admin/requests").await;
    let requests = answer.json()["requests"].take();
    let [request] = &requests.as_array().expect("a list")[..] else {
        panic!("{requests}");
    };
    let id = request["id"].as_str().expect("an id");
    let head = format!("DELETE /v1/admin/requests/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let aborted = server.ask(head).await;
    assert_eq!(aborted.status, 200, "{}", aborted.text());
}

/// One whole case; the abort meets what the server has made of the events by then. Tells whether that was a stream.
async fn aborted(
    server: &Server,
    generations: &mut mpsc::UnboundedReceiver<mpsc::Sender<ReplyEvent>>,
    (path, body, code): Dialect,
    script: &[Happens],
) -> bool {
    let mut body = body();
    body["model"] = "tiny".into();
    let mut client = server.client().await;
    client.send(post(path, body.to_string())).await;
    let sender = within("a generation", generations.recv()).await;
    let sender = sender.expect("the server lives");
    let mut events = events(script, End::Failure);
    // It goes on.
    events.pop();
    for event in events {
        sender.send(event).await.expect("a reader");
    }
    abort_the_only(server).await;
    let answer = within("the end of the stream", client.answer()).await;
    let told = match answer.status {
        200 => code(&answer),
        // Nothing was said by then.
        status => {
            assert_eq!(status, 422, "{path}: {}", answer.text());
            let body = answer.json();
            let code = body["error"].get("code").or(body.get("code"));
            code.cloned().unwrap_or_default()
        }
    };
    assert_eq!(told, CODE, "{path} {script:?}: {}", answer.text());
    within("the end of the generation", sender.closed()).await;
    // Else it would be the next one's as well.
    within("the end of the request", async {
        while server.get("/v1/admin/requests").await.json()["requests"] != json!([]) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    answer.status == 200
}

#[test]
fn wherever_an_abort_meets_a_reply_its_stream_has_one_end() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (server, generations) = runtime.block_on(endless(Settings::default()));
    let generations = RefCell::new(generations);
    let streams = Cell::new(0);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        // The server would still have the request of the case that failed.
        max_shrink_iters: 0,
        ..Config::with_cases(SCRIPTS)
    });
    let scripts = (prop::collection::vec(happens(), 0..6), 0..DIALECTS.len());
    let checked = runner.run(&scripts, |(script, dialect)| {
        let generations = &mut *generations.borrow_mut();
        let case = aborted(&server, generations, DIALECTS[dialect], &script);
        if runtime.block_on(case) {
            streams.set(streams.get() + 1);
        }
        Ok(())
    });
    runtime.block_on(server.shut_down());
    checked.expect("every script");
    // Else nearly all were met before they said anything.
    assert!(streams.get() > SCRIPTS / 10, "{streams:?} streams");
}
