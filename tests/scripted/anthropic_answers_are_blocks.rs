//! What Anthropic's clients get: a message of blocks, whole or as named events, with reasons, counts and
//! errors in that API's words.

use std::time::Duration;

use crate::http_support::*;
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{FinishReason, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

const PATH: &str = "/v1/messages";

fn body(fields: Value) -> String {
    let mut body = json!({"model": "tiny", "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}]});
    let all = body.as_object_mut().expect("an object");
    all.extend(fields.as_object().expect("fields").clone());
    body.to_string()
}

async fn ask(server: &Server, fields: Value) -> Answer {
    server.post(PATH, body(fields)).await
}

/// A thought, words, two calls and words behind them.
fn all_there_is() -> Vec<ReplyEvent> {
    let mut first = call(0, Some("c1"), "f", &["{\"a\": ", "\"x\\n}\",\n\"n\": 1e3}"]);
    first.push(ReplyPiece::ToolCallEnd { index: 0 });
    let second = call(1, None, "g", &[]);
    vec![
        started(&[]),
        piece(ReplyPiece::Reasoning("so ".to_owned())),
        piece(ReplyPiece::Reasoning("be it".to_owned())),
        text("Hel\"lo"),
        text(" wörld 😀\n"),
        ReplyEvent::Pieces(first),
        ReplyEvent::Pieces(second),
        piece(ReplyPiece::ToolCallEnd { index: 1 }),
        text("!"),
        finished(),
    ]
}

fn expected_content(minted: &Value) -> Value {
    json!([
        {"type": "thinking", "thinking": "so be it", "signature": "rkllmd.1."},
        {"type": "text", "text": "Hel\"lo wörld 😀\n"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": "x\n}", "n": 1e3}},
        {"type": "tool_use", "id": minted, "name": "g", "input": {}},
        {"type": "text", "text": "!"},
    ])
}

#[tokio::test]
async fn a_message_is_its_blocks_in_order_whole_and_streamed() {
    let server = Server::replaying(Settings::default(), all_there_is).await;
    let whole = ask(&server, json!({})).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.header("content-type"), Some("application/json"));
    let request = whole.header("request-id").expect("an id").to_owned();
    assert_eq!(whole.header("x-request-id"), Some(&*request));
    let digits = request.strip_prefix("req_").expect("its kind");
    let usage = json!({"input_tokens": 5, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4, "output_tokens": 2});
    let message = whole.json();
    let minted = &message["content"][3]["id"];
    assert!(
        minted.as_str().is_some_and(|id| id.starts_with("toolu_")),
        "{message}"
    );
    assert_eq!(
        message,
        json!({"id": format!("msg_{digits}"), "type": "message", "role": "assistant",
            "model": "test/model-1.0", "content": expected_content(minted),
            "stop_reason": "tool_use", "stop_sequence": null, "usage": usage})
    );
    assert!(
        whole.text().contains(r#""input":{"a":"x\n}","n":1e3}"#),
        "as it was written"
    );
    let streamed = ask(&server, json!({"stream": true})).await;
    assert_eq!(streamed.header("x-accel-buffering"), Some("no"));
    let heard = heard(&streamed);
    assert_eq!((heard.pings, &heard.error), (1, &None));
    let minted = &heard.message["content"][3]["id"];
    assert_eq!(heard.message["content"], expected_content(minted));
    assert_eq!(heard.message["stop_reason"], "tool_use");
    assert_eq!(heard.message["usage"], usage);
    server.shut_down().await;
}

#[tokio::test]
async fn a_stream_is_exactly_these_bytes() {
    let server = Server::replaying(Settings::default(), || {
        vec![started(&[]), text("a\"é"), text("b"), finished()]
    })
    .await;
    let answer = ask(&server, json!({"stream": true})).await;
    let id = answer.header("request-id").expect("an id");
    let said = answer.text().replace(&id.replace("req_", "msg_"), "ID");
    let expected = [
        r#"message_start
{"type":"message_start","message":{"id":"ID","type":"message","role":"assistant","model":"test/model-1.0","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"cache_creation_input_tokens":null,"cache_read_input_tokens":null,"output_tokens":0}}}"#,
        "ping\n{\"type\":\"ping\"}",
        r#"content_block_start
{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"content_block_delta
{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\"é"}}"#,
        r#"content_block_delta
{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b"}}"#,
        r#"content_block_stop
{"type":"content_block_stop","index":0}"#,
        r#"message_delta
{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":2}}"#,
        "message_stop\n{\"type\":\"message_stop\"}",
    ];
    let expected = expected.map(|event| format!("event: {}\n\n", event.replace('\n', "\ndata: ")));
    assert_eq!(said, expected.concat());
    server.shut_down().await;
}

#[tokio::test]
async fn every_end_has_its_reason() {
    let end = |reason, stop_text: Option<&str>, made: Option<u32>| {
        let mut end = finished_unmeasured(reason);
        if let ReplyEvent::Finished(completion) = &mut end {
            completion.stop_text = stop_text.map(str::to_owned);
            completion.timings.predicted_n = made;
        }
        end
    };
    for (last, reason, sequence) in [
        (end(FinishReason::Stop, None, Some(3)), "end_turn", None),
        (
            end(FinishReason::Stop, Some("END"), Some(3)),
            "stop_sequence",
            Some("END"),
        ),
        (end(FinishReason::Length, None, Some(5)), "max_tokens", None),
        (end(FinishReason::Length, None, None), "max_tokens", None),
        (
            end(FinishReason::Length, None, Some(4)),
            "model_context_window_exceeded",
            None,
        ),
    ] {
        let events = vec![started(&[]), text("x"), last];
        let server = Server::start(Settings::default(), move |_| Ok(replay(events.clone()))).await;
        let fields = json!({"max_tokens": 5, "stop_sequences": ["END", ""]});
        let message = ask(&server, fields.clone()).await.json();
        let stops = |message: &Value| {
            let text = |name: &str| message[name].as_str().map(str::to_owned);
            (text("stop_reason"), text("stop_sequence"))
        };
        let expected = (Some(reason.to_owned()), sequence.map(str::to_owned));
        assert_eq!(stops(&message), expected);
        assert_eq!(message["usage"]["input_tokens"], Value::Null, "not known");
        let mut fields = fields;
        fields["stream"] = true.into();
        let heard = heard(&ask(&server, fields).await);
        assert_eq!(stops(&heard.message), expected);
        server.shut_down().await;
    }
}

#[tokio::test]
async fn a_call_that_was_cut_is_told_as_far_as_it_came() {
    let server = Server::replaying(Settings::default(), || {
        vec![
            started(&[]),
            text("ok "),
            ReplyEvent::Pieces(call(0, None, "f", &["{\"a\": \"b"])),
            finished_unmeasured(FinishReason::Length),
        ]
    })
    .await;
    let whole = ask(&server, json!({})).await.json();
    let expected = r#"ok {"name": "f", "arguments": {"a": "b"#;
    assert_eq!(
        whole["content"],
        json!([{"type": "text", "text": expected}]),
        "no input could be told as an object"
    );
    let heard = heard(&ask(&server, json!({"stream": true})).await);
    assert_eq!(heard.message["content"][1]["input"], "{\"a\": \"b");
    assert_eq!(heard.message["stop_reason"], "max_tokens");
    server.shut_down().await;
}

#[tokio::test]
async fn a_thought_that_is_not_shown_comes_back_by_its_signature() {
    let mut server = Server::replaying(Settings::default(), || {
        vec![
            started(&[]),
            piece(ReplyPiece::Reasoning("secr".to_owned())),
            piece(ReplyPiece::Reasoning("ét".to_owned())),
            text("x"),
            finished(),
        ]
    })
    .await;
    let fields = json!({"model": "thinker",
        "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}});
    let whole = ask(&server, fields.clone()).await.json();
    let mut fields = fields;
    fields["stream"] = true.into();
    let heard = heard(&ask(&server, fields).await);
    assert_eq!(heard.message["content"], whole["content"]);
    let thought = &whole["content"][0];
    assert_eq!(thought["thinking"], "");
    while server.requests.try_recv().is_ok() {}
    let history = json!({"model": "tiny", "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "x"}]},
        {"role": "user", "content": "and?"},
    ]});
    let shown = |signature: &str, text: &str| {
        let mut shown = history.clone();
        let block = json!({"type": "thinking", "thinking": text, "signature": signature});
        shown["messages"][1]["content"][0] = block;
        shown
    };
    let forms = [
        history.clone(),
        shown("forged", "secrét"),
        shown("", "secrét"),
    ];
    let mut prompts = Vec::new();
    for form in forms {
        let answer = ask(&server, form).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        prompts.push(server.requests.try_recv().expect("it ran").prompt);
    }
    assert!(
        prompts.iter().all(|prompt| *prompt == prompts[0]),
        "{prompts:?}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_silent_stream_pings() {
    let mut settings = Settings::default();
    settings.http.header_delay = Duration::from_millis(10);
    settings.http.keep_alive = Duration::from_millis(20);
    let (server, sender) = Server::fed_by_hand(settings).await;
    let mut client = server.client().await;
    client.send(post(PATH, body(json!({"stream": true})))).await;
    assert_eq!(client.head().await.status, 200);
    let mut said = String::from_utf8(client.chunk().await).expect("a text");
    assert!(said.starts_with("event: message_start\n"), "{said}");
    while said.matches("event: ping\n").count() < 3 {
        said += std::str::from_utf8(&client.chunk().await).expect("a text");
    }
    for event in [started(&[]), text("x"), finished()] {
        sender.send(event).await.expect("it is read");
    }
    loop {
        let chunk = client.chunk().await;
        if chunk.is_empty() {
            break;
        }
        said += std::str::from_utf8(&chunk).expect("a text");
    }
    let heard = heard_in(&said);
    assert!(heard.pings >= 3);
    assert_eq!(heard.message["content"][0]["text"], "x");
    server.shut_down().await;
}

#[tokio::test]
async fn an_input_that_no_request_may_hold_is_text() {
    let server = Server::replaying(Settings::default(), || {
        let mut all = call(0, Some("c1"), "f", &[r#"{"a":"\ud83d"}"#]);
        all.push(ReplyPiece::ToolCallEnd { index: 0 });
        vec![started(&[]), ReplyEvent::Pieces(all), finished()]
    })
    .await;
    let message = ask(&server, json!({})).await.json();
    let said = r#"{"name": "f", "arguments": {"a":"\ud83d"}}"#;
    assert_eq!(message["content"], json!([{"type": "text", "text": said}]));
    // Its client would look for a call in vain.
    assert_eq!(message["stop_reason"], "end_turn");
    let history = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": "and?"},
    ]);
    let next = ask(&server, json!({"messages": history})).await;
    assert_eq!(next.status, 200, "{}", next.text());
    server.shut_down().await;
}
