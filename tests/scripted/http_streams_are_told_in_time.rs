//! What of a streamed answer is on the wire when: tokens at once, comments in a silence, an error with its status
//! or as the last event.

use std::time::{Duration, Instant};

use crate::http_support::*;
use rkllmd::generation::{GenerationError, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::Value;

#[tokio::test]
async fn a_token_is_on_the_wire_before_the_next_one_exists() {
    let mut settings = Settings::default();
    settings.http.header_delay = Duration::from_secs(60);
    let (server, events) = Server::fed_by_hand(settings).await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    events.send(started(&[])).await.unwrap();
    events.send(text("token 0")).await.unwrap();
    client.head().await;
    let opening = client.chunk().await;
    assert!(
        String::from_utf8(opening)
            .unwrap()
            .contains(r#""content":"token 0""#)
    );
    for n in 1..50 {
        events.send(text(&format!("token {n}"))).await.unwrap();
        let event = String::from_utf8(client.chunk().await).unwrap();
        assert!(event.starts_with("data: ") && event.ends_with("\n\n"));
        assert!(
            event.contains(&format!(r#""content":"token {n}""#)),
            "{event}"
        );
        assert_eq!(event.matches("data: ").count(), 1);
    }
    events.send(finished()).await.unwrap();
    let end = String::from_utf8(client.chunk().await).unwrap();
    assert!(end.ends_with("data: [DONE]\n\n"));
    assert!(client.chunk().await.is_empty());
    server.shut_down().await;
}

#[tokio::test]
async fn waiting_tokens_share_a_write_and_stay_events_of_their_own() {
    let server = Server::replaying(Settings::default(), || {
        let mut events = vec![started(&[])];
        events.extend((0..2000).map(|n| text(&format!("é{n}"))));
        events.push(finished());
        events
    })
    .await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    client.head().await;
    let mut whole = String::new();
    let mut frames = 0;
    loop {
        let chunk = client.chunk().await;
        if chunk.is_empty() {
            break;
        }
        frames += 1;
        assert!(chunk.len() < 17 * 1024, "{} bytes", chunk.len());
        // No frame ends within an event, so none splits a character.
        let chunk = String::from_utf8(chunk).expect("whole characters");
        assert!(chunk.ends_with("\n\n"));
        whole.push_str(&chunk);
    }
    assert_eq!(whole.matches("data: ").count(), 2000 + 3);
    assert!(frames < 200, "{frames} frames");
    server.shut_down().await;
}

#[tokio::test]
async fn silence_is_broken_by_a_comment_line_without_a_blank_line() {
    let mut settings = Settings::default();
    settings.http.keep_alive = Duration::from_millis(200);
    settings.http.header_delay = Duration::from_secs(60);
    let (server, events) = Server::fed_by_hand(settings).await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    events.send(text("a")).await.unwrap();
    client.head().await;
    client.chunk().await;
    assert_eq!(client.chunk().await, b": keep-alive\n");
    assert_eq!(client.chunk().await, b": keep-alive\n");
    events.send(text("b")).await.unwrap();
    let mut next = client.chunk().await;
    while next == b": keep-alive\n" {
        next = client.chunk().await;
    }
    assert!(next.starts_with(b"data: {"));
    drop(client);
    server.shut_down().await;
}

#[tokio::test]
async fn tokens_put_the_keep_alive_off() {
    const LIMIT: Duration = Duration::from_millis(400);
    let mut settings = Settings::default();
    settings.http.keep_alive = LIMIT;
    settings.http.header_delay = Duration::from_secs(60);
    let (server, events) = Server::fed_by_hand(settings).await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    let mut last = Instant::now();
    events.send(text("first")).await.unwrap();
    client.head().await;
    client.chunk().await;
    // Tokens over half as long again as the limit. A machine that stalls between two of them makes a
    // silence itself, in which a comment line is right, so that the count begins anew.
    let mut quick = 0;
    while quick < 8 {
        tokio::time::sleep(LIMIT / 5).await;
        let sent = Instant::now();
        events.send(text("next")).await.unwrap();
        let mut comments = 0;
        while client.chunk().await == b": keep-alive\n" {
            comments += 1;
        }
        // The silence was no longer than this.
        let silence = last.elapsed();
        last = sent;
        if silence >= LIMIT {
            quick = 0;
            continue;
        }
        assert_eq!(comments, 0, "after a silence of {silence:?} at most");
        quick += 1;
    }
    drop(client);
    server.shut_down().await;
}

#[tokio::test]
async fn after_the_header_delay_an_error_is_the_last_event() {
    let mut settings = Settings::default();
    settings.http.header_delay = Duration::from_millis(100);
    let (server, events) = Server::fed_by_hand(settings).await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    let head = client.head().await;
    assert_eq!(head.status, 200);
    let opening = String::from_utf8(client.chunk().await).unwrap();
    assert!(opening.contains(r#""delta":{"role":"assistant","content":""}"#));
    events
        .send(ReplyEvent::Failed(GenerationError::ContextLengthExceeded {
            prompt_tokens: 5000,
            limit_tokens: 4096,
        }))
        .await
        .unwrap();
    let error = String::from_utf8(client.chunk().await).unwrap();
    let error = error
        .strip_prefix("data: ")
        .unwrap()
        .strip_suffix("\n\n")
        .unwrap();
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!(
        error_object(&error),
        (
            "invalid_request_error".into(),
            Some("messages".into()),
            "context_length_exceeded".into()
        )
    );
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("5000") && message.contains("4096"));
    assert!(
        client.chunk().await.is_empty(),
        "the stream ends, without [DONE]"
    );
    server.shut_down().await;
}
