//! Messages on a WebSocket that name streams: they wait for each other, their events tell of which stream they are, and
//! each stream goes on from its own last response.

use crate::http_support::web_socket::*;
use crate::http_support::*;
use crate::responses_web_sockets_support::*;
use rkllmd::settings::Settings;
use serde_json::{Value, json};

#[tokio::test]
async fn messages_of_streams_wait_and_their_events_name_them() {
    let mut settings = Settings::default();
    settings.responses.max_streams_per_socket = 3;
    let (server, mut generations) = endless(settings).await;
    let mut socket = socket(&server).await;
    let named = |stream: &str| create(json!({"stream_id": stream, "odd": 1})).to_string();
    let names = ["planner", "research.2", "planner", "critic_-"];
    for name in names {
        socket.say(&named(name)).await;
    }
    let mut told = Vec::new();
    for (nth, name) in names.iter().enumerate() {
        let sender = generation(&mut generations).await;
        // Those behind it wait.
        assert!(generations.try_recv().is_err(), "{name}");
        if nth == 0 {
            // Three wait, and a fourth may not; one without a stream never does; and a fourth stream is too many.
            for (message, status, code, stream) in [
                (
                    named("planner"),
                    409,
                    "response_in_flight",
                    json!("planner"),
                ),
                (
                    create(json!({})).to_string(),
                    409,
                    "response_in_flight",
                    Value::Null,
                ),
                (
                    named("other"),
                    400,
                    "websocket_stream_limit_reached",
                    json!("other"),
                ),
            ] {
                socket.say(&message).await;
                let refusal = loop {
                    match event(&mut socket).await {
                        refusal if refusal["type"] == "error" => break refusal,
                        event => told.push(event),
                    }
                };
                let said = (
                    &refusal["status"],
                    &refusal["error"]["code"],
                    &refusal["stream_id"],
                );
                assert_eq!(said, (&status.into(), &code.into(), &stream));
            }
        }
        for event in [started(&[]), text(name), finished()] {
            let sent = within("a reader", sender.send(event)).await;
            sent.expect("a reader");
        }
        told.extend(events(&mut socket).await);
        assert!(
            told.iter().all(|event| event["stream_id"] == **name),
            "{told:?}"
        );
        assert_eq!(told[0]["headers"], json!({"x-rkllmd-not-applied": "odd"}));
        for event in &mut told {
            let event = event.as_object_mut().expect("an event");
            event.remove("stream_id");
            event.remove("headers");
        }
        let response = heard_response_in(&as_stream(&told)).response;
        assert_eq!(response["output"][0]["content"][0]["text"], **name);
        told.clear();
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_stream_has_a_name_of_its_own_kind() {
    let server = Server::replaying(Settings::default(), answer).await;
    let mut socket = socket(&server).await;
    let longest = "a".repeat(256);
    for wrong in ["", "a b", "é", "a/b", &format!("{longest}a")] {
        socket
            .say(&create(json!({"stream_id": wrong})).to_string())
            .await;
        let told = refused(&mut socket).await;
        let expected = (
            400,
            "invalid_stream_id".to_owned(),
            Value::from("stream_id"),
        );
        assert_eq!(told, expected, "{wrong:?}");
    }
    socket
        .say(&create(json!({"stream_id": 3})).to_string())
        .await;
    assert_eq!(refused(&mut socket).await.1, "invalid_type");
    for (name, told) in [(json!(longest), json!(longest)), (Value::Null, Value::Null)] {
        socket
            .say(&create(json!({"stream_id": name})).to_string())
            .await;
        let events = events(&mut socket).await;
        assert!(events.iter().all(|event| event["stream_id"] == told));
    }
    // An error of a message has its stream too.
    socket
        .say(&create(json!({"stream_id": "main", "top_p": 7})).to_string())
        .await;
    let told = event(&mut socket).await;
    assert_eq!(
        (&told["code"], &told["stream_id"]),
        (&json!("invalid_value"), &json!("main"))
    );
    // Over HTTP there are none.
    let body = json!({"model": "tiny", "input": "hi", "stream_id": "main"});
    let answer = server.post(PATH, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-rkllmd-not-applied"), Some("stream_id"));
    server.shut_down().await;
}

#[tokio::test]
async fn each_stream_goes_on_from_its_last_response_and_others_fork_it() {
    let said = || vec![started(&[]), text("so be it"), finished()];
    let server = Server::replaying(Settings::default(), said).await;
    let mut socket = socket(&server).await;
    let mut ask = async |stream: &str, previous: &Value| {
        let fields = json!({"stream_id": stream, "store": false, "previous_response_id": previous});
        socket.say(&create(fields).to_string()).await;
        let first = event(&mut socket).await;
        if first["type"] == "error" {
            return first["code"].clone();
        }
        let events = events(&mut socket).await;
        events[events.len() - 1]["response"]["id"].clone()
    };
    let not_found = json!("previous_response_not_found");
    let plan = ask("planner", &Value::Null).await;
    let research = ask("research", &Value::Null).await;
    let fork = ask("critic", &plan).await;
    assert!(
        [&plan, &research, &fork]
            .iter()
            .all(|id| id.as_str().is_some_and(|id| id.starts_with("resp_")))
    );
    let next = ask("planner", &plan).await;
    assert_ne!(next, not_found);
    // Its own stream has gone on from it.
    assert_eq!(ask("critic", &plan).await, not_found);
    assert_ne!(ask("research", &research).await, not_found);
    assert_ne!(ask("planner", &next).await, not_found);
    server.shut_down().await;
}

#[tokio::test]
async fn what_waits_when_the_daemon_ends_is_refused() {
    let (mut server, mut generations) = endless(Settings::default()).await;
    let mut socket = socket(&server).await;
    for name in ["made", "waits"] {
        let message = create(json!({"stream_id": name}));
        socket.say(&message.to_string()).await;
    }
    let sender = generation(&mut generations).await;
    // Behind its refusal the one before it has been read.
    socket.say(&create(json!({})).to_string()).await;
    loop {
        let event = event(&mut socket).await;
        if event["type"] == "error" {
            assert_eq!(event["code"], "response_in_flight");
            break;
        }
    }
    server.ask_to_shut_down();
    for event in [started(&[]), text("so"), finished()] {
        let sent = within("a reader", sender.send(event)).await;
        sent.expect("a reader");
    }
    let events = events(&mut socket).await;
    assert!(events.iter().all(|event| event["stream_id"] == "made"));
    let refusal = event(&mut socket).await;
    let said = (&refusal["status"], &refusal["code"], &refusal["stream_id"]);
    assert_eq!(
        said,
        (&json!(503), &json!("shutting_down"), &json!("waits"))
    );
    assert_eq!(socket.told().await, Some(Told::Close(Some(1001))));
    assert!(generations.try_recv().is_err(), "it was begun");
    server.shut_down().await;
}
