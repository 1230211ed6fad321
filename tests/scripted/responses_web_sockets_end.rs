//! Ends of WebSockets that make responses: a response ends with its socket, and a socket with its client, its key, its
//! age, a message that is too large, or the daemon.

use std::error::Error;
use std::time::Duration;

use crate::http_support::web_socket::*;
use crate::http_support::*;
use crate::responses_web_sockets_support::*;
use rkllmd::auth::{ApiKey, Keyring, KeyringError, KeysFile, KeysWatch, Role, Secret};
use rkllmd::generation::Weight;
use rkllmd::settings::Settings;
use serde_json::{Value, json};
use tokio::sync::mpsc;

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
async fn an_aborted_run_does_not_wait_for_a_client_that_does_not_read() {
    let mut settings = Settings::default();
    settings.memory.requests_limit_bytes = Some(1 << 30);
    let (server, mut generations) = endless(settings).await;
    let mut lazy = socket(&server).await;
    lazy.say(&create(json!({})).to_string()).await;
    let sender = generation(&mut generations).await;
    within("a reader", sender.send(started(&[]))).await.unwrap();
    let long = "x".repeat(256 * 1024);
    let stall = Duration::from_millis(500);
    while let Ok(sent) = tokio::time::timeout(stall, sender.send(text(&long))).await {
        sent.expect("a reader");
    }
    let listed = server.get("/v1/admin/requests").await.json();
    let id = listed["requests"][0]["id"].as_str().expect("an id");
    let head = format!("DELETE /v1/admin/requests/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(server.ask(head).await.status, 200);
    // Long before it would count as a slow reader.
    within("the end of the run", sender.closed()).await;
    // It is told when it reads.
    loop {
        let event = event(&mut lazy).await;
        if event["type"] == "error" {
            assert_eq!(event["code"], "aborted_by_administrator");
            break;
        }
    }
    let last = event(&mut lazy).await;
    assert_eq!(last["type"], "response.failed");
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
