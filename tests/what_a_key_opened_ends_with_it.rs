//! A connection that outlives its request is held to the keys too: it ends with the key that opened
//! it, and one that needed none ends when there are keys. What outlives its connection is not another
//! key's, whatever that is called.

mod daemon_support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use daemon_support::{PATIENCE, Setup, chat};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

const DISCOVER: &str = r#"{"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"}"#;

/// Changes the keys in `folder` with the program itself.
fn keys(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .arg("keys")
        .args(arguments)
        .args(["--config", "/dev/null"])
        .env("RKLLMD_HTTP__KEYS_FILE", folder.join("keys.toml"))
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let key = String::from_utf8(output.stdout).expect("UTF-8");
    key.trim().to_owned()
}

fn open(address: SocketAddr, key: Option<&str>) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(address).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut request = format!("ws://{address}/rpc/ws")
        .into_client_request()
        .expect("a request");
    if let Some(key) = key {
        let value = format!("Bearer {key}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    let (socket, _) = tungstenite::client(request, stream).expect("a handshake");
    socket
}

/// Whether a call is answered; `false` when the daemon closes the connection instead.
fn is_served(socket: &mut WebSocket<TcpStream>) -> bool {
    if socket.send(Message::text(DISCOVER)).is_err() {
        return false;
    }
    loop {
        match socket.read() {
            Ok(Message::Text(_)) => return true,
            Ok(Message::Close(_)) => return false,
            Ok(_) => {}
            Err(error) => panic!("neither an answer nor a close frame: {error}"),
        }
    }
}

/// Waits for the daemon's close frame.
fn is_closed(socket: &mut WebSocket<TcpStream>) -> bool {
    // The limit of a read is PATIENCE, which is an error and no close frame.
    matches!(socket.read(), Ok(Message::Close(Some(_))))
}

#[test]
fn it_ends_with_its_key_and_no_other_one_does() {
    let setup = Setup::new();
    let own = keys(setup.folder(), &["add", "own"]);
    let other = keys(setup.folder(), &["add", "other"]);
    let daemon = setup.start();
    let mut revoked = open(daemon.address, Some(&own));
    let mut kept = open(daemon.address, Some(&other));
    assert!(is_served(&mut revoked) && is_served(&mut kept));

    keys(daemon.folder(), &["revoke", "own"]);
    assert!(is_closed(&mut revoked));
    assert!(is_served(&mut kept));

    // Another key of that name is another key.
    let new = keys(daemon.folder(), &["add", "own"]);
    daemon.log.wait_for("keys=2");
    let mut renewed = open(daemon.address, Some(&new));
    assert!(is_served(&mut renewed) && is_served(&mut kept));
}

#[test]
fn one_that_needed_no_key_ends_when_there_are_keys() {
    let daemon = Setup::new().scenario("m", "tokens = [\"fine\"]\n").start();
    let mut trusted = open(daemon.address, None);
    assert!(is_served(&mut trusted));
    let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.content(), "fine");
    keys(daemon.folder(), &["add", "one"]);
    assert!(is_closed(&mut trusted));
}

#[test]
fn where_no_key_is_asked_for_it_stays() {
    let setup = Setup::new().settings("http.auth = 'none'");
    keys(setup.folder(), &["add", "one"]);
    let daemon = setup.start();
    let mut open_to_all = open(daemon.address, None);
    keys(daemon.folder(), &["revoke", "one"]);
    daemon.log.wait_for("keys=0");
    assert!(is_served(&mut open_to_all));
}

/// A call over plain HTTP.
fn call(address: SocketAddr, key: &str, method: &str, params: Value) -> Value {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let mut stream = TcpStream::connect(address).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!(
        "POST /rpc HTTP/1.0\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n",
        call.len()
    );
    stream.write_all(head.as_bytes()).expect("the daemon reads");
    stream.write_all(call.as_bytes()).expect("the daemon reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a header");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
fn a_handle_is_not_the_next_keys_of_that_name() {
    let setup = Setup::new().scenario("m", "tokens = [\"fine\"]\n");
    let old = keys(setup.folder(), &["add", "own"]);
    let daemon = setup.start();
    let address = daemon.address;
    let made = call(
        address,
        &old,
        "rkllm.init",
        json!({"model_path": "m", "param": {}}),
    );
    let handle = &made["result"]["handle"];
    assert!(handle.is_string(), "{made}");
    let running = json!({"handle": handle});
    let asked = call(address, &old, "rkllm.is_running", running.clone());
    assert!(asked.get("result").is_some(), "{asked}");

    keys(daemon.folder(), &["revoke", "own"]);
    daemon.log.wait_for("keys=0");
    let new = keys(daemon.folder(), &["add", "own"]);
    daemon.log.wait_for("keys=1");
    let asked = call(address, &new, "rkllm.is_running", running);
    assert_eq!(asked["error"]["data"]["code"], "unknown_handle", "{asked}");
}
