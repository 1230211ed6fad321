//! `/v1/admin/events`: nothing is lost that is not said to be, however slowly a client reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::http_support::*;
use futures_util::future::join_all;
use rkllmd::settings::{AdminSettings, Settings};
use rkllmd::telemetry::Change;
use serde_json::Value;

const EVENTS: &str = "/v1/admin/events";

fn with(event_buffer: usize, max_event_streams: usize) -> Settings {
    Settings {
        admin: AdminSettings {
            event_buffer,
            max_event_streams,
            ..AdminSettings::default()
        },
        ..Settings::default()
    }
}

/// Id, name and data.
type Told = (Option<String>, String, Value);

/// The next event; comments are passed over.
async fn next(client: &mut Client) -> Told {
    loop {
        let text = String::from_utf8(client.chunk().await).expect("text");
        if text.starts_with(':') {
            continue;
        }
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::to_owned)
        };
        let data = field("data: ").unwrap_or_else(|| panic!("no data in {text:?}"));
        return (
            field("id: "),
            field("event: ").expect("a name"),
            serde_json::from_str(&data).expect("JSON"),
        );
    }
}

async fn follow(server: &Server, last: Option<&str>) -> (Client, Told) {
    let mut client = server.client().await;
    let last = last.map_or_else(String::new, |last| format!("last-event-id: {last}\r\n"));
    let head = format!("GET {EVENTS} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n");
    client.send(head).await;
    let head = client.head().await;
    assert_eq!(head.status, 200);
    let told = next(&mut client).await;
    assert_eq!(told.1, "snapshot");
    (client, told)
}

fn number(id: Option<&String>) -> u64 {
    let (_, number) = id.expect("an id").rsplit_once('-').expect("a number");
    number.parse().expect("a number")
}

#[tokio::test]
async fn of_a_thousand_changes_each_is_told_or_counted() {
    for buffer in [1024, 16] {
        let server = Server::replaying(with(buffer, 8), Vec::new).await;
        let (mut client, (id, _, snapshot)) = follow(&server, None).await;
        assert_eq!(snapshot["missed"], Value::Null);
        let models = snapshot["models"].as_array().expect("models");
        assert!(models.iter().any(|model| model["state"] == "ready"));
        let first = number(id.as_ref());
        for keys in 0..1000 {
            let changes = server.metrics().changes();
            changes.tell(|| Change::Keys { keys });
        }
        let (mut told, mut dropped, mut last) = (0, 0, first);
        while last < first + 1000 {
            match next(&mut client).await {
                (None, name, data) => {
                    assert_eq!(name, "dropped");
                    dropped += data["dropped"].as_u64().expect("a number");
                }
                (id, name, data) => {
                    assert_eq!(name, "keys");
                    let number = number(id.as_ref());
                    assert!(number > last, "in order");
                    last = number;
                    assert_eq!(data["keys"], number - first - 1);
                    told += 1;
                }
            }
        }
        assert_eq!(told + dropped, 1000, "buffer {buffer}");
        assert_eq!(dropped == 0, buffer > 1000);
        server.shut_down().await;
    }
}

/// Ten clients ask at the same time, and who follows reads when they have done so.
#[tokio::test]
async fn of_a_thousand_changes_that_requests_make_each_is_told_in_its_order() {
    let events = || vec![started(&[]), text("hi"), finished()];
    let server = Server::replaying(with(1024, 8), events).await;
    let (mut client, (id, ..)) = follow(&server, None).await;
    let first = number(id.as_ref());
    let asked = &server;
    let asking = (0..10).map(|_| async move {
        let mut ids = Vec::new();
        for _ in 0..25 {
            let answer = asked.ask(chat("")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            ids.push(answer.header("x-request-id").expect("an id").to_owned());
        }
        ids
    });
    let asked: BTreeSet<String> = join_all(asking).await.into_iter().flatten().collect();
    assert_eq!(asked.len(), 250);
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for nth in 1..=1000 {
        let (id, name, data) = next(&mut client).await;
        assert_eq!(number(id.as_ref()), first + nth, "{name}: {data}");
        let request = data["request"].as_str().expect("an id").to_owned();
        told.entry(request).or_default().push(name);
    }
    assert!(told.keys().eq(&asked), "{told:?}");
    let whole = [
        "request_began",
        "request_waits",
        "request_runs",
        "request_ended",
    ];
    for (request, names) in told {
        assert_eq!(names, whole, "{request}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn who_comes_back_is_told_how_much_was_missed() {
    let server = Server::replaying(with(64, 8), Vec::new).await;
    let (client, (id, ..)) = follow(&server, None).await;
    drop(client);
    for keys in 0..5 {
        let changes = server.metrics().changes();
        changes.tell(|| Change::Keys { keys });
    }
    let (_again, (_, _, snapshot)) = follow(&server, id.as_deref()).await;
    assert_eq!(snapshot["missed"], 5);
    let (_other, (_, _, snapshot)) = follow(&server, Some("another-3")).await;
    assert_eq!(snapshot["missed"], Value::Null);
    server.shut_down().await;
}

#[tokio::test]
async fn followers_are_bounded_and_give_their_places_back() {
    let server = Server::replaying(with(64, 1), Vec::new).await;
    let (client, _) = follow(&server, None).await;
    let refused = server.get(EVENTS).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.error().2, "too_many_event_streams");
    assert!(refused.header("retry-after").is_some());
    drop(client);
    within("a free place", async {
        loop {
            let mut client = server.client().await;
            client
                .send(format!("GET {EVENTS} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
                .await;
            if client.head().await.status == 200 {
                return;
            }
        }
    })
    .await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_request_is_told_from_its_beginning_to_its_end() {
    let events = || vec![started(&[]), text("hi"), finished()];
    let server = Server::replaying(Settings::default(), events).await;
    let (mut client, _) = follow(&server, None).await;
    let answer = server.ask(chat("")).await;
    assert_eq!(answer.status, 200);
    let id = answer.header("x-request-id").expect("an id").to_owned();
    for expected in [
        "request_began",
        "request_waits",
        "request_runs",
        "request_ended",
    ] {
        let (_, name, data) = next(&mut client).await;
        assert_eq!(name, expected, "{data}");
        assert_eq!(data["request"], *id);
        match expected {
            "request_began" => assert_eq!(data["path"], CHAT),
            _ => assert_eq!(data["model"], "test/model-1.0"),
        }
        if expected == "request_ended" {
            assert_eq!(data["status"], 200);
            assert_eq!(data["error"], Value::Null);
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn the_stream_ends_with_the_daemon() {
    let server = Server::replaying(with(64, 8), Vec::new).await;
    let (mut client, _) = follow(&server, None).await;
    server.shut_down().await;
    assert!(client.chunk().await.is_empty(), "the end of the stream");
}

#[tokio::test]
async fn the_log_names_the_start_that_events_name_and_what_is_wrong_in_a_query() {
    let server = Server::replaying(with(64, 8), Vec::new).await;
    let (_client, (id, ..)) = follow(&server, None).await;
    let id = id.expect("an id");
    let page = server.get("/v1/admin/logs").await.json();
    let start = id.rsplit_once('-').map(|(start, _)| start);
    assert_eq!(page["start"].as_str(), start);
    for (query, param) in [
        ("limit=1&limit=2", "limit"),
        ("after=1&after=2", "after"),
        ("level=info&level=warn", "level"),
        ("limit=0", "limit"),
        ("after=x", "after"),
        ("level=loud", "level"),
    ] {
        let refused = server.get(&format!("/v1/admin/logs?{query}")).await;
        assert_eq!(refused.status, 400, "{query}");
        let (_, blamed, _) = refused.error();
        assert_eq!(blamed.as_deref(), Some(param), "{query}");
    }
    server.shut_down().await;
}
