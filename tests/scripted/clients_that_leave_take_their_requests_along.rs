//! A client that goes away takes its request along, and so does one that stops reading.

use std::time::Duration;

use crate::http_support::*;
use rkllmd::generation::ReplyEvent;
use rkllmd::settings::Settings;
use tokio::sync::mpsc;

pub async fn gone(events: &mpsc::Sender<ReplyEvent>) {
    within("the generation's being dropped", events.closed()).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_a_stream() {
    let (server, mut generations) = endless(Settings::default()).await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    let events = generations.recv().await.unwrap();
    events.send(text("a")).await.unwrap();
    client.head().await;
    client.chunk().await;
    drop(client);
    gone(&events).await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_what_it_waits_for() {
    let (server, mut generations) = endless(Settings::default()).await;
    for fields in ["", r#","stream":true"#] {
        let mut client = server.client().await;
        client.send(chat(fields)).await;
        let events = generations.recv().await.unwrap();
        drop(client);
        gone(&events).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_behind_bytes_it_sent_ahead() {
    let (server, mut generations) = endless(Settings::default()).await;
    for fields in ["", r#","stream":true"#] {
        let mut client = server.client().await;
        let mut bytes = chat(fields);
        bytes.extend_from_slice(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
        client.send(bytes).await;
        let events = generations.recv().await.unwrap();
        drop(client);
        gone(&events).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_run() {
    let mut settings = Settings::default();
    settings.http.slow_reader_timeout = Duration::from_secs(1);
    let (server, mut generations) = endless(settings).await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    let events = generations.recv().await.unwrap();
    // The client keeps its connection and reads nothing.
    let long = "x".repeat(16 * 1024);
    within("the end of the run", async {
        while events.send(text(&long)).await.is_ok() {}
    })
    .await;
    gone(&events).await;
    drop(client);
    server.shut_down().await;
}
