//! Events of responses in the background, from any of them on: for as many readers as like, until they are gone.

use std::time::Duration;

use crate::http_support::*;
use crate::random_replies::{End, whatever_a_model_writes};
use crate::responses_background_support::*;
use proptest::prelude::*;
use rkllmd::settings::Settings;
use serde_json::Value;

#[tokio::test]
async fn who_leaves_its_stream_ends_nothing_else() {
    let (server, mut generations) = endless(Settings::default()).await;
    let mut client = server.client().await;
    let mut asked = body();
    asked["stream"] = true.into();
    client.send(post(PATH, asked.to_string())).await;
    assert_eq!(client.head().await.status, 200);
    let mut stream = String::new();
    while !stream.contains("response.queued") {
        stream += std::str::from_utf8(&client.chunk().await).expect("text");
    }
    let first = stream
        .lines()
        .nth(1)
        .and_then(|it| it.strip_prefix("data: "));
    let first: Value = serde_json::from_str(first.expect("data")).expect("JSON");
    let response = &first["response"];
    let sender = generation(&mut generations).await;
    drop(client);
    send(&sender, [started(&[]), text("a "), text("b")]).await;
    until(&server, response, "in_progress").await;
    // Two readers from different places, before and behind the end.
    let follow = format!("{}?stream=true&starting_after=2", path(response));
    let mut reader = server.client().await;
    reader
        .send(format!("GET {follow} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        .await;
    assert_eq!(reader.head().await.status, 200);
    send(&sender, [text(" c"), finished()]).await;
    let mut behind = String::new();
    loop {
        let chunk = reader.chunk().await;
        if chunk.is_empty() {
            break;
        }
        behind += std::str::from_utf8(&chunk).expect("text");
    }
    let whole = followed(&server, response, "stream=true").await;
    let heard = heard_response_in(&whole);
    assert_eq!(heard.response["output"][0]["content"][0]["text"], "a b c");
    let before = whole.strip_suffix(behind.as_str()).expect("the rest of it");
    assert!(before.ends_with("\n\n"), "{before}");
    assert_eq!(before.matches("event: ").count(), 3, "{before}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_is_alive() {
    let mut settings = Settings::default();
    settings.http.keep_alive = Duration::from_millis(20);
    let (server, mut generations) = endless(settings).await;
    let response = begin(&server).await;
    let sender = generation(&mut generations).await;
    let follow = format!("{}?stream=true&starting_after=1", path(&response));
    let mut reader = server.client().await;
    reader
        .send(format!("GET {follow} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        .await;
    assert_eq!(reader.head().await.status, 200);
    for _ in 0..3 {
        let chunk = String::from_utf8(reader.chunk().await).expect("text");
        assert!(chunk.starts_with(": keep-alive"), "{chunk}");
    }
    send(&sender, [started(&[]), text("so"), finished()]).await;
    let made = until(&server, &response, "completed").await;
    // No sign of life is among what can be read again.
    let heard = heard_response_in(&followed(&server, &response, "stream=true").await);
    assert_eq!(heard.response, made);
    server.shut_down().await;
}

#[tokio::test]
async fn events_that_made_place_for_later_ones_are_told_as_gone() {
    let mut settings = Settings::default();
    settings.responses.background_events_limit_bytes = 16_384;
    let (server, mut generations) = endless(settings).await;
    let response = begin(&server).await;
    let sender = generation(&mut generations).await;
    send(&sender, [started(&[])]).await;
    for _ in 0..300 {
        send(&sender, [text("word ")]).await;
    }
    send(&sender, [finished()]).await;
    until(&server, &response, "completed").await;
    let answer = server
        .get(&format!("{}?stream=true", path(&response)))
        .await;
    assert_eq!(
        (answer.status, answer.error().1.as_deref()),
        (400, Some("starting_after"))
    );
    // Its message says which is the first that is there.
    let message = answer.json()["error"]["message"].to_string();
    let first = message
        .split(": ")
        .nth(1)
        .and_then(|it| it.split(' ').next());
    let first: u64 = first.and_then(|it| it.parse().ok()).expect("a number");
    let from = format!("stream=true&starting_after={}", first - 1);
    let stream = followed(&server, &response, &from).await;
    let number = format!("\"sequence_number\":{first}");
    let begin = stream.split("\n\n").next().expect("an event");
    assert!(begin.contains(&number), "{begin}");
    assert!(stream.contains("response.completed") && stream.ends_with("data: [DONE]\n\n"));
    server.shut_down().await;
}

#[tokio::test]
async fn its_events_are_given_back_some_time_after_its_end() {
    let mut settings = Settings::default();
    settings.responses.background_events_kept_for = Duration::ZERO;
    let server = Server::replaying(settings, || vec![started(&[]), text("x"), finished()]).await;
    let response = begin(&server).await;
    let made = until(&server, &response, "completed").await;
    within("its events being gone", async {
        let stream = format!("{}?stream=true", path(&response));
        while server.get(&stream).await.status != 400 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(look(&server, &response).await, made);
    server.shut_down().await;
}

#[test]
fn whatever_a_model_writes_the_events_have_one_end() {
    whatever_a_model_writes(async |server, _, end| {
        let mut asked = body();
        asked["stream"] = true.into();
        let answer = server.post(PATH, asked.to_string()).await;
        prop_assert_eq!(answer.status, 200);
        let heard = heard_response(&answer);
        prop_assert_eq!(heard.error.is_some(), end == End::Failure);
        let response = heard.response;
        prop_assert_eq!(&server.get(&path(&response)).await.json(), &response);
        let again = server
            .get(&format!("{}?stream=true", path(&response)))
            .await;
        prop_assert_eq!(again.text(), answer.text());
        Ok(())
    });
}
