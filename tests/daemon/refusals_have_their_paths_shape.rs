//! Whatever is refused before a handler sees it has a body: JSON-RPC's on JSON-RPC's paths, Ollama's on
//! Ollama's, Anthropic's on Anthropic's, OpenAI's elsewhere. A client without a key reads no path of the machine and no line of the runtime.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::daemon_support::{PATIENCE, Setup, keys};
use serde_json::Value;

/// Sends bytes as they are; gives the status, the header and the body.
fn raw(address: SocketAddr, request: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(address).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // It may be refused before it is read whole.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    (status.expect("a status"), head.to_ascii_lowercase(), body)
}

fn check_shape(path: &str, body: &Value) {
    let message = match path.starts_with("/rpc") {
        true => {
            assert_eq!(
                (&body["jsonrpc"], &body["id"]),
                (&"2.0".into(), &Value::Null),
                "{body}"
            );
            assert!(body["error"]["code"].is_i64(), "{body}");
            &body["error"]["message"]
        }
        false if path.starts_with("/api/") => {
            assert!(body["code"].is_string(), "{body}");
            &body["error"]
        }
        false => {
            assert!(body["error"]["code"].is_string(), "{body}");
            let is_anthropics = path.starts_with("/v1/messages");
            assert_eq!(body["type"] == "error", is_anthropics, "{body}");
            &body["error"]["message"]
        }
    };
    assert!(
        message.as_str().is_some_and(|message| message.len() > 10),
        "{body}"
    );
}

const PATHS: [&str; 10] = [
    "/rpc",
    "/rpc/ws",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/responses",
    "/api/chat",
    "/api/nothing",
    "/metrics",
    "/nothing",
];

#[test]
fn what_is_refused_before_its_handler_has_a_body() {
    let daemon = Setup::new().scenario("m", "").start();
    for path in PATHS {
        let ask = |line: &str, fields: &str| {
            let request = format!("{line}\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n");
            raw(daemon.address, &request)
        };
        if !path.ends_with("/nothing") {
            let (status, head, body) = ask(&format!("PATCH {path} HTTP/1.1"), "");
            assert_eq!(status, 405, "{path}: {body}");
            assert!(head.contains("\r\nallow: "), "{head}");
            check_shape(path, &body);
        }
        let get = format!("GET {path} HTTP/1.1");
        let (status, _, body) = ask(&get, "origin: http://evil.example\r\n");
        assert_eq!(status, 403, "{path}: {body}");
        check_shape(path, &body);
        for (line, fields, expected) in [
            (get.clone(), "x : 1\r\n".to_owned(), 400),
            (format!("GET {path} HTTP/3.0"), String::new(), 505),
            (
                format!("GET {path}?{} HTTP/1.1", "a".repeat(70_000)),
                String::new(),
                414,
            ),
            (get.clone(), format!("x: {}\r\n", "a".repeat(40_000)), 431),
            (get.clone(), "x: 1\r\n".repeat(150), 431),
            (
                get.clone(),
                "content-length: 18446744073709551615\r\n".to_owned(),
                413,
            ),
            (get.clone(), "content-length: many\r\n".to_owned(), 400),
        ] {
            let (status, head, body) = ask(&line, &fields);
            assert_eq!(status, expected, "{path}: {head} {body}");
            assert!(head.contains("application/json"), "{head}");
            check_shape(path, &body);
        }
    }
}

#[test]
fn a_second_request_is_answered_in_the_shape_of_its_own_path() {
    let daemon = Setup::new().scenario("m", "").start();
    let mut stream = TcpStream::connect(daemon.address).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .expect("sent");
    let mut first = [0; 8];
    stream.read_exact(&mut first).expect("the first answer");
    stream
        .write_all(b"GET /rpc HTTP/1.1\r\nx : 1\r\n\r\n")
        .expect("sent");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the second answer");
    assert!(
        rest.contains("HTTP/1.1 400 ") && rest.contains("\"jsonrpc\""),
        "{rest}"
    );
}

#[test]
fn a_model_that_cannot_be_named_does_not_exist() {
    let daemon = Setup::new().scenario("m", "").start();
    for name in ["%ff", "%00", "a%2fb", "%e2%82", "no%20such"] {
        let answer = daemon.get(&format!("/v1/models/{name}"));
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (404, "model_not_found"),
            "{name}"
        );
        assert_eq!(answer.json()["error"]["param"], "model");
    }
}

#[test]
fn without_a_key_no_client_reads_paths_or_the_runtimes_lines() {
    let setup = Setup::new().scenario("m", "no-such-key = 1\n");
    let models = setup.models().display().to_string();
    let daemon = setup.start();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let post = |fields: &str| {
        raw(
            daemon.address,
            &format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                 {fields}content-length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    };
    let get = |path: &str, fields: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n");
        raw(daemon.address, &request)
    };
    let is_told = |said: &str| said.contains("E rkllm") || said.contains("no-such-key");
    let (status, _, refused) = post("");
    assert_eq!(status, 503, "{refused}");
    let (status, _, ready) = get("/v1/ready", "");
    assert_eq!(status, 503, "{ready}");
    let (_, _, listed) = get("/v1/models", "");
    for shown in [&refused, &ready, &listed] {
        let shown = shown.to_string();
        assert!(!is_told(&shown) && !shown.contains(&models), "{shown}");
        assert!(
            shown.contains("log"),
            "it says where the reason is: {shown}"
        );
    }
    let key = format!(
        "authorization: Bearer {}\r\n",
        keys(daemon.folder(), "add someone")
    );
    crate::daemon_support::eventually("keys being asked for", || (post("").0 == 401).then_some(()));
    let (status, _, refused) = post(&key);
    assert_eq!(status, 503, "{refused}");
    let (_, _, ready) = get("/v1/ready", &key);
    for shown in [refused, ready] {
        assert!(is_told(&shown.to_string()), "{shown}");
    }
    // Keys are asked for now, and probes have none.
    let (status, _, ready) = get("/v1/ready", "");
    assert_eq!(status, 503, "{ready}");
    assert!(!is_told(&ready.to_string()), "{ready}");
}
