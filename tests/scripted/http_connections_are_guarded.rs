//! Connections: who may speak, how much, what is answered to the rest, and how they end.

use std::time::Duration;

use crate::clients_that_leave_take_their_requests_along::gone;
use crate::http_support::*;
use rkllmd::settings::Settings;

#[tokio::test]
async fn a_finished_stream_leaves_the_connection_usable() {
    let server = Server::replaying(Settings::default(), || vec![text("x"), finished()]).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.send(chat(r#","stream":true"#)).await;
        let answer = client.answer().await;
        assert!(answer.text().ends_with("data: [DONE]\n\n"));
        client.send(chat("")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::replaying(Settings::default(), || vec![text("x"), finished()]).await;
    let mut client = server.client().await;
    let mut bytes = Vec::new();
    for path in ["/health", "/nowhere", "/v1/models"] {
        bytes.extend_from_slice(
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes(),
        );
    }
    bytes.extend_from_slice(&chat(r#","stream":true"#));
    bytes.extend_from_slice(&chat(""));
    client.send(bytes).await;
    assert_eq!(client.answer().await.json()["status"], "ok");
    assert_eq!(client.answer().await.error().2, "unknown_url");
    assert_eq!(client.answer().await.json()["object"], "list");
    assert!(client.answer().await.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(client.answer().await.json()["object"], "chat.completion");
    server.shut_down().await;
}

fn get_with(headers: &str) -> String {
    format!("GET /health HTTP/1.1\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_foreign_site_is_refused_on_loopback() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    for headers in [
        "host: evil.example\r\n",
        "host: evil.example:8080\r\n",
        "host: 192.168.1.5\r\n",
        "host: localhost.evil.example\r\n",
        "host: localhost\r\norigin: https://evil.example\r\n",
        "host: localhost\r\norigin: null\r\n",
        "host: \r\n",
    ] {
        let answer = server.ask(get_with(headers)).await;
        assert_eq!(answer.status, 403, "{headers}");
        assert_eq!(answer.error().2, "host_not_allowed");
    }
    let target = "GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(server.ask(target).await.status, 403);
    for headers in [
        "host: localhost:8080\r\n",
        "host: LocalHost\r\n",
        "host: 127.0.0.1:1\r\n",
        "host: 127.9.9.9\r\n",
        "host: [::1]:8080\r\n",
        "host: localhost\r\norigin: http://localhost:3000\r\n",
        "host: localhost\r\norigin: http://[::1]\r\n",
    ] {
        assert_eq!(server.ask(get_with(headers)).await.status, 200, "{headers}");
    }
    let answer = server.ask("GET /health HTTP/1.1\r\n\r\n").await;
    assert_eq!(
        (answer.status, answer.error().2.as_str()),
        (400, "invalid_host")
    );
    let answer = server
        .ask(get_with("host: localhost\r\nhost: localhost\r\n"))
        .await;
    assert_eq!(
        (answer.status, answer.error().2.as_str()),
        (400, "invalid_host")
    );
    assert_eq!(server.ask("GET /health HTTP/1.0\r\n\r\n").await.status, 200);
    server.shut_down().await;
}

#[tokio::test]
async fn the_settings_admit_names() {
    let mut settings = Settings::default();
    settings.http.allowed_hosts = vec!["board.lan".to_owned()];
    let server = Server::replaying(settings.clone(), Vec::new).await;
    let headers = "host: Board.lan:8080\r\norigin: http://board.lan\r\n";
    assert_eq!(server.ask(get_with(headers)).await.status, 200);
    assert_eq!(
        server.ask(get_with("host: other.lan\r\n")).await.status,
        403
    );
    server.shut_down().await;
    settings.http.allowed_hosts = vec!["*".to_owned()];
    let server = Server::replaying(settings, Vec::new).await;
    let headers = "host: other.lan\r\norigin: null\r\n";
    assert_eq!(server.ask(get_with(headers)).await.status, 200);
    server.shut_down().await;
}

#[tokio::test]
async fn every_path_tells_its_methods() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    for (path, right, wrong) in [
        (CHAT, "POST", "GET"),
        (TEXT, "POST", "DELETE"),
        ("/v1/models", "GET", "PUT"),
        ("/v1/models/some/model", "GET", "PUT"),
        ("/health", "GET", "PATCH"),
        ("/v1/ready", "GET", "POST"),
        ("/v1/loading/progress", "GET", "POST"),
        ("/metrics", "GET", "POST"),
        ("/v1/status", "GET", "POST"),
        ("/openapi.json", "GET", "POST"),
    ] {
        let answer = server
            .ask(format!(
                "{wrong} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.error().2, "method_not_allowed");
        assert!(
            answer
                .header("allow")
                .is_some_and(|allow| allow.contains(right)),
            "{path}"
        );
        let answer = server
            .ask(format!(
                "OPTIONS {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, 204, "{path}");
        assert!(
            answer
                .header("allow")
                .is_some_and(|allow| allow.contains(right)),
            "{path}"
        );
        assert!(answer.header("x-request-id").is_some());
    }
    for path in ["//", "/v1", "/v1/chat", "/favicon.ico"] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.status, answer.error().2.as_str()),
            (404, "unknown_url"),
            "{path}"
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    // A model's state tells since when, and its digits grow between two requests.
    server.status.send_replace(snapshot([]));
    let mut client = server.client().await;
    for path in ["/health", "/v1/models", "/v1/ready", "/openapi.json"] {
        let got = server.get(path).await;
        client
            .send(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await;
        let answer = client.answer_to("HEAD").await;
        assert_eq!(answer.status, 200, "{path}");
        for header in ["content-type", "content-length"] {
            assert_eq!(answer.header(header), got.header(header), "{path}");
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let mut settings = Settings::default();
    settings.http.body_limit_bytes = 1000;
    let server = Server::replaying(settings, || vec![text("x"), finished()]).await;
    let refused = |answer: Answer| {
        assert_eq!(answer.status, 413);
        assert_eq!(answer.error().2, "request_too_large");
    };
    refused(server.post(CHAT, vec![b' '; 1001]).await);
    refused(server.post(CHAT, vec![b' '; 3_000_000]).await);
    let mut chunked =
        format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
            .into_bytes();
    for _ in 0..20 {
        chunked.extend_from_slice(format!("64\r\n{}\r\n", " ".repeat(100)).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    refused(server.ask(chunked).await);
    // One that waits to be told to go on is told not to.
    refused(
        server
            .ask(format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5000\r\n\r\n"))
            .await,
    );
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(server.post(CHAT, format!("{body:1000}")).await.status, 200);
    server.shut_down().await;
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let mut settings = Settings::default();
    settings.http.slow_reader_timeout = Duration::from_millis(200);
    let server = Server::replaying(settings, Vec::new).await;
    let answer = server
        .ask(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{"
        ))
        .await;
    assert_eq!(
        (answer.status, answer.error().2.as_str()),
        (408, "request_timeout")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn the_content_type_does_not_matter() {
    let server = Server::replaying(Settings::default(), || vec![text("x"), finished()]).await;
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;
    for header in [
        "",
        "content-type: text/plain\r\n",
        "content-type: application/x-www-form-urlencoded\r\n",
    ] {
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{header}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(server.ask(request).await.status, 200, "{header}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_header_that_does_not_come_or_does_not_end_closes_the_connection() {
    let mut settings = Settings::default();
    settings.http.header_read_timeout = Duration::from_millis(200);
    let server = Server::replaying(settings, Vec::new).await;
    let mut slow = server.client().await;
    slow.send("GET /health HTTP/1.1\r\nhost:").await;
    assert!(slow.is_closed().await);
    let mut long = server.client().await;
    long.send(format!(
        "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "y".repeat(40_000)
    ))
    .await;
    assert_eq!(long.head().await.status, 431);
    server.shut_down().await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let mut settings = Settings::default();
    settings.http.max_connections = 2;
    let (server, mut generations) = endless(settings).await;
    let mut holders = Vec::new();
    for _ in 0..2 {
        let mut holder = server.client().await;
        holder.send(chat("")).await;
        let events = generations.recv().await.unwrap();
        holders.push((holder, events));
    }
    let mut waiting = server.client().await;
    waiting.send(get_with("host: localhost\r\n")).await;
    let early = tokio::time::timeout(Duration::from_millis(200), waiting.read_some()).await;
    assert!(early.is_err(), "both places are taken");
    holders.pop();
    assert_eq!(waiting.answer().await.status, 200);
    drop(holders);
    drop(waiting);
    server.shut_down().await;
}

#[tokio::test]
async fn requests_under_way_end_before_the_server_does() {
    let (mut server, mut generations) = endless(Settings::default()).await;
    let mut idle = server.client().await;
    idle.send(get_with("host: localhost\r\n")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut busy = server.client().await;
    busy.send(chat(r#","stream":true"#)).await;
    let events = generations.recv().await.unwrap();
    events.send(text("a")).await.unwrap();
    busy.head().await;
    server.ask_to_shut_down();
    assert!(idle.is_closed().await);
    events.send(finished()).await.unwrap();
    let mut body = Vec::new();
    loop {
        let chunk = busy.chunk().await;
        if chunk.is_empty() {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    server.shut_down().await;
}

#[tokio::test]
async fn draining_has_its_deadline() {
    let mut settings = Settings::default();
    settings.deadlines.drain = Duration::from_millis(200);
    let (server, mut generations) = endless(settings).await;
    let mut client = server.client().await;
    client.send(chat("")).await;
    let events = generations.recv().await.unwrap();
    server.shut_down().await;
    gone(&events).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn every_answer_has_an_id_of_its_own() {
    let server = Server::replaying(Settings::default(), || vec![text("x"), finished()]).await;
    let mut seen = std::collections::HashSet::new();
    let mut client = server.client().await;
    for _ in 0..200 {
        client.send(get_with("host: localhost\r\n")).await;
        let answer = client.answer().await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert!(id.starts_with("req-") && id.len() == 28, "{id}");
        assert!(seen.insert(id));
    }
    server.shut_down().await;
}
