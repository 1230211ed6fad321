//! What an administrator may do is decided when it is done: a key that is revoked, bound to models or no admin's any
//! more counts as it is then.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::daemon_support::{Daemon, Setup, keys};
use crate::doors::{Answer, Door, bearer, doors, setup};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

const KEYS: &str = "/v1/admin/keys";
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn revoke(door: &Door, key: &str, name: &str) -> Answer {
    door.ask("DELETE", &format!("{KEYS}/{name}"), &bearer(Some(key)), "")
}

fn names(door: &Door, admin: &str) -> Vec<String> {
    let listed = door.get(KEYS, Some(admin)).json();
    let listed = listed["keys"].as_array().expect("keys").iter();
    listed
        .map(|key| key["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// A request of which what is given here is sent.
fn begin(daemon: &Daemon, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&read).contains(text) {
        stream.read_exact(&mut byte).expect("more");
        read.extend(byte);
    }
    String::from_utf8(read).expect("text")
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an end");
    rest
}

#[test]
fn who_is_revoked_while_the_body_is_on_its_way_makes_no_key() {
    let setup = setup();
    let admin = keys(setup.folder(), "add admin --role admin");
    let other = keys(setup.folder(), "add other --role admin");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    let body = json!({"name": "late", "role": "admin"}).to_string();
    let head = format!(
        "POST {KEYS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}expect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        bearer(Some(&other)),
        body.len()
    );
    let mut late = begin(&daemon, &head);
    // It is let in, and its body is waited for.
    let goes_on = read_until(&mut late, "\r\n\r\n");
    assert!(goes_on.starts_with("HTTP/1.1 100"), "{goes_on}");
    let revoked = revoke(door, &admin, "other");
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    late.write_all(body.as_bytes()).expect("sent");
    let answer = read_to_end(late);
    assert!(
        answer.starts_with("HTTP/1.1 401") && answer.contains("invalid_api_key"),
        "{answer}"
    );
    assert_eq!(names(door, &admin), ["admin"]);
}

#[test]
fn an_admin_of_some_models_revokes_keys_for_those_only() {
    let setup = setup();
    let admin = keys(setup.folder(), "add admin --role admin");
    let bound = keys(setup.folder(), "add bound --role admin --model own");
    keys(setup.folder(), "add all");
    keys(setup.folder(), "add both --model own --model other");
    keys(setup.folder(), "add own --model own");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    for name in ["admin", "all", "both"] {
        let refused = revoke(door, &bound, name);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "model_not_allowed"),
            "{name}: {}",
            refused.body
        );
    }
    assert_eq!(revoke(door, &bound, "own").status, 200);
    assert_eq!(names(door, &admin), ["admin", "bound", "all", "both"]);
    assert_eq!(revoke(door, &admin, "bound").status, 200);
}

#[test]
fn a_stream_of_events_ends_when_its_key_is_revoked_or_no_admins_any_more() {
    let setup = setup();
    let admin = keys(setup.folder(), "add admin --role admin");
    let revoked = keys(setup.folder(), "add revoked --role admin");
    let demoted = keys(setup.folder(), "add demoted --role admin");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    let follow = |key: &str| {
        let head = format!(
            "GET /v1/admin/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n",
            bearer(Some(key))
        );
        let mut stream = begin(&daemon, &head);
        read_until(&mut stream, "data: ");
        stream
    };
    let (of_revoked, of_demoted) = (follow(&revoked), follow(&demoted));
    assert_eq!(revoke(door, &admin, "revoked").status, 200);
    let rest = read_to_end(of_revoked);
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");

    let path = daemon.folder().join("keys.toml");
    let text = fs::read_to_string(&path).expect("the file of keys");
    let (before, key) = text.split_once("name = \"demoted\"").expect("the key");
    let key = key.replacen("role = \"admin\"", "role = \"user\"", 1);
    let new = daemon.folder().join("new-keys");
    fs::write(&new, format!("{before}name = \"demoted\"{key}")).expect("written");
    fs::rename(new, path).expect("replaced");
    let rest = read_to_end(of_demoted);
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(door.get(KEYS, Some(&demoted)).status, 403);
}

#[test]
fn the_first_key_made_without_one_is_an_admins() {
    let daemon = Setup::new().start();
    let door = &doors(&daemon, 1)[0];
    let refused = door.ask("POST", KEYS, "", r#"{"name":"a"}"#);
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (400, "invalid_value"),
        "{}",
        refused.body
    );
    assert_eq!(refused.json()["error"]["param"], "role");
    let made = door.ask("POST", KEYS, "", r#"{"name":"a","role":"admin"}"#);
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(door.get(KEYS, None).status, 401);
    let secret = made.json()["secret"].as_str().expect("a key").to_owned();
    let next = door.ask("POST", KEYS, &bearer(Some(&secret)), r#"{"name":"b"}"#);
    assert_eq!(next.status, 201, "{}", next.body);
    assert_eq!(names(door, &secret), ["a", "b"]);
}

#[test]
fn a_change_that_hangs_holds_up_no_connection_and_is_written_down_when_it_is_made() {
    let setup = setup();
    let admin = keys(setup.folder(), "add admin --role admin");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    let folder = File::open(daemon.folder()).expect("the folder of the keys");
    flock(&folder, FlockOperation::LockExclusive).expect("a lock");
    let asked = door.ask("POST", KEYS, &bearer(Some(&admin)), r#"{"name":"a"}"#);
    assert_eq!(
        (asked.status, asked.code().as_str()),
        (503, "keys_unavailable"),
        "{}",
        asked.body
    );
    let ended = daemon.log.wait_for("path=/v1/admin/keys");
    assert!(ended.contains("status=503"), "{ended}");
    drop(folder);
    let made = daemon.log.wait_for("administrator added a key");
    assert!(
        made.contains("client=127.0.0.1")
            && made.contains("key=\"admin\"")
            && made.contains("what=a"),
        "{made}"
    );
}
