//! The Unix socket is a listener like the others: it streams, and a client that leaves frees its place. Its file is
//! the daemon's, which leaves others' alone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::daemon_support::{Setup, chat};
use crate::doors::{doors, setup};
use rustix::process::Signal;
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
        .set_read_timeout(Some(crate::daemon_support::PATIENCE))
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

#[test]
fn the_unix_socket_has_its_permissions_and_is_removed_at_the_end() {
    let setup = setup();
    let socket = setup.folder().join("http.sock");
    let mut lines = format!("http.unix-socket = '{}'\n", socket.display());
    lines.push_str("http.unix-socket-mode = '0606'\n");
    let root = rustix::process::geteuid().is_root();
    let own_group = rustix::process::getegid().as_raw();
    let group = if root { 54321 } else { own_group };
    lines.push_str(&format!("http.unix-socket-group = '{group}'\n"));
    let setup = setup.settings(&lines);
    // What a daemon that was killed leaves.
    drop(UnixListener::bind(&socket).unwrap());
    let daemon = setup.start();
    let door = &doors(&daemon, 2)[1];
    assert_eq!(door.get("/health", None).status, 200);
    let file = fs::symlink_metadata(&socket).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o606);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&file), group);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(!socket.exists());
}

#[test]
fn a_unix_socket_of_another_process_and_other_files_are_left_alone() {
    let setup = setup();
    let socket = setup.folder().join("http.sock");
    let setup = setup.settings(&format!("http.unix-socket = '{}'", socket.display()));
    let refused = |text: &str| {
        let output = setup.command().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(text) && log.contains("http.sock"), "{log}");
    };
    let other = UnixListener::bind(&socket).unwrap();
    refused("another process serves it");
    assert!(UnixStream::connect(&socket).is_ok());
    drop(other);
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "precious").unwrap();
    refused("is no socket");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}
