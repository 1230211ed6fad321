//! Responses on a WebSocket: the events are those of a stream, one response is made at a time, it goes on from the last
//! one, and it ends with its socket.

use std::error::Error;
use std::time::Duration;

use crate::http_support::web_socket::*;
use crate::http_support::*;
use rkllmd::auth::{ApiKey, Keyring, KeyringError, KeysFile, KeysWatch, Role, Secret};
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{GenerationError, ReplyEvent, Weight};
use rkllmd::settings::Settings;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const PATH: &str = "/v1/responses";

async fn socket(server: &Server) -> WebSocket {
    WebSocket::new(opened(server, PATH, "").await)
}

/// A message that asks for a response, with more fields.
fn create(fields: Value) -> Value {
    let mut message = json!({"type": "response.create", "model": "tiny", "input": "hi"});
    for (name, value) in fields.as_object().expect("fields") {
        message[name] = value.clone();
    }
    message
}

async fn event(socket: &mut WebSocket) -> Value {
    match socket.told().await {
        Some(Told::Text(text)) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("no event: {other:?}"),
    }
}

/// The events up to the end of a response.
async fn events(socket: &mut WebSocket) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = event(socket).await;
        let is_end = matches!(
            event["type"].as_str(),
            Some("response.completed" | "response.incomplete" | "response.failed")
        );
        events.push(event);
        if is_end {
            return events;
        }
    }
}

/// As a stream has them, so that the same is demanded of them.
fn as_stream(events: &[Value]) -> String {
    let events = events.iter().map(|event| {
        let name = event["type"].as_str().expect("a type");
        format!("event: {name}\ndata: {event}\n\n")
    });
    events.collect::<String>() + "data: [DONE]\n\n"
}

async fn answered(socket: &mut WebSocket, message: &Value) -> Value {
    socket.say(&message.to_string()).await;
    let events = events(socket).await;
    heard_response_in(&as_stream(&events)).response
}

/// Status, code and field of a refusal.
async fn refused(socket: &mut WebSocket) -> (u64, String, Value) {
    let event = event(socket).await;
    assert_eq!(event["type"], "error", "{event}");
    for name in ["code", "message", "param"] {
        assert_eq!(event[name], event["error"][name], "{event}");
    }
    let code = event["code"].as_str().expect("a code").to_owned();
    (
        event["status"].as_u64().expect("a status"),
        code,
        event["param"].clone(),
    )
}

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

fn answer() -> Vec<ReplyEvent> {
    let call = ReplyPiece::ToolCall {
        index: 0,
        id: None,
        name: "f".to_owned(),
    };
    let arguments = ReplyPiece::ToolArguments {
        index: 0,
        delta: "{\"a\": 1}".to_owned(),
    };
    vec![
        started(&[]),
        ReplyEvent::Piece(ReplyPiece::Reasoning("hm\n\n".to_owned())),
        text("so \"é\"\n\n"),
        text("event: x\ndata: y\n\n"),
        ReplyEvent::Pieces(vec![call, arguments, ReplyPiece::ToolCallEnd { index: 0 }]),
        finished(),
    ]
}

async fn generation(
    generations: &mut mpsc::UnboundedReceiver<mpsc::Sender<ReplyEvent>>,
) -> mpsc::Sender<ReplyEvent> {
    let sender = within("a generation", generations.recv()).await;
    sender.expect("the server lives")
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
            create(json!({"generate": false})).to_string(),
            400,
            "unsupported_parameter",
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
async fn a_response_ends_with_its_socket() {
    let (server, mut generations) = endless(Settings::default()).await;
    let message = create(json!({})).to_string();
    // In order, and without a word.
    for is_told in [true, false] {
        let mut socket = socket(&server).await;
        socket.say(&message).await;
        let sender = generation(&mut generations).await;
        within("a reader", sender.send(started(&[]))).await.unwrap();
        within("a reader", sender.send(text("so "))).await.unwrap();
        assert_eq!(event(&mut socket).await["type"], "response.created");
        match is_told {
            true => {
                socket.send(close(1000, "")).await;
                loop {
                    match socket.told().await {
                        Some(Told::Text(_)) => {}
                        other => {
                            assert_eq!(other, Some(Told::Close(Some(1000))));
                            break;
                        }
                    }
                }
                assert_eq!(socket.frame().await, None);
            }
            false => drop(socket),
        }
        within("the end of the run", sender.closed()).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_own_run_and_not_for_ever() {
    let mut settings = Settings::default();
    settings.http.slow_reader_timeout = Duration::from_secs(2);
    settings.memory.requests_limit_bytes = Some(1 << 30);
    let (server, mut generations) = endless(settings).await;
    let mut lazy = socket(&server).await;
    lazy.say(&create(json!({})).to_string()).await;
    let sender = generation(&mut generations).await;
    within("a reader", sender.send(started(&[]))).await.unwrap();
    let long = "x".repeat(256 * 1024);
    let filling = async {
        let mut sent = 0;
        while sender.send(text(&long)).await.is_ok() {
            sent += 1;
            assert!(sent < 1000, "it is not held back");
        }
    };
    let other = async {
        let mut socket = socket(&server).await;
        socket.say(&create(json!({})).to_string()).await;
        let sender = generation(&mut generations).await;
        for event in [started(&[]), text("so"), finished()] {
            within("a reader", sender.send(event)).await.unwrap();
        }
        let events = events(&mut socket).await;
        heard_response_in(&as_stream(&events));
    };
    within("the end of the lazy one's run", async {
        tokio::join!(filling, other)
    })
    .await;
    // It was held back until the socket was closed, and has not failed before.
    let rest = String::from_utf8_lossy(&lazy.rest().await).into_owned();
    assert!(rest.contains("response.output_text.delta"));
    assert!(!rest.contains("response.failed"));
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
async fn whose_key_is_revoked_is_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = KeysFile::new(folder.path().join("keys.toml"));
    let secret = Secret::generate().expect("randomness");
    let name = "one";
    let change = |change: &dyn Fn(&mut Keyring) -> Result<(), KeyringError>| {
        let changed = file.change(|keyring| Ok::<(), Box<dyn Error>>(change(keyring)?));
        changed.expect("the file is written");
    };
    change(&|keyring| {
        keyring.add(ApiKey {
            name: name.parse().expect("a name"),
            digest: secret.digest(),
            role: Role::User,
            models: None,
            weight: Weight::default(),
            tenant: None,
            created: "2026-01-01T00:00:00Z".to_owned(),
        })
    });
    let watch = KeysWatch::start(file.clone()).expect("a file of keys");
    let (senders, mut generations) = mpsc::unbounded_channel();
    let keys = watch.current();
    let server = Server::start_with_keys(Settings::default(), keys.clone(), move |_| {
        let (sender, receiver) = mpsc::channel(8);
        let _ = senders.send(sender);
        Ok(rkllmd::admission::Generation::new(receiver))
    })
    .await;
    let mut client = server.client().await;
    client.send(handshake(PATH, "")).await;
    assert_eq!(client.head().await.status, 401);
    let header = format!("x-api-key: {}\r\n", secret.plaintext());
    let mut socket = WebSocket::new(opened(&server, PATH, &header).await);
    socket.say(&create(json!({})).to_string()).await;
    let sender = generation(&mut generations).await;
    change(&|keyring| keyring.revoke(&name.parse().expect("a name")));
    keys.look_now();
    // The stream may have begun.
    loop {
        match socket.told().await {
            Some(Told::Text(_)) => {}
            other => {
                assert_eq!(other, Some(Told::Close(Some(1008))));
                break;
            }
        }
    }
    within("the end of the run", sender.closed()).await;
    server.shut_down().await;
}

#[tokio::test]
async fn the_daemon_ends_behind_the_response() {
    let (mut server, mut generations) = endless(Settings::default()).await;
    let mut socket = socket(&server).await;
    socket.say(&create(json!({})).to_string()).await;
    let sender = generation(&mut generations).await;
    server.ask_to_shut_down();
    for event in [started(&[]), text("so"), finished()] {
        within("a reader", sender.send(event)).await.unwrap();
    }
    let events = events(&mut socket).await;
    let response = heard_response_in(&as_stream(&events)).response;
    assert_eq!(response["status"], "completed");
    assert_eq!(socket.told().await, Some(Told::Close(Some(1001))));
    assert_eq!(socket.frame().await, None);
    server.shut_down().await;
}

#[tokio::test]
async fn the_daemon_waits_for_a_response_no_longer_than_it_drains() {
    let mut settings = Settings::default();
    settings.deadlines.drain = Duration::from_secs(2);
    let (mut server, mut generations) = endless(settings).await;
    let mut socket = socket(&server).await;
    socket.say(&create(json!({})).to_string()).await;
    let sender = generation(&mut generations).await;
    within("a reader", sender.send(started(&[]))).await.unwrap();
    within("a reader", sender.send(text("so"))).await.unwrap();
    server.ask_to_shut_down();
    within("the end of the run", sender.closed()).await;
    let mut last = Value::Null;
    loop {
        match socket.told().await {
            Some(Told::Text(text)) => last = serde_json::from_str(&text).expect("JSON"),
            other => {
                assert_eq!(other, Some(Told::Close(Some(1001))));
                break;
            }
        }
    }
    assert_eq!(last["code"], "shutting_down", "{last}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_socket_that_is_too_old_ends_behind_its_response() {
    let mut settings = Settings::default();
    // Long enough for a message on a busy machine.
    settings.responses.max_socket_age = Duration::from_secs(3);
    let (server, mut generations) = endless(settings).await;
    for makes_one in [false, true] {
        let mut socket = socket(&server).await;
        if makes_one {
            socket.say(&create(json!({})).to_string()).await;
            let sender = generation(&mut generations).await;
            tokio::time::sleep(Duration::from_millis(3200)).await;
            for event in [started(&[]), text("so"), finished()] {
                within("a reader", sender.send(event)).await.unwrap();
            }
            let events = events(&mut socket).await;
            heard_response_in(&as_stream(&events));
        }
        let (status, code, _) = refused(&mut socket).await;
        assert_eq!(
            (status, &*code),
            (400, "websocket_connection_limit_reached")
        );
        assert_eq!(socket.told().await, Some(Told::Close(Some(1001))));
    }
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

#[tokio::test]
async fn a_client_that_answers_no_ping_is_gone() {
    let mut settings = Settings::default();
    settings.http.keep_alive = Duration::from_millis(200);
    // Long enough for a message on a busy machine.
    settings.http.slow_reader_timeout = Duration::from_millis(2800);
    let (server, mut generations) = endless(settings).await;
    let mut socket = socket(&server).await;
    socket.say(&create(json!({})).to_string()).await;
    let sender = generation(&mut generations).await;
    let mut pings = 0;
    while let Some((first, _)) = socket.frame().await {
        pings += usize::from(first == FIN | PING);
    }
    assert!(pings > 0);
    within("the end of the run", sender.closed()).await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_told_so_and_ends_the_socket() {
    let mut settings = Settings::default();
    settings.http.body_limit_bytes = 4096;
    let server = Server::replaying(settings, answer).await;
    let mut socket = socket(&server).await;
    let long = create(json!({"input": "x".repeat(5000)}));
    socket.say(&long.to_string()).await;
    let too_large = (413, "request_too_large".to_owned(), Value::Null);
    assert_eq!(refused(&mut socket).await, too_large);
    assert_eq!(socket.told().await, Some(Told::Close(Some(1009))));
    server.shut_down().await;
}
