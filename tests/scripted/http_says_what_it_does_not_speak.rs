//! What of HTTP/1.1 the daemon does not do has an answer that says so.

use crate::http_support::*;
use rkllmd::settings::Settings;

#[tokio::test]
async fn what_all_paths_allow_is_told() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    let answer = server
        .ask("OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, DELETE"));
    let answer = server
        .ask("OPTIONS * HTTP/1.1\r\nhost: evil.example\r\n\r\n")
        .await;
    assert_eq!(
        (answer.status, answer.error().2.as_str()),
        (403, "host_not_allowed")
    );
    let answer = server
        .ask("GET * HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    assert_eq!(
        (answer.status, answer.error().2.as_str()),
        (404, "unknown_url")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_body_in_another_transfer_coding_is_refused() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    for path in [CHAT, "/api/chat", "/v1/messages"] {
        for coding in [
            "gzip, chunked",
            "identity, chunked",
            "chunked, chunked",
            "gzip\r\ntransfer-encoding: chunked",
        ] {
            let answer = server
                .ask(format!(
                    "POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: {coding}\r\n\r\n\
                     2\r\n{{}}\r\n0\r\n\r\n"
                ))
                .await;
            let body = answer.json();
            let code = match path {
                "/api/chat" => &body["code"],
                _ => &body["error"]["code"],
            };
            assert_eq!(
                (answer.status, code),
                (400, &"invalid_http".into()),
                "{body}"
            );
            assert!(answer.text().contains("`chunked`"), "{body}");
        }
        // What does not end with it has no end.
        for coding in ["gzip", "identity"] {
            let answer = server
                .ask(format!(
                    "POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: {coding}\r\n\r\n{{}}"
                ))
                .await;
            assert_eq!(answer.status, 400, "{path} {coding}");
            assert!(!answer.text().is_empty(), "{path} {coding}");
        }
    }
    server.shut_down().await;
}
