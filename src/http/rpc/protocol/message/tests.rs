use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Reply;
use super::*;
use crate::http::rpc::outbound::Outbound;

fn code_of(text: &str) -> i32 {
    match parse(text.as_bytes(), 8) {
        Err(error) => error.code(),
        Ok(Message::One(Entry::Invalid { error, .. })) => error.code(),
        other => panic!("{text} is {other:?}"),
    }
}

fn call(text: &str) -> Call {
    match parse(text.as_bytes(), 8) {
        Ok(Message::One(Entry::Call(call))) => call,
        other => panic!("{text} is {other:?}"),
    }
}

/// Answers every call with its method's name, as a server would.
fn echo(text: &[u8], batch_limit: usize) -> Option<String> {
    let message = match parse(text, batch_limit) {
        Ok(message) => message,
        Err(error) => return Some(Reply::error(&error)),
    };
    let (mut reply, entries) = match message {
        Message::One(entry) => (Reply::to_one(), vec![entry]),
        Message::Batch(entries) => (Reply::to_batch(), entries),
    };
    for entry in entries {
        match entry {
            Entry::Call(call) => {
                reply.add(call.id.as_ref(), Ok(Outbound::of(&call.method)));
            }
            Entry::Invalid { id, error } => reply.add(Some(&id), Err(&error)),
        }
    }
    let mut pieces = reply.finish()?.into_pieces();
    let mut text = Vec::new();
    while let Some(piece) = pieces.next_piece().unwrap() {
        text.extend_from_slice(&piece);
    }
    Some(String::from_utf8(text).unwrap())
}

fn echoed(text: &str) -> Value {
    serde_json::from_str(&echo(text.as_bytes(), 8).expect("an answer")).expect("JSON")
}

/// The examples of the specification's section 7 that no method is needed for.
#[test]
fn the_specifications_examples() {
    assert_eq!(
        code_of(r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#),
        -32700
    );
    assert_eq!(
        code_of(r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#),
        -32600
    );
    let broken_batch = r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method"]"#;
    assert_eq!(code_of(broken_batch), -32700);
    assert_eq!(code_of("[]"), -32600);
    let codes = |text| {
        let answers = echoed(text);
        let answers = answers.as_array().unwrap().clone();
        answers
            .into_iter()
            .map(|answer| {
                assert_eq!(answer["id"], Value::Null);
                answer["error"]["code"].as_i64().unwrap()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(codes("[1]"), [-32600]);
    assert_eq!(codes("[1,2,3]"), [-32600; 3]);
    let mixed = r#"[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]"#;
    let answers = echoed(mixed);
    assert_eq!(answers.as_array().unwrap().len(), 3);
    assert_eq!(
        answers[0],
        json!({"jsonrpc": "2.0", "result": "sum", "id": "1"})
    );
    assert_eq!(answers[1]["error"]["code"], -32600);
    assert_eq!(answers[1]["id"], Value::Null);
    assert_eq!(answers[2]["id"], "9");
    let notifications = r#"[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
    ]"#;
    assert_eq!(echo(notifications.as_bytes(), 8), None);
    assert_eq!(echo(br#"{"jsonrpc":"2.0","method":"update"}"#, 8), None);
}

#[test]
fn ids_come_back_as_they_came() {
    for id in [
        "null",
        "0",
        "-7",
        "1.5",
        "12345678901234567890123",
        "\"\"",
        "\"a\\u00e9\"",
    ] {
        let answer = echo(
            format!(r#"{{"jsonrpc":"2.0","method":"m","id":{id}}}"#).as_bytes(),
            8,
        );
        assert!(
            answer.unwrap().ends_with(&format!(r#""id":{id}}}"#)),
            "{id}"
        );
    }
    for id in ["true", "false", "[]", "{}", "[1]"] {
        let text = format!(r#"{{"jsonrpc":"2.0","method":"m","id":{id}}}"#);
        assert_eq!(code_of(&text), -32600, "{id}");
    }
}

#[test]
fn an_invalid_request_is_answered_under_its_id() {
    for text in [
        r#"{"jsonrpc":"1.0","method":"m","id":3}"#,
        r#"{"method":"m","id":3}"#,
        r#"{"jsonrpc":"2.0","id":3}"#,
        r#"{"jsonrpc":"2.0","method":null,"id":3}"#,
        r#"{"jsonrpc":"2.0","method":"m","params":3,"id":3}"#,
        r#"{"jsonrpc":"2.0","method":"m","params":null,"id":3}"#,
        r#"{"jsonrpc":"2.0","result":1,"id":3}"#,
    ] {
        let answer = echoed(text);
        assert_eq!(answer["id"], 3, "{text}");
        assert_eq!(answer["error"]["code"], -32600, "{text}");
    }
}

#[test]
fn what_is_no_object_is_no_request() {
    for text in ["1", "\"a\"", "null", "true"] {
        assert_eq!(code_of(text), -32600, "{text}");
    }
    for text in ["", " ", "nope", "{", "[", "{} {}", "[{}] 1", "[1,]"] {
        assert_eq!(code_of(text), -32700, "{text}");
    }
    assert_eq!(parse(b"\xff{}", 8).unwrap_err().code(), -32700);
}

#[test]
fn a_batch_is_bounded() {
    let entry = r#"{"jsonrpc":"2.0","method":"m","id":1}"#;
    let batch = |count| format!("[{}]", vec![entry; count].join(","));
    assert_eq!(echoed(&batch(8)).as_array().unwrap().len(), 8);
    assert_eq!(code_of(&batch(9)), -32600);
    // Too long and not JSON either: then it is not JSON.
    assert_eq!(code_of(&format!("{}x", batch(9))), -32700);
}

#[test]
fn null_and_absent_ids_differ() {
    assert_eq!(call(r#"{"jsonrpc":"2.0","method":"m"}"#).id, None);
    let with_null = call(r#"{"jsonrpc":"2.0","method":"m","id":null}"#);
    assert_eq!(with_null.id, Some(Id::null()));
}

#[derive(Clone, Debug)]
enum Made {
    Call(i64),
    Notification,
    Garbage,
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        any::<i64>().prop_map(Made::Call),
        Just(Made::Notification),
        Just(Made::Garbage)
    ]
}

proptest! {
    #[test]
    fn any_bytes_get_one_readable_answer_or_none(text in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Some(answer) = echo(&text, 4) {
            serde_json::from_str::<Value>(&answer).unwrap();
        }
    }

    #[test]
    fn any_json_gets_one_readable_answer_or_none(
        text in "[\\[\\]{},:\"a0 ]{0,24}|\\{\"jsonrpc\":\"2.0\",\"method\":\"[a-z]\",\"id\":[0-9\"a]{0,3}\\}"
    ) {
        if let Some(answer) = echo(text.as_bytes(), 4) {
            serde_json::from_str::<Value>(&answer).unwrap();
        }
    }

    #[test]
    fn a_batch_answers_each_call_in_order_and_no_notification(
        entries in proptest::collection::vec(made(), 1..8)
    ) {
        let texts: Vec<String> = entries.iter().map(|entry| match entry {
            Made::Call(id) => json!({"jsonrpc": "2.0", "method": "m", "id": id}).to_string(),
            Made::Notification => json!({"jsonrpc": "2.0", "method": "m"}).to_string(),
            Made::Garbage => "7".to_owned(),
        }).collect();
        let expected: Vec<Value> = entries.iter().filter_map(|entry| match entry {
            Made::Call(id) => Some(json!(id)),
            Made::Notification => None,
            Made::Garbage => Some(Value::Null),
        }).collect();
        let answer = echo(format!("[{}]", texts.join(",")).as_bytes(), 8);
        prop_assert_eq!(answer.is_none(), expected.is_empty());
        if let Some(answer) = answer {
            let answers: Vec<Value> = serde_json::from_str(&answer).unwrap();
            let ids: Vec<Value> = answers.iter().map(|answer| answer["id"].clone()).collect();
            prop_assert_eq!(ids, expected);
        }
    }
}
