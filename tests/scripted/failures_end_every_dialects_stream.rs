//! Every kind of failure through every dialect of chats: before the first byte it has its status and code, whole or
//! streamed; behind it, it is the last thing that a stream says, once.

use crate::http_failures_have_their_status::failures;
use crate::http_support::*;
use rkllmd::generation::ReplyEvent;
use rkllmd::settings::Settings;
use serde_json::{Value, json};

struct Dialect {
    path: &'static str,
    /// How much is asked, beside the model and a message.
    fields: fn() -> Value,
    /// The code in an error's answer.
    code: fn(&Value) -> &Value,
    /// What a stream of "so far" that failed says: its text and its error's code.
    late: fn(&Answer) -> (String, String),
}

fn messages() -> Value {
    json!([{"role": "user", "content": "hi"}])
}

const DIALECTS: [Dialect; 4] = [
    Dialect {
        path: CHAT,
        fields: || json!({"messages": messages()}),
        code: |body| &body["error"]["code"],
        late: openai,
    },
    Dialect {
        path: "/api/chat",
        fields: || json!({"messages": messages()}),
        code: |body| &body["code"],
        late: |answer| {
            let said = said(answer);
            (said.content, string(&said.error.expect("an error")["code"]))
        },
    },
    Dialect {
        path: "/v1/messages",
        fields: || json!({"messages": messages(), "max_tokens": 9}),
        code: |body| &body["error"]["code"],
        late: |answer| {
            let heard = heard(answer);
            let text = &heard.message["content"][0]["text"];
            let error = heard.error.expect("an error");
            (string(text), string(&error["error"]["code"]))
        },
    },
    Dialect {
        path: "/v1/responses",
        fields: || json!({"input": "hi"}),
        code: |body| &body["error"]["code"],
        late: |answer| {
            let heard = heard_response(answer);
            let error = heard.error.expect("an error");
            // Both forms say the same, and so does the response.
            assert_eq!(error["error"]["param"], error["param"], "{error}");
            assert_eq!(heard.response["error"]["code"], error["code"], "{error}");
            assert_eq!(heard.response["error"]["message"], error["message"]);
            let text = &heard.response["output"][0]["content"][0]["text"];
            (string(text), string(&error["code"]))
        },
    },
];

fn string(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Chunks of a chat, the last of which is an error, with no mark behind it.
fn openai(answer: &Answer) -> (String, String) {
    let lines = answer.text().lines();
    let data = lines.filter_map(|line| line.strip_prefix("data: "));
    let mut chunks: Vec<Value> = data
        .map(|data| serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}")))
        .collect();
    let error = chunks.pop().expect("an error");
    let text = chunks.iter().map(|chunk| {
        assert!(chunk.get("error").is_none(), "{chunk}");
        let delta = &chunk["choices"][0]["delta"];
        delta["content"].as_str().unwrap_or_default()
    });
    (text.collect(), string(&error["error"]["code"]))
}

fn body(dialect: &Dialect, stream: bool) -> String {
    let mut body = (dialect.fields)();
    body["model"] = "tiny".into();
    body["stream"] = stream.into();
    body.to_string()
}

#[tokio::test]
async fn before_the_first_byte_each_has_its_status() {
    for (failure, status, expected, retry_after) in failures() {
        let submitted = failure.clone();
        let refusing = Server::start(Settings::default(), move |_| Err(submitted.clone())).await;
        let failing = Server::start(Settings::default(), move |_| {
            let failed = ReplyEvent::Failed(failure.clone());
            Ok(replay(vec![started(&[]), failed]))
        })
        .await;
        for server in [refusing, failing] {
            for dialect in &DIALECTS {
                for stream in [false, true] {
                    let answer = server.post(dialect.path, body(dialect, stream)).await;
                    let told = answer.json();
                    let of = format!("{} {stream}: {told}", dialect.path);
                    assert_eq!(answer.status, status, "{of}");
                    assert_eq!((dialect.code)(&told), expected, "{of}");
                    assert_eq!(answer.header("retry-after"), retry_after, "{of}");
                }
            }
            server.shut_down().await;
        }
    }
}

#[tokio::test]
async fn behind_the_first_byte_each_is_the_last_that_is_said() {
    for (failure, status, expected, _) in failures() {
        let server = Server::start(Settings::default(), move |_| {
            let failed = ReplyEvent::Failed(failure.clone());
            Ok(replay(vec![started(&[]), text("so far"), failed]))
        })
        .await;
        for dialect in &DIALECTS {
            let answer = server.post(dialect.path, body(dialect, true)).await;
            assert_eq!(answer.status, 200, "{} {expected}", dialect.path);
            let told = (dialect.late)(&answer);
            assert_eq!(
                told,
                ("so far".to_owned(), expected.to_owned()),
                "{}",
                dialect.path
            );
            // Whole, there is no first byte yet.
            let answer = server.post(dialect.path, body(dialect, false)).await;
            assert_eq!(answer.status, status, "{} {expected}", dialect.path);
        }
        server.shut_down().await;
    }
}
