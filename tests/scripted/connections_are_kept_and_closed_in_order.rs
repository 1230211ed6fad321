//! A connection lasts as long as was announced, a client that has closed its sending side gets what it
//! asked for, and nothing that arrives while a connection is closed is lost.

use std::time::{Duration, Instant};

use crate::http_support::*;
use rkllmd::settings::{HalfClosedGenerations, Settings};
use rkllmd::supervisor::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn serving(settings: Settings) -> Server {
    Server::replaying(settings, || vec![text("x"), finished()]).await
}

fn keeping(seconds: u64) -> Settings {
    let mut settings = Settings::default();
    settings.http.header_read_timeout = Duration::from_millis(200);
    settings.http.keep_alive_timeout = Duration::from_secs(seconds);
    settings
}

#[tokio::test]
async fn every_answer_announces_how_long_its_connection_is_kept() {
    let server = serving(Settings::default()).await;
    let mut client = server.client().await;
    for request in [
        HEALTH.as_bytes().to_vec(),
        b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        chat(""),
        chat(r#","stream":true"#),
        post(CHAT, "{}"),
    ] {
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.header("keep-alive"), Some("timeout=75"));
    }
    for request in [
        "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: TE, Close\r\n\r\n",
        "GET /health HTTP/1.0\r\n\r\n",
    ] {
        let mut client = server.client().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.header("keep-alive"), None, "{request}");
        assert!(client.is_closed().await);
    }
    // hyper reads no further than it has, so this connection is not kept.
    let mut client = server.client().await;
    client
        .send(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
             content-length: 99999999\r\n\r\n"
        ))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("keep-alive")), (413, None));
    assert!(client.is_closed().await);
    let old = "GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    let mut client = server.client().await;
    for _ in 0..2 {
        client.send(old).await;
        assert_eq!(
            client.answer().await.header("keep-alive"),
            Some("timeout=75")
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_was_announced() {
    let server = serving(keeping(1)).await;
    let mut client = server.client().await;
    client.send(HEALTH).await;
    assert_eq!(
        client.answer().await.header("keep-alive"),
        Some("timeout=1")
    );
    // At the last moment that was announced, and later than any header may take.
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.send(HEALTH).await;
    assert_eq!(client.answer().await.status, 200);
    let answered = Instant::now();
    assert!(client.is_closed().await);
    assert!(answered.elapsed() > Duration::from_secs(1));
    server.shut_down().await;
}

#[tokio::test]
async fn half_a_header_on_an_idle_connection_has_the_time_of_a_header() {
    let server = serving(keeping(60)).await;
    let mut client = server.client().await;
    client.send(HEALTH).await;
    assert_eq!(client.answer().await.status, 200);
    client.send("GET /health HT").await;
    assert!(client.is_closed().await);
    let silent = &mut server.client().await;
    assert!(
        silent.is_closed().await,
        "nothing was announced to this one"
    );
    server.shut_down().await;
}

/// A request that has arrived when the daemon closes is answered, whichever it sees first.
#[tokio::test]
async fn a_request_that_arrives_with_the_end_is_answered() {
    for _ in 0..50 {
        let mut server = serving(Settings::default()).await;
        let mut client = server.client().await;
        client.send(HEALTH).await;
        assert_eq!(client.answer().await.status, 200);
        client.send(HEALTH).await;
        server.ask_to_shut_down();
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        let closes = answer.header("connection") == Some("close");
        assert!(!closes || answer.header("keep-alive").is_none());
        server.shut_down().await;
    }
}

/// Until the server accepts nothing more.
async fn wait_until_it_listens_no_more(server: &Server) {
    let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
    within("the end of listening", refused).await;
}

/// As far as it knows it is connected, and its request is on its way.
#[tokio::test]
async fn a_client_that_was_let_in_before_the_end_is_answered() {
    let mut server = serving(Settings::default()).await;
    let mut silent = server.client().await;
    let mut half = server.client().await;
    half.send("GET /hea").await;
    // Clients are let in one after the other: those before it are by now.
    assert_eq!(server.get("/health").await.status, 200);
    server.ask_to_shut_down();
    wait_until_it_listens_no_more(&server).await;
    silent.send(HEALTH).await;
    half.send("lth HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    for client in [&mut silent, &mut half] {
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.header("keep-alive"), None);
        assert!(client.is_closed().await);
    }
    server.shut_down().await;
}

/// Neither the one that waits for a place, nor those behind it, whom only the kernel has let in.
#[tokio::test]
async fn clients_that_wait_for_a_place_when_the_end_comes_are_answered() {
    let mut settings = Settings::default();
    settings.http.max_connections = 1;
    let mut server = serving(settings).await;
    let mut busy = server.client().await;
    let request = chat("");
    let (begin, rest) = request.split_at(request.len() - 1);
    busy.send(begin).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(server.client().await);
    }
    server.ask_to_shut_down();
    wait_until_it_listens_no_more(&server).await;
    for client in &mut waiting {
        client.send(HEALTH).await;
    }
    busy.send(rest).await;
    assert_eq!(busy.answer().await.status, 200);
    for client in &mut waiting {
        assert_eq!(client.answer().await.status, 200);
        assert!(client.is_closed().await);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_never_asks_does_not_hold_the_end_up() {
    let mut server = serving(Settings::default()).await;
    let mut silent = server.client().await;
    assert_eq!(server.get("/health").await.status, 200);
    server.ask_to_shut_down();
    let asked = Instant::now();
    assert!(silent.is_closed().await);
    server.shut_down().await;
    let header = Settings::default().http.header_read_timeout;
    assert!(asked.elapsed() < header, "{:?}", asked.elapsed());
}

/// Sends all there is to send and reads all there is to read.
async fn half_closing(server: &Server, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A reset leaves what came before it.
    let _ = within("the end", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_client_that_half_closes_gets_its_answer() {
    let server = serving(Settings::default()).await;
    let requests = [
        HEALTH.as_bytes().to_vec(),
        b"GET /v1/models HTTP/1.0\r\n\r\n".to_vec(),
        b"GET /v1/ready HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET /v1/loading/progress HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        post("/tokenize", r#"{"model":"tiny","content":"hi"}"#),
        post(
            "/tokenize",
            format!(r#"{{"model":"tiny","content":"{}"}}"#, "x".repeat(300_000)),
        ),
        post(
            "/apply-template",
            r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#,
        ),
        post(
            "/rpc",
            r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#,
        ),
    ];
    for request in requests {
        for _ in 0..10 {
            let answer = half_closing(&server, &request).await;
            let asked = String::from_utf8_lossy(&request[..27]).into_owned();
            assert!(answer.contains(" 200 OK\r\n"), "{asked}: {answer}");
        }
    }
    let two = format!("{HEALTH}{HEALTH}");
    let answers = half_closing(&server, two).await;
    assert_eq!(answers.matches(" 200 OK\r\n").count(), 2, "{answers}");
    server.shut_down().await;
}

#[tokio::test]
async fn an_answer_that_takes_its_time_reaches_a_half_closed_client() {
    let server = serving(Settings::default()).await;
    let loading = || snapshot([("test/model-1.0", status_of(Phase::Loading))]);
    server.status.send_replace(loading());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = "GET /v1/loading/progress HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("data: ") {
        let read = within("an event", stream.read_buf(&mut seen)).await;
        assert!(read.unwrap() > 0);
    }
    server
        .status
        .send_replace(snapshot([("test/model-1.0", status_of(Phase::Ready))]));
    within("the end", stream.read_to_end(&mut seen))
        .await
        .unwrap();
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains(r#""ready""#), "{seen}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_generation_is_not_run_for_a_half_closed_client() {
    let (server, mut generations) = endless(Settings::default()).await;
    for fields in ["", r#","stream":true"#] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&chat(fields)).await.unwrap();
        let events = generations.recv().await.unwrap();
        stream.shutdown().await.unwrap();
        within("the end of the run", events.closed()).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn the_settings_let_generations_go_on_for_half_closed_clients() {
    let mut settings = Settings::default();
    settings.http.half_closed_generations = HalfClosedGenerations::Answer;
    let (server, mut generations) = endless(settings).await;
    for fields in ["", r#","stream":true"#] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&chat(fields)).await.unwrap();
        stream.shutdown().await.unwrap();
        let events = generations.recv().await.unwrap();
        events.send(text("abc")).await.unwrap();
        events.send(finished()).await.unwrap();
        drop(events);
        let mut answer = String::new();
        within("the end", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.contains("abc"), "{answer}");
    }
    // One that has really gone, as far as can be told.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&chat("")).await.unwrap();
    stream.shutdown().await.unwrap();
    let events = generations.recv().await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    within("the end of the run", events.closed()).await;
    server.shut_down().await;
}

#[tokio::test]
async fn http_2_is_refused_by_name() {
    let server = serving(Settings::default()).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings_frame = "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\u{1}\0\0\0\x02\0\0\0\0";
    for pieces in [
        &[preface][..],
        &[preface, settings_frame],
        &["PRI * HTTP/2.0\r\n"],
        &["P", "RI * HTT", "P/2.0\r\n\r\nSM\r\n", "\r\n"],
    ] {
        let mut client = server.client().await;
        for piece in pieces {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        let answer = client.answer().await;
        assert_eq!(answer.status, 505);
        assert_eq!(answer.header("connection"), Some("close"));
        let (class, _, code) = error_object(&answer.json());
        assert_eq!(class, "invalid_request_error");
        assert_eq!(code, "http_version_not_supported");
        assert!(answer.text().contains("HTTP/1.1"), "{}", answer.text());
        assert!(client.is_closed().await);
    }
    // An offer of HTTP/2 need not be taken.
    let upgrade = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\n\
        upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
    let mut client = server.client().await;
    for _ in 0..2 {
        client.send(upgrade).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("upgrade")), (200, None));
    }
    server.shut_down().await;
}
