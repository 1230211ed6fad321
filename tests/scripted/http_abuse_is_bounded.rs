//! Whatever a client does to its connection, it costs the daemon a bounded time and a bounded memory,
//! and no other client an answer.

use std::time::{Duration, Instant};

use crate::http_support::*;
use rkllmd::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Between two bytes of a client that lets them drip.
const DRIP: Duration = Duration::from_millis(20);
/// The limit of the tests that reach one.
const LIMIT: Duration = Duration::from_millis(300);
/// How much later than its limit an end may be seen on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

async fn answering(settings: Settings) -> Server {
    let events = || vec![started(&[]), text("x"), finished()];
    Server::replaying(settings, events).await
}

/// Sends `start`, then a byte every now and then. Gives what comes back until the server closes, and
/// how long that took.
async fn dripping(server: &Server, start: &str, drop: &[u8]) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = server.client().await.into_stream();
    stream.write_all(start.as_bytes()).await.expect("open");
    let (mut reader, mut writer) = stream.into_split();
    let drips = async {
        loop {
            tokio::time::sleep(DRIP).await;
            // After the server has closed there is nothing left to drip into.
            let _ = writer.write_all(drop).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        // A reset is an end as well.
        _ = within("the end of the connection", reader.read_to_end(&mut answer)) => {}
        () = drips => {}
    }
    (
        String::from_utf8_lossy(&answer).into_owned(),
        begun.elapsed(),
    )
}

#[tokio::test]
async fn a_header_that_drips_is_given_up() {
    let mut settings = Settings::default();
    settings.http.header_read_timeout = LIMIT;
    let server = answering(settings).await;
    let start = "GET /health HTTP/1.1\r\nhost: localhost\r\nx: ";
    let (_, took) = dripping(&server, start, b"y").await;
    assert!((LIMIT..LIMIT + SLACK).contains(&took), "{took:?}");
    let (_, took) = dripping(&server, "", b"\r\n").await;
    assert!(
        took < LIMIT + SLACK,
        "blank lines before a request: {took:?}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_connection_without_a_next_request_is_closed() {
    let mut settings = Settings::default();
    settings.http.keep_alive_timeout = Duration::from_secs(1);
    let server = answering(settings).await;
    let mut client = server.client().await;
    client
        .send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 200);
    assert!(client.is_closed().await);
    server.shut_down().await;
}

#[tokio::test]
async fn a_body_that_drips_is_given_up() {
    let mut settings = Settings::default();
    settings.http.slow_reader_timeout = LIMIT;
    let server = answering(settings).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n");
    for (length, drop) in [
        ("content-length: 1000000\r\n\r\n{", &b" "[..]),
        ("transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ] {
        let (answer, took) = dripping(&server, &format!("{head}{length}"), drop).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("request_timeout"), "{answer}");
        assert!((LIMIT..LIMIT + SLACK).contains(&took), "{took:?}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_slow_body_that_keeps_up_is_read() {
    let mut settings = Settings::default();
    settings.http.slow_reader_timeout = LIMIT;
    let server = answering(settings).await;
    let body = format!(
        r#"{{"model":"tiny","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(20_000)
    );
    let request = post(CHAT, body);
    let mut client = server.client().await;
    let begun = Instant::now();
    for piece in request.chunks(400) {
        client.send(piece).await;
        tokio::time::sleep(DRIP).await;
    }
    assert!(begun.elapsed() > 2 * LIMIT, "it was slower than one stall");
    assert_eq!(client.answer().await.status, 200);
    server.shut_down().await;
}

#[tokio::test]
async fn headers_are_bounded_in_length_and_number() {
    let server = answering(Settings::default()).await;
    let get = |path: &str, fields: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")
    };
    let many: String = (0..150).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(40_000));
    let name = format!("{}: y\r\n", "x".repeat(40_000));
    for (path, fields) in [
        ("/health", many.as_str()),
        ("/health", &long),
        ("/health", &name),
    ] {
        let mut client = server.client().await;
        client.send(get(path, fields)).await;
        assert_eq!(client.head().await.status, 431);
    }
    let mut client = server.client().await;
    client
        .send(get(&format!("/{}", "x".repeat(70_000)), ""))
        .await;
    let status = client.head().await.status;
    assert!(matches!(status, 414 | 431), "{status}");
    // A hundred are taken, which are more than any client sends.
    let most: String = (0..99).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(server.ask(get("/health", &most)).await.status, 200);
    server.shut_down().await;

    let mut settings = Settings::default();
    settings.http.header_limit_bytes = 65_536;
    settings.http.max_header_fields = 50;
    let server = answering(settings).await;
    assert_eq!(server.ask(get("/health", &long)).await.status, 200);
    let mut client = server.client().await;
    client.send(get("/health", &most)).await;
    assert_eq!(client.head().await.status, 431);
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_closed() {
    let server = answering(Settings::default()).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n");
    let posts = [
        "content-length: -1\r\n\r\n",
        "content-length: 1e3\r\n\r\n",
        "content-length: 18446744073709551616\r\n\r\n",
        "content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "transfer-encoding: gzip\r\n\r\n",
        "transfer-encoding: chunked, gzip\r\n\r\n",
        "x\r\n\r\n",
        "x y: z\r\n\r\n",
        "x: a\0b\r\n\r\n",
    ];
    let posts = posts.map(|rest| format!("{head}{rest}").into_bytes());
    let others: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /he\x00alth HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
    ];
    for junk in posts.iter().map(Vec::as_slice).chain(others) {
        let shown = String::from_utf8_lossy(junk).into_owned();
        let mut client = server.client().await;
        client.send(junk).await;
        let mut received = Vec::new();
        let mut stream = client.into_stream();
        let _ = within(&shown, stream.read_to_end(&mut received)).await;
        let received = String::from_utf8_lossy(&received).into_owned();
        // Some of it is not worth an answer, but none is taken for a request.
        assert!(
            received.is_empty()
                || ["400", "413", "505"]
                    .iter()
                    .any(|status| received.starts_with(&format!("HTTP/1.1 {status} "))),
            "{shown:?}: {received}"
        );
    }
    assert_eq!(server.get("/health").await.status, 200);
    server.shut_down().await;
}

#[tokio::test]
async fn chunks_that_lie_are_refused() {
    let server = answering(Settings::default()).await;
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    let extension = format!("1;{}\r\n{{\r\n", "x".repeat(100_000));
    let trailers = format!("2\r\n{{}}\r\n0\r\n{}\r\n", "x: y\r\n".repeat(100_000));
    for chunks in [
        "fffffffffffffffff\r\n{}",
        "-1\r\n{}",
        "zz\r\n{}",
        "1\r\n{}\r\n",
        &extension,
        &trailers,
    ] {
        let mut stream = server.client().await.into_stream();
        // A refusal may come before all of it is sent.
        let _ = stream.write_all(format!("{head}{chunks}").as_bytes()).await;
        let mut received = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut received)).await;
        let received = String::from_utf8_lossy(&received).into_owned();
        let shown: String = chunks.chars().take(40).collect();
        assert!(
            received.is_empty() || received.starts_with("HTTP/1.1 400 "),
            "{shown}: {received}"
        );
    }
    assert_eq!(server.get("/health").await.status, 200);
    server.shut_down().await;
}

#[tokio::test]
async fn junk_behind_a_request_does_not_hurt_the_request() {
    let server = answering(Settings::default()).await;
    let mut client = server.client().await;
    let mut bytes = chat("");
    bytes.extend_from_slice(b"\x00\x01 junk\r\n\r\n");
    client.send(bytes).await;
    let answer = client.answer().await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "x");
    assert_eq!(client.answer().await.status, 400);
    assert!(client.is_closed().await);
    server.shut_down().await;
}

/// How much the server takes from a connection before it makes the client wait.
async fn taken(stream: &mut TcpStream) -> usize {
    let junk = vec![b'x'; 64 * 1024];
    let mut taken = 0;
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(500), stream.write(&junk)).await
    {
        taken += written.expect("an open connection");
        assert!(taken < 64 << 20, "all of it is read");
    }
    taken
}

#[tokio::test]
async fn a_flood_behind_a_running_stream_is_not_read() {
    let (server, mut generations) = endless(Settings::default()).await;
    let mut client = server.client().await;
    client.send(chat(r#","stream":true"#)).await;
    let events = generations.recv().await.expect("a generation");
    events.send(text("a")).await.expect("its reader");
    client.head().await;
    client.chunk().await;
    let mut stream = client.into_stream();
    // The buffers of two sockets on this machine, and the one of the connection.
    let taken = taken(&mut stream).await;
    assert!(taken > 0);
    events.send(text("b")).await.expect("the stream goes on");
    events.send(finished()).await.expect("the stream goes on");
    let mut received = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut received)).await;
    let received = String::from_utf8_lossy(&received).into_owned();
    assert!(received.contains("data: [DONE]\n\n"), "{received}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_when_they_are_read() {
    const REQUESTS: usize = 1000;
    let server = answering(Settings::default()).await;
    let stream = server.client().await.into_stream();
    let (mut reader, mut writer) = stream.into_split();
    let requests = (0..REQUESTS)
        .map(|n| format!("GET /v1/models/{n} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        .collect::<String>();
    let sending = tokio::spawn(async move {
        writer.write_all(requests.as_bytes()).await.expect("open");
        writer
    });
    let mut received = Vec::new();
    within("all answers", async {
        let answers = |received: &[u8]| {
            String::from_utf8_lossy(received)
                .matches("HTTP/1.1 404 ")
                .count()
        };
        while answers(&received) < REQUESTS || !received.ends_with(b"}") {
            assert!(reader.read_buf(&mut received).await.expect("open") > 0);
        }
    })
    .await;
    let received = String::from_utf8(received).expect("text");
    let mut at = 0;
    for n in 0..REQUESTS {
        let mark = format!("the model `{n}` does not exist");
        at += received[at..]
            .find(&mark)
            .unwrap_or_else(|| panic!("{n} in order"));
    }
    drop(sending.await.expect("sent"));
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_has_left() {
    let (server, mut generations) = endless(Settings::default()).await;
    for fields in ["", r#","stream":true"#] {
        let mut client = server.client().await;
        client.send(chat(fields)).await;
        let events = generations.recv().await.expect("a generation");
        let mut stream = client.into_stream();
        stream.shutdown().await.expect("its own half");
        within("the generation's being dropped", events.closed()).await;
        let mut received = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut received)).await;
    }
    // In the header, in the body, and before anything.
    for start in [
        "",
        "GET /health HT",
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{",
    ] {
        let mut client = server.client().await;
        client.send(start).await;
        let mut stream = client.into_stream();
        stream.shutdown().await.expect("its own half");
        let mut received = Vec::new();
        let _ = within(start, stream.read_to_end(&mut received)).await;
    }
    server.shut_down().await;
}
