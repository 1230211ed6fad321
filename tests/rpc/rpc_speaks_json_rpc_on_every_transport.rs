//! The protocol as a client meets it: batches, notifications, limits and refusals, on the Unix socket,
//! over HTTP and over a WebSocket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use crate::daemon_support::{PATIENCE, Setup};
use crate::rpc_support::served::Served;
use crate::rpc_support::{Client, TRANSPORTS, Transport, post, raw_post};
use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

fn served(settings: &str) -> Served {
    Served::start(Setup::new().settings(settings))
}

const DISCOVER: &str = r#"{"jsonrpc":"2.0","method":"rpc.discover","id":1}"#;

#[test]
fn every_transport_answers_the_same() {
    let server = served("");
    let mut documents = Vec::new();
    for transport in TRANSPORTS {
        let mut client = server.client(transport);
        documents.push(client.call("rpc.discover", json!({})).unwrap());
        documents.push(client.call("rpc.discover", json!([])).unwrap());
        let missing = client.call("rkllm.nope", json!({})).unwrap_err();
        assert_eq!((missing.code, missing.name()), (-32601, "method_not_found"));
        let wrong = client.call("rkllm.init", json!({"param": {}})).unwrap_err();
        assert_eq!((wrong.code, wrong.name()), (-32602, "invalid_params"));
        let wrong = client.call("rkllm.init", json!([1])).unwrap_err();
        assert_eq!(wrong.data["param"], "model_path", "{transport:?}");
        let unknown = client.call("rkllm.init", json!(["nope"])).unwrap_err();
        assert_eq!((unknown.code, unknown.name()), (-32003, "unknown_model"));
        let foreign = client.call("rkllm.destroy", json!(["00"])).unwrap_err();
        assert_eq!((foreign.code, foreign.name()), (-32002, "unknown_handle"));
    }
    for document in &documents {
        assert_eq!(document, &documents[0]);
    }
}

#[test]
fn batches_and_notifications_are_answered_as_the_specification_says() {
    let server = served("rpc.batch-limit = 4");
    let batch = r#"[{"jsonrpc":"2.0","method":"rkllm.nope","id":"a"},
        {"jsonrpc":"2.0","method":"rkllm.nope"},
        7,
        {"jsonrpc":"2.0","method":"rkllm.nope","id":null}]"#
        .replace('\n', " ");
    for transport in TRANSPORTS {
        let mut client = server.client(transport);
        client.send_text(&batch);
        let answers = client.wait_for(Value::is_array);
        let ids: Vec<Value> = answers
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["id"].clone())
            .collect();
        assert_eq!(ids, [json!("a"), Value::Null, Value::Null], "{transport:?}");
        let codes: Vec<i64> = answers
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["error"]["code"].as_i64().unwrap())
            .collect();
        assert_eq!(codes, [-32601, -32600, -32601], "{transport:?}");

        for (text, code) in [
            ("[]".to_owned(), -32600),
            ("{".to_owned(), -32700),
            (format!("[{}]", ["1"; 5].join(",")), -32600),
        ] {
            client.send_text(&text);
            let answer = client.wait_for(Value::is_object);
            assert_eq!(answer["error"]["code"], code, "{transport:?} {text}");
            assert_eq!(answer["id"], Value::Null);
        }
        // A notification alone is not answered: the next answer is the next call's.
        client.send_text(r#"{"jsonrpc":"2.0","method":"rkllm.nope"}"#);
        client.send_text(r#"[{"jsonrpc":"2.0","method":"rkllm.nope"}]"#);
        client.send_text(DISCOVER);
        let answer = client.wait_for(|_| true);
        assert_eq!(answer["id"], 1, "{transport:?}");
    }
    let notification = r#"{"jsonrpc":"2.0","method":"rkllm.nope"}"#;
    assert_eq!(
        post(server.daemon.address, notification, false),
        (204, String::new())
    );
}

#[test]
fn a_message_that_is_too_long_is_refused_and_ends_its_connection() {
    let server = served("rpc.message-limit-bytes = 2048");
    let long = format!(
        r#"{{"jsonrpc":"2.0","method":"{}","id":1}}"#,
        "x".repeat(4096)
    );

    let mut client = server.client(Transport::Unix);
    client.send_text(&long);
    let answer = client.read().unwrap();
    assert_eq!(answer["error"]["code"], -32600);
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("2048")
    );
    assert_eq!(client.read(), None);

    let mut client = server.client(Transport::WebSocket);
    client.send_text(&long);
    assert_eq!(close_code(&mut client), (1009, Some(-32600)));

    let (status, body) = post(server.daemon.address, &long, false);
    assert_eq!(status, 413);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["error"]["code"], -32600);

    let fits = server
        .client(Transport::Unix)
        .call("rpc.discover", json!({}));
    assert!(fits.is_ok());
}

/// The code of the close frame, and the error of the message before it.
fn close_code(client: &mut Client) -> (u16, Option<i64>) {
    let mut error = None;
    loop {
        match client.web_socket().read() {
            Ok(Message::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                error = message["error"]["code"].as_i64();
            }
            Ok(Message::Close(frame)) => return (frame.expect("a reason").code.into(), error),
            Ok(_) => {}
            Err(error) => panic!("closed without a frame: {error}"),
        }
    }
}

#[test]
fn a_binary_message_is_refused_with_its_close_code() {
    let server = served("");
    let mut client = server.client(Transport::WebSocket);
    client
        .web_socket()
        .send(Message::binary(b"{}".to_vec()))
        .unwrap();
    assert_eq!(close_code(&mut client), (1003, Some(-32600)));
}

#[test]
fn a_daemon_that_shuts_down_says_goodbye() {
    let server = served("");
    let mut client = server.client(Transport::WebSocket);
    assert!(client.call("rpc.discover", json!({})).is_ok());
    server.daemon.signal(Signal::TERM);
    assert_eq!(close_code(&mut client), (1001, None));
    assert!(server.daemon.wait().success());
}

#[test]
fn a_websocket_counts_as_a_connection_until_it_ends() {
    let server = served("http.max-connections = 1");
    let mut client = server.client(Transport::WebSocket);
    assert!(client.call("rpc.discover", json!({})).is_ok());
    let mut second = TcpStream::connect(server.daemon.address).unwrap();
    second
        .write_all(b"GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .unwrap();
    second
        .set_read_timeout(Some(std::time::Duration::from_millis(200)))
        .unwrap();
    assert!(second.read(&mut [0]).is_err(), "it waits in the backlog");
    drop(client);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap(), 1);
}

#[test]
fn a_ping_is_answered_and_silence_is_broken_by_one() {
    let server = served("http.keep-alive = \"100ms\"");
    let mut client = server.client(Transport::WebSocket);
    client
        .web_socket()
        .send(Message::Ping(b"hello".to_vec().into()))
        .unwrap();
    let (mut pinged, mut ponged) = (false, false);
    while !(pinged && ponged) {
        match client.web_socket().read().unwrap() {
            Message::Pong(payload) => {
                assert_eq!(&payload[..], b"hello");
                ponged = true;
            }
            Message::Ping(_) => pinged = true,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_browsers_page_of_another_host_is_refused() {
    let server = served("http.allowed-hosts = [\"*\"]\n");
    let address = server.daemon.address;
    // Every name is allowed, so every origin is.
    assert_eq!(
        raw_post(address, DISCOVER, &[("origin", "http://evil.example")]).0,
        200
    );
    let server = served("");
    let address = server.daemon.address;
    let (status, _, body) = raw_post(address, DISCOVER, &[("origin", "http://localhost:1")]);
    assert_eq!(status, 403, "{body}");
    assert_eq!(
        raw_post(address, DISCOVER, &[("origin", "http://localhost")]).0,
        200
    );
    let handshake = "GET /rpc/ws HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost:1\r\n\
        connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(handshake.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.contains("403"), "{line}");
}

#[test]
fn the_http_side_can_be_switched_off() {
    let server = served("rpc.http = false");
    assert_eq!(post(server.daemon.address, DISCOVER, false).0, 404);
    assert!(
        server
            .client(Transport::Unix)
            .call("rpc.discover", json!({}))
            .is_ok()
    );
}

#[test]
fn the_socket_has_its_permissions_replaces_a_dead_one_and_goes_with_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("rpc.sock");
    // What a killed daemon leaves behind.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let root = rustix::process::geteuid().is_root();
    let own_group = rustix::process::getegid().as_raw();
    let group = if root { 54321 } else { own_group };
    let setup = || {
        Setup::new().settings(&format!(
            "rpc.unix-socket = {:?}\nrpc.unix-socket-mode = \"0600\"\n\
             rpc.unix-socket-group = \"{group}\"",
            socket.display().to_string()
        ))
    };
    let daemon = setup().start();
    let metadata = std::fs::symlink_metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), group);
    let mut client = Client::connect(Transport::Unix, daemon.address, &socket);
    assert!(client.call("rpc.discover", json!({})).is_ok());

    // A second daemon must not take the socket of a living one.
    let second = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["serve", "--listen", "127.0.0.1:0", "--models"])
        .arg(folder.path())
        .env("RKLLMD_RPC__UNIX_SOCKET", &socket)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another process serves it"), "{said}");
    assert!(client.call("rpc.discover", json!({})).is_ok());

    daemon.signal(Signal::TERM);
    assert_eq!(client.read(), None);
    assert!(daemon.wait().success());
    assert!(!socket.exists());
}

#[test]
fn connections_and_calls_in_progress_are_bounded() {
    let server = served("rpc.max-connections = 2");
    let first = server.client(Transport::Unix);
    let mut second = server.client(Transport::Unix);
    assert!(second.call("rpc.discover", json!({})).is_ok());
    let mut third = UnixStream::connect(&server.socket).unwrap();
    third.write_all(format!("{DISCOVER}\n").as_bytes()).unwrap();
    third
        .set_read_timeout(Some(std::time::Duration::from_millis(200)))
        .unwrap();
    assert!(third.read(&mut [0]).is_err(), "it waits in the backlog");
    drop(first);
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap(), 1);
}

/// `rpc.discover` is what the daemon really answers to, and a valid document of its kind.
#[test]
fn the_openrpc_document_describes_every_method() {
    let server = served("");
    let document = server
        .client(Transport::Http)
        .call("rpc.discover", json!({}))
        .unwrap();
    assert!(document["openrpc"].as_str().unwrap().starts_with("1.3"));
    let methods = document["methods"].as_array().unwrap();
    assert_eq!(methods.len(), 16);
    let mut client = server.client(Transport::Unix);
    for method in methods {
        let name = method["name"].as_str().unwrap();
        for param in method["params"].as_array().unwrap() {
            assert!(param["schema"].is_object(), "{name}");
        }
        for reference in references(method) {
            let Some(path) = reference.strip_prefix('#') else {
                continue;
            };
            assert!(
                document.pointer(path).is_some(),
                "{name} refers to {reference}"
            );
        }
        // It exists: it does not answer that there is no such method.
        if let Err(failure) = client.call(name, json!({"surely": "unknown"})) {
            assert_eq!(failure.code, -32602, "{name}: {failure:?}");
        }
    }
    for reference in references(&document["components"]) {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(reference)) => vec![reference.clone()],
                _ => references(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
