//! The Unix socket is a listener like the others: it streams, and a client that leaves frees its place.

mod daemon_support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use daemon_support::{Setup, chat};
use serde_json::json;

#[test]
fn a_stream_arrives_and_a_client_that_leaves_frees_the_worker() {
    let setup = Setup::new().scenario(
        "m",
        "repeat = { token = 'la ', times = 1000000 }\ntoken-delay-us = 1000\n",
    );
    let socket = setup.folder().join("http.sock");
    let daemon = setup
        .settings(&format!("http.unix-socket = '{}'", socket.display()))
        .start();
    daemon.log.wait_for("listening address=unix:");

    let mut client = UnixStream::connect(&socket).unwrap();
    client
        .set_read_timeout(Some(daemon_support::PATIENCE))
        .unwrap();
    let body = chat("m", "sing", json!({"stream": true})).to_string();
    write!(
        client,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\
         content-type: application/json\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains(" 200 "));
    let sung = lines
        .map(Result::unwrap)
        .filter(|line| line.contains("la "));
    assert_eq!(sung.take(3).count(), 3);
    assert_eq!(daemon.phase("m"), "running");

    // Both descriptors of this end are gone after this.
    drop(client);
    daemon.wait_for_phase("m", "ready");
    let line = daemon.log.wait_for("client went away");
    assert!(line.contains("uid "), "{line}");
}
