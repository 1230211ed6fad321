//! Responses on a WebSocket: the events are those of a stream, one response is made at a time, and it goes on from the
//! last one.

use std::time::Duration;

use crate::http_support::web_socket::*;
use crate::http_support::*;
use crate::responses_web_sockets_support::*;
use rkllmd::generation::{GenerationError, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

/// Without what differs from one response to the next.
fn without_ids(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match name.as_str() {
                    "id" | "item_id" | "call_id" | "created_at" | "completed_at"
                        if !value.is_null() =>
                    {
                        *value = "".into();
                    }
                    _ => without_ids(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(without_ids),
        _ => {}
    }
}

#[tokio::test]
async fn the_events_are_those_of_the_stream() {
    let server = Server::replaying(Settings::default(), answer).await;
    let fields = json!({"model": "thinker", "metadata": {"a": "b"},
        "include": ["reasoning.encrypted_content"]});
    let mut body = create(fields.clone());
    body["stream"] = true.into();
    body.as_object_mut().expect("an object").remove("type");
    let streamed = server.post(PATH, body.to_string()).await;
    heard_response(&streamed);
    let data = streamed
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let data = data.filter(|data| *data != "[DONE]");
    let mut expected: Vec<Value> = data
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    let mut socket = socket(&server).await;
    // One after the other, and `stream` says nothing.
    for stream in [Value::Null, true.into(), false.into()] {
        let mut message = create(fields.clone());
        message["stream"] = stream;
        socket.say(&message.to_string()).await;
        let mut events = events(&mut socket).await;
        heard_response_in(&as_stream(&events));
        for (events, of) in [(&mut events, "socket"), (&mut expected, "stream")] {
            assert!(events.len() > 10, "{of}");
            events.iter_mut().for_each(|event| {
                // Under a seal of its own.
                if let Some(seal) = event.pointer_mut("/item/encrypted_content") {
                    *seal = Value::Null;
                }
                if let Some(seal) = event.pointer_mut("/response/output/0/encrypted_content") {
                    *seal = Value::Null;
                }
                without_ids(event);
            });
        }
        assert_eq!(events, expected);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_a_header_would_tell_stands_in_the_first_event() {
    let server = Server::replaying(Settings::default(), answer).await;
    let mut socket = socket(&server).await;
    socket.say(&create(json!({"odd": 1})).to_string()).await;
    let mut events = events(&mut socket).await;
    assert_eq!(events[0]["headers"], json!({"x-rkllmd-not-applied": "odd"}));
    assert!(events[1..].iter().all(|event| event["headers"].is_null()));
    events[0]
        .as_object_mut()
        .expect("an event")
        .remove("headers");
    heard_response_in(&as_stream(&events));
    server.shut_down().await;
}

#[tokio::test]
async fn a_turn_goes_on_from_the_last_one_that_is_not_kept() {
    let said = || vec![started(&[]), text("so be it"), finished()];
    let mut server = Server::replaying(Settings::default(), said).await;
    let mut socket = socket(&server).await;
    let mut previous = Value::Null;
    let mut history = Vec::new();
    for turn in 0..3 {
        let new = json!({"role": "user", "content": format!("turn {turn}")});
        history.push(new.clone());
        let message = create(json!({"input": [new], "store": false,
            "previous_response_id": previous}));
        let response = answered(&mut socket, &message).await;
        assert_eq!(response["store"], false);
        let chained = server.requests.try_recv().expect("it was submitted");
        let whole = json!({"model": "tiny", "input": history, "store": false});
        let answer = server.post(PATH, whole.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let whole = server.requests.try_recv().expect("it was submitted");
        assert_eq!(chained.prompt, whole.prompt, "turn {turn}");
        let path = format!("{PATH}/{}", response["id"].as_str().expect("an id"));
        assert_eq!(server.get(&path).await.status, 404, "it is kept nowhere");
        history.extend(response["output"].as_array().expect("items").clone());
        previous = response["id"].clone();
    }
    let next = create(json!({"store": false, "previous_response_id": previous}));
    let not_found = (
        400,
        "previous_response_not_found".to_owned(),
        Value::from("previous_response_id"),
    );
    // Another socket does not have it.
    let mut other = self::socket(&server).await;
    other.say(&next.to_string()).await;
    assert_eq!(refused(&mut other).await, not_found);
    // What is refused before it goes on leaves it, and what fails then takes it along.
    for (field, wrong, is_there) in [
        ("top_p", json!(7), true),
        ("instructions", json!("\u{0}"), true),
        ("instructions", json!("\u{0}"), false),
    ] {
        let mut failing = next.clone();
        failing[field] = wrong;
        socket.say(&failing.to_string()).await;
        let told = refused(&mut socket).await;
        match is_there {
            true => assert_eq!((&*told.1, &told.2), ("invalid_value", &field.into())),
            false => assert_eq!(told, not_found),
        }
    }
    socket.say(&next.to_string()).await;
    assert_eq!(refused(&mut socket).await, not_found);
    // What is kept is found on every connection.
    let kept = answered(&mut socket, &create(json!({}))).await;
    let next = create(json!({"previous_response_id": kept["id"]}));
    for socket in [&mut socket, &mut other] {
        answered(socket, &next).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn one_that_could_not_be_kept_is_gone_on_from_on_its_socket() {
    let mut settings = Settings::default();
    settings.responses.kept_limit_bytes = 16_384;
    let said = || vec![started(&[]), text("so be it"), finished()];
    let mut server = Server::replaying(settings, said).await;
    let mut socket = socket(&server).await;
    let large = create(json!({"input": "x".repeat(16_384)}));
    let response = answered(&mut socket, &large).await;
    assert_eq!(response["store"], false);
    server.requests.try_recv().expect("it was submitted");
    let next = create(json!({"input": "then", "previous_response_id": response["id"]}));
    answered(&mut socket, &next).await;
    let chained = server.requests.try_recv().expect("it was submitted");
    assert!(chained.prompt.contains("xxx") && chained.prompt.contains("so be it"));
    socket.say(&next.to_string()).await;
    assert_eq!(refused(&mut socket).await.1, "previous_response_not_found");
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_and_the_connection_lives() {
    let server = Server::replaying(Settings::default(), answer).await;
    let mut socket = socket(&server).await;
    let messages = [
        ("nonsense".to_owned(), 400, "invalid_json", ""),
        ("[]".to_owned(), 400, "invalid_json", ""),
        ("{}".to_owned(), 400, "missing_required_parameter", "type"),
        (
            json!({"type": "response.cancel"}).to_string(),
            400,
            "invalid_value",
            "type",
        ),
        (
            create(json!({"type": 3})).to_string(),
            400,
            "invalid_type",
            "type",
        ),
        (
            create(json!({"background": true})).to_string(),
            400,
            "unsupported_parameter",
            "background",
        ),
        (
            create(json!({"generate": 0})).to_string(),
            400,
            "invalid_type",
            "generate",
        ),
        (
            create(json!({"model": "other"})).to_string(),
            404,
            "model_not_found",
            "model",
        ),
        (
            create(json!({"input": null})).to_string(),
            400,
            "missing_required_parameter",
            "input",
        ),
        (
            create(json!({"top_p": 7})).to_string(),
            400,
            "invalid_value",
            "top_p",
        ),
    ];
    for (message, status, code, param) in messages {
        socket.say(&message).await;
        let told = refused(&mut socket).await;
        let param = match param {
            "" => Value::Null,
            param => param.into(),
        };
        assert_eq!(told, (status, code.to_owned(), param), "{message}");
    }
    // What is no matter is none.
    let fields = json!({"background": false, "generate": true});
    let response = answered(&mut socket, &create(fields)).await;
    assert_eq!(response["status"], "completed");
    server.shut_down().await;
}

#[tokio::test]
async fn a_failure_before_the_first_event_has_its_status_and_one_behind_it_an_end() {
    let server = Server::start(Settings::default(), |request| {
        if request.prompt.contains("full") {
            return Err(GenerationError::QueueFull {
                model: "m".to_owned(),
                waiting: 3,
                retry_after: Duration::from_secs(7),
            });
        }
        Ok(replay(vec![
            started(&[]),
            text("so "),
            ReplyEvent::Failed(GenerationError::RunFailed {
                request: "r".to_owned(),
            }),
        ]))
    })
    .await;
    let mut socket = socket(&server).await;
    socket
        .say(&create(json!({"input": "full"})).to_string())
        .await;
    let told = event(&mut socket).await;
    let said = (&told["status"], &told["code"]);
    assert_eq!(said, (&429.into(), &"queue_full".into()));
    assert_eq!(told["headers"]["retry-after"], "7");
    let id = told["headers"]["x-request-id"].as_str();
    assert!(id.is_some_and(|id| id.starts_with("req-")), "{told}");
    for _ in 0..2 {
        let response = answered(&mut socket, &create(json!({}))).await;
        assert_eq!(response["status"], "failed");
        assert_eq!(response["error"]["code"], "run_failed");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn one_response_is_made_at_a_time() {
    let (server, mut generations) = endless(Settings::default()).await;
    let mut socket = socket(&server).await;
    let message = create(json!({})).to_string();
    socket.say(&message).await;
    let sender = generation(&mut generations).await;
    socket.say(&message).await;
    // The stream may have begun.
    let mut told = Vec::new();
    let refusal = loop {
        match event(&mut socket).await {
            refusal if refusal["type"] == "error" => break refusal,
            event => told.push(event),
        }
    };
    let said = (&refusal["status"], &refusal["error"]["code"]);
    assert_eq!(said, (&409.into(), &"response_in_flight".into()));
    for event in [started(&[]), text("so "), text("be it"), finished()] {
        within("a reader", sender.send(event))
            .await
            .expect("a reader");
    }
    told.extend(events(&mut socket).await);
    let response = heard_response_in(&as_stream(&told)).response;
    assert_eq!(response["output"][0]["content"][0]["text"], "so be it");
    assert!(generations.try_recv().is_err(), "another was begun");
    // The next one is made.
    socket.say(&message).await;
    generation(&mut generations).await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_large_event_comes_in_fragments_and_whole() {
    fn long() -> Vec<ReplyEvent> {
        vec![started(&[]), text(&"é".repeat(200_000)), finished()]
    }
    let server = Server::replaying(Settings::default(), long).await;
    let mut socket = socket(&server).await;
    let response = answered(&mut socket, &create(json!({}))).await;
    let said = response["output"][0]["content"][0]["text"].as_str();
    assert_eq!(said.map(str::len), Some(400_000));
    server.shut_down().await;
}

#[tokio::test]
async fn a_get_that_is_no_handshake_is_refused_as_it_ever_was() {
    let server = Server::replaying(Settings::default(), answer).await;
    let answer = server.get(PATH).await;
    let (_, _, code) = answer.error();
    assert_eq!((answer.status, &*code), (405, "method_not_allowed"));
    assert_eq!(answer.header("allow"), Some("POST"));
    let wrong = handshake(PATH, "").replace("version: 13", "version: 8");
    let answer = server.ask(wrong).await;
    let (_, _, code) = answer.error();
    assert_eq!((answer.status, &*code), (400, "invalid_value"));
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    server.shut_down().await;
}
