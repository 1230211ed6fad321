//! A body that is compressed on its way is read like a plain one, within the same limit; a coding that
//! is not known is said to be that, not bad JSON.

use std::io::Write;

use crate::http_support::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use rkllmd::settings::Settings;

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn coded(path: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: {coding}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const PLAIN: [(&str, &str); 3] = [
    (
        CHAT,
        r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#,
    ),
    (TEXT, r#"{"model":"raw","prompt":"once"}"#),
    (
        "/rpc",
        r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#,
    ),
];

async fn server() -> Server {
    let mut settings = Settings::default();
    settings.http.body_limit_bytes = 4096;
    settings.rpc.message_limit_bytes = 4096;
    Server::replaying(settings, || vec![started(&[]), text("x"), finished()]).await
}

#[tokio::test]
async fn gzip_is_read_on_every_path() {
    let server = server().await;
    for (path, body) in PLAIN {
        for coding in ["gzip", "x-gzip", "GZIP", "identity, gzip"] {
            let answer = server.ask(coded(path, coding, &gzip(body))).await;
            assert_eq!(answer.status, 200, "{path} {coding}: {}", answer.text());
        }
        let answer = server.ask(coded(path, "identity", body.as_bytes())).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    server.shut_down().await;
}

#[tokio::test]
async fn other_codings_are_refused_with_those_that_are_read() {
    let server = server().await;
    for (path, body) in PLAIN {
        for coding in ["br", "deflate", "zstd", "gzip, gzip"] {
            let answer = server.ask(coded(path, coding, body.as_bytes())).await;
            assert_eq!(answer.status, 415, "{path} {coding}: {}", answer.text());
            assert_eq!(answer.header("accept-encoding"), Some("gzip, identity"));
            assert!(answer.text().contains(coding), "{}", answer.text());
            assert!(answer.json()["error"].is_object(), "{}", answer.text());
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn the_limit_holds_for_what_is_decoded() {
    let server = server().await;
    let blank = " ".repeat(64 << 20);
    for (path, body) in PLAIN {
        let answer = server
            .ask(coded(path, "gzip", &gzip(&format!("{body}{blank}"))))
            .await;
        assert_eq!(answer.status, 413, "{path}: {}", answer.text());
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_body_that_is_not_what_its_coding_says_is_the_clients_fault() {
    let server = server().await;
    for (path, body) in PLAIN {
        let whole = gzip(body);
        for bad in [body.as_bytes(), &whole[..whole.len() - 4]] {
            let answer = server.ask(coded(path, "gzip", bad)).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
            assert!(
                answer.text().contains("content-encoding"),
                "{}",
                answer.text()
            );
        }
    }
    server.shut_down().await;
}
