//! What a client on a WebSocket can make the daemon hold: as much as it reads.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, PATIENCE, Setup, eventually, resident_bytes};
use crate::rpc_support::{Client, Transport, web_socket};
use serde_json::json;
use tungstenite::Message;

const MEBIBYTE: u64 = 1024 * 1024;

fn daemon() -> Daemon {
    Setup::new()
        .settings("http.slow-reader-timeout = \"2s\"")
        .start()
}

/// A connection that became a WebSocket, without anything that would read for it.
fn raw_web_socket(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let (status, head) = handshake(&mut stream, "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(status, 101, "{head}");
    stream
}

fn handshake(stream: &mut TcpStream, key: &str) -> (u16, String) {
    let request = format!(
        "GET /rpc/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a header in time");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), head)
}

/// A frame with a mask of zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short payload");
    assert!(length < 126);
    let mut bytes = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

/// Sends the frame again and again until the daemon ends the connection. What it throws away while
/// it does that counts for nothing.
fn flood(daemon: &Daemon, stream: &mut TcpStream, frame: &[u8]) {
    let block = frame.repeat(64 * 1024 / frame.len());
    let before = resident_bytes(daemon.pid());
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "the connection does not end");
        match stream.write(&block) {
            Ok(_) => grows_little(daemon, before, "a flood"),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let is_over = matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                );
                assert!(is_over, "{error}");
                return;
            }
        }
    }
}

fn grows_little(daemon: &Daemon, before: u64, what: &str) {
    let after = resident_bytes(daemon.pid());
    assert!(
        after < before + 24 * MEBIBYTE,
        "{what}: {before} bytes became {after}"
    );
}

#[test]
fn pings_without_reading_are_not_taken_and_end_the_connection() {
    let daemon = daemon();
    let before = resident_bytes(daemon.pid());
    let mut clients: Vec<_> = (0..4).map(|_| raw_web_socket(&daemon)).collect();
    for client in &mut clients {
        flood(&daemon, client, &frame(9, &[b'p'; 125]));
        grows_little(&daemon, before, "pings");
    }
    assert_eq!(daemon.get("/health").status, 200);
}

#[test]
fn pings_of_a_client_that_reads_are_all_answered() {
    let daemon = daemon();
    let mut socket = web_socket(daemon.address);
    for number in 0..1000_u32 {
        socket
            .send(Message::Ping(number.to_le_bytes().to_vec().into()))
            .expect("it is sent");
        let pong = socket.read().expect("an answer");
        assert_eq!(pong, Message::Pong(number.to_le_bytes().to_vec().into()));
    }
}

#[test]
fn calls_whose_answers_are_not_read_are_not_taken() {
    let daemon = daemon();
    // What describes the methods is made once.
    let mut other = Client::connect(Transport::WebSocket, daemon.address, daemon.folder());
    other.call("rpc.discover", json!({})).expect("an answer");
    let before = resident_bytes(daemon.pid());
    let mut client = raw_web_socket(&daemon);
    let call = br#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#;
    flood(&daemon, &mut client, &frame(1, call));
    grows_little(&daemon, before, "calls");
}

/// The answers of a batch are many times its size.
#[test]
fn answers_that_wait_have_the_bound_of_all_requests() {
    let daemon = Setup::new()
        .settings("memory.requests-limit-bytes = 33554432\nhttp.slow-reader-timeout = \"2m\"")
        .start();
    // What describes the methods is made once.
    let mut other = Client::connect(Transport::WebSocket, daemon.address, daemon.folder());
    other.call("rpc.discover", json!({})).expect("an answer");
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#;
    let batch = format!("[{}]", vec![call; 64].join(","));
    let length = u16::try_from(batch.len()).expect("a short batch");
    let mut message = vec![0x81, 0xfe];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(batch.as_bytes());
    let before = resident_bytes(daemon.pid());
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = raw_web_socket(&daemon);
            client.write_all(&message.repeat(8)).expect("it is sent");
            client
        })
        .collect();
    let bound = before + 40 * MEBIBYTE;
    // None of the four may have all of its answers made: each is refused something, at the latest its
    // next message, behind which the daemon does not listen to it.
    eventually("refusals for want of memory", || {
        let now = resident_bytes(daemon.pid());
        assert!(now < bound, "{before} bytes became {now}");
        (refusals(&daemon) >= 4).then_some(())
    });
    drop(clients);
    eventually("the memory's return", || {
        (other.call("rpc.discover", json!({})).is_ok()).then_some(())
    });
}

fn refusals(daemon: &Daemon) -> u64 {
    let page = daemon.get("/metrics").body;
    let mut lines = page.lines();
    let name = "rkllmd_requests_memory_refusals_total ";
    let count = lines.find_map(|line| line.strip_prefix(name));
    count.expect("the metric").parse().expect("a number")
}

#[test]
fn a_client_that_leaves_its_answers_unread_ends_its_connection_and_nothing_else() {
    let daemon = daemon();
    let call = frame(1, br#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#);
    for _ in 0..10 {
        let mut client = raw_web_socket(&daemon);
        rustix::net::sockopt::set_socket_recv_buffer_size(&client, 4096).expect("a small buffer");
        client.write_all(&call.repeat(200)).expect("calls are sent");
        let mut first = [0; 2];
        client.read_exact(&mut first).expect("answers come");
        // What was not read makes this a reset.
        drop(client);
    }
    // Later ones are served, so the earlier ones were seen.
    eventually("the end of the connections", || {
        let mut client = Client::connect(Transport::WebSocket, daemon.address, daemon.folder());
        client.call("rpc.discover", json!({})).ok()
    });
    eventually("no socket but this one's", || {
        let sockets = crate::daemon_support::descriptors(daemon.pid());
        let open = sockets.iter().filter(|(_, it)| it.starts_with("socket:"));
        (open.count() < 10).then_some(())
    });
    for line in daemon.log.lines() {
        assert!(
            !line.contains("panicked") && !line.contains("task failed"),
            "{line}"
        );
    }
}

#[test]
fn a_message_comes_whole_in_however_many_frames_it_was_sent() {
    let daemon = daemon();
    let mut socket = web_socket(daemon.address);
    socket
        .send(Message::text(
            r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#,
        ))
        .expect("it is sent");
    let answer = socket.read().expect("an answer");
    let text = answer.to_text().expect("text");
    assert!(text.len() > 32 * 1024 && text.ends_with('}'), "{text}");
}

#[test]
fn a_handshake_without_a_proper_key_is_refused_as_an_error_of_json_rpc() {
    let daemon = daemon();
    for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ==="] {
        let mut stream = TcpStream::connect(daemon.address).expect("the daemon accepts");
        let (status, head) = handshake(&mut stream, key);
        assert_eq!(status, 400, "{key}: {head}");
        assert!(head.contains("application/json"), "{head}");
    }
    let answer = daemon.get("/rpc/ws");
    assert_eq!(answer.status, 426);
    let told = ["upgrade", "sec-websocket-version"].map(|name| answer.header(name));
    assert_eq!(
        told,
        [Some("websocket"), Some("13")],
        "RFC 9110, section 15.5.22"
    );
    assert_eq!(answer.json()["error"]["code"], -32600);
}

#[test]
fn slow_connections_are_let_go_in_time() {
    let daemon = daemon();
    let mut client = raw_web_socket(&daemon);
    flood(&daemon, &mut client, &frame(9, b"x"));
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    // What was answered before is still there, and then an end.
    let mut rest = Vec::new();
    let end = client.read_to_end(&mut rest);
    assert!(
        end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "the connection is still open"
    );
}

/// A message of which all but the end has come is in memory.
#[test]
fn messages_that_arrive_have_the_bound_of_all_requests() {
    let daemon = Setup::new()
        .settings("memory.requests-limit-bytes = 67108864")
        .start();
    let before = resident_bytes(daemon.pid());
    let begun: Vec<_> = (0..24)
        .map(|_| {
            let mut client = raw_web_socket(&daemon);
            let mut message = vec![0x81, 0xff];
            message.extend_from_slice(&(8_u64 << 20).to_be_bytes());
            message.extend_from_slice(&[0; 4]);
            message.resize(7 << 20, b' ');
            // The daemon may close it before it is sent.
            let _ = client.write_all(&message);
            client
        })
        .collect();
    eventually("the refusal of those that do not fit", || {
        (refusals(&daemon) >= 20).then_some(())
    });
    let after = resident_bytes(daemon.pid());
    assert!(
        after < before + 56 * MEBIBYTE,
        "{before} bytes became {after}"
    );
    assert_eq!(daemon.get("/health").status, 200);
    drop(begun);
}
