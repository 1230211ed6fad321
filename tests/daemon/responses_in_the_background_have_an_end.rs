//! Responses in the background end with their key and with the daemon, and tell so; the death of a worker is none of
//! theirs.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, EventStream, Setup, eventually, keys, kill};
use rustix::process::Signal;
use serde_json::{Value, json};

const PATH: &str = "/v1/responses";
/// A minute of tokens.
const LONG: &str = "token-delay-us = 10000\nrepeat = { token = \"w \", times = 6000 }\n";

fn body() -> Value {
    json!({"model": "m", "input": "hi", "background": true, "stream": true})
}

fn event(stream: &mut EventStream) -> Value {
    let data = stream.next_data().expect("an event");
    serde_json::from_str(&data).expect("JSON")
}

/// The stream of a response that is being written, and its id.
fn begun(daemon: &Daemon) -> (EventStream, String) {
    let mut stream = daemon.stream(PATH, &body());
    let first = event(&mut stream);
    let id = first["response"]["id"].as_str().expect("an id").to_owned();
    while event(&mut stream)["type"] != "response.output_text.delta" {}
    (stream, id)
}

/// The response at the end of its stream, and how many of its events were an end.
fn end(stream: &mut EventStream) -> (Value, usize) {
    let (mut last, mut ends) = (Value::Null, 0);
    while let Some(data) = stream.next_data() {
        if data == "[DONE]" {
            break;
        }
        let event: Value = serde_json::from_str(&data).expect("JSON");
        if event["response"].is_object() {
            ends += 1;
            last = event["response"].clone();
        }
    }
    (last, ends)
}

#[test]
fn the_daemons_end_is_told_and_waits_for_none() {
    let daemon = Setup::new().scenario("m", LONG).start();
    let (mut stream, _) = begun(&daemon);
    let before = Instant::now();
    daemon.signal(Signal::TERM);
    let (response, ends) = end(&mut stream);
    assert_eq!(
        (&response["status"], &response["error"]["code"], ends),
        (&"failed".into(), &"shutting_down".into(), 1),
        "{response}"
    );
    drop(stream);
    assert!(daemon.wait().success());
    // A default drain takes 30 s, and its answer a minute.
    assert!(before.elapsed() < Duration::from_secs(25));
}

#[test]
fn the_end_of_its_key_is_its_end() {
    let setup = Setup::new().scenario("m", LONG);
    let one = keys(setup.folder(), "add one");
    let admin = keys(setup.folder(), "add admin --role admin");
    let daemon = setup.start();
    let mut connection = std::net::TcpStream::connect(daemon.address).expect("listening");
    let body = body().to_string();
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {one}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).expect("sent");
    let running = |count: usize| {
        let mut asking = std::net::TcpStream::connect(daemon.address).expect("listening");
        let request = format!(
            "GET /v1/admin/requests HTTP/1.1\r\nhost: localhost\r\nx-api-key: {admin}\r\nconnection: close\r\n\r\n"
        );
        asking.write_all(request.as_bytes()).expect("sent");
        let answer = std::io::read_to_string(asking).expect("an answer");
        (answer.matches("\"state\":\"running\"").count() == count).then_some(())
    };
    eventually("its run", || running(1));
    // Its reader has left, which ends nothing.
    drop(connection);
    keys(daemon.folder(), "revoke one");
    eventually("its end", || running(0));
    eventually("its end being told", || {
        let log = daemon.log.lines();
        let told = |line: &&String| line.contains("invalid_api_key") && line.contains(PATH);
        log.iter().find(told).map(|_| ())
    });
}

#[test]
fn it_outlives_its_worker_and_its_reader() {
    let scenario = "continue-answers = true\ntoken-delay-us = 10000\nrepeat = { token = \"w \", times = 200 }\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let (stream, id) = begun(&daemon);
    drop(stream);
    kill(daemon.worker_pid());
    let path = format!("{PATH}/{id}");
    let mut again = EventStream::of_get(daemon.address, &format!("{path}?stream=true"));
    let (mut text, mut number) = (String::new(), 0);
    while let Some(data) = again.next_data() {
        if data == "[DONE]" {
            break;
        }
        let event: Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!(event["sequence_number"], number, "{event}");
        number += 1;
        text += event["delta"].as_str().unwrap_or_default();
    }
    assert_eq!(text.trim_end(), "w ".repeat(200).trim_end());
    let made = daemon.get(&path).json();
    assert_eq!(made["status"], "completed", "{made}");
    assert_eq!(made["output"][0]["content"][0]["text"], text);
}
