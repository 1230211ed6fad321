//! Whose a handle is, how long it lives, and what a client can make others wait for.

use std::time::{Duration, Instant};

use crate::daemon_support::{Setup, chat, children, eventually, resident_bytes};
use crate::rpc_support::Transport;
use crate::rpc_support::served::{Served, run_params};
use serde_json::json;

const SHORT: &str = "tokens = [\"hello\"]\n";
const ENDLESS: &str = "repeat = { token = \"word \", times = 100000000 }\ntoken-delay-us = 1000\n";

fn served(settings: &str) -> Served {
    let setup = Setup::new()
        .scenario("m", SHORT)
        .scenario("endless", ENDLESS)
        .settings(settings);
    Served::start(setup)
}

fn wait_for_no_worker(served: &Served) {
    eventually("the end of all workers", || {
        children(served.daemon.pid()).is_empty().then_some(())
    });
}

#[test]
fn a_handle_is_its_owners_alone() {
    let served = served("models.max-loaded = 2");
    let mut unix = served.unix();
    let mut http = served.client(Transport::Http);
    let of_unix = unix.init("m", json!({}));
    let of_http = http.init("m", json!({}));
    for (transport, handle) in [
        (Transport::Unix, &of_unix),
        (Transport::WebSocket, &of_unix),
        (Transport::Http, &of_unix),
        (Transport::Unix, &of_http),
        (Transport::WebSocket, &of_http),
    ] {
        let failure = served
            .client(transport)
            .run(handle, "x", json!({}))
            .unwrap_err();
        assert_eq!(failure.name(), "unknown_handle", "{transport:?}");
    }
    assert!(unix.run(&of_unix, "x", json!({})).is_ok());
    // Over HTTP each request is a connection of its own; the client is the same.
    let mut events = served.client(Transport::EventStream);
    assert!(events.run(&of_http, "x", json!({})).is_ok());
    assert_eq!(
        events.notifications("rkllm.result").len(),
        2,
        "a token and FINISH"
    );
}

#[test]
fn a_handle_ends_with_its_connection_even_in_a_run() {
    let served = served("");
    for transport in [Transport::Unix, Transport::WebSocket] {
        let mut client = served.client(transport);
        let handle = client.init("endless", json!({"max_new_tokens": -1}));
        client.run_async(&handle, "x", json!({}));
        client.notification("rkllm.result");
        drop(client);
        wait_for_no_worker(&served);
    }
}

#[test]
fn a_client_that_leaves_its_http_request_ends_the_run_and_keeps_the_handle() {
    use std::io::{BufRead, BufReader, Write};

    let served = served("");
    let mut client = served.client(Transport::Http);
    let handle = client.init("endless", json!({"max_new_tokens": -1}));
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "rkllm.run",
        "params": run_params(&handle, "x", json!({}))})
    .to_string();
    let mut stream = std::net::TcpStream::connect(served.daemon.address).unwrap();
    let head = format!(
        "POST /rpc HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
        content-length: {}\r\n\r\n{call}",
        call.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    assert_eq!(
        client.call("rkllm.is_running", json!([handle])).unwrap()["running"],
        true
    );
    drop(reader);
    eventually("the end of the run", || {
        let running = client.call("rkllm.is_running", json!([handle])).unwrap();
        (running["running"] == false).then_some(())
    });
}

#[test]
fn an_idle_handle_is_destroyed_and_a_used_one_is_not() {
    let served = served("rpc.handle-idle-timeout = \"700ms\"");
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert!(client.run(&handle, "x", json!({})).is_ok(), "it is in use");
    }
    wait_for_no_worker(&served);
    let failure = client.run(&handle, "x", json!({})).unwrap_err();
    assert_eq!(failure.name(), "unknown_handle");
    // A run that takes longer than that is use.
    let handle = client.init("endless", json!({"max_new_tokens": 1500}));
    let result = client.run(&handle, "x", json!({})).unwrap();
    assert_eq!(
        result["results"][0]["token_ids"].as_array().unwrap().len(),
        1500
    );
}

#[test]
fn handles_and_calls_of_one_client_are_limited() {
    let served = served("rpc.max-handles = 2\nrpc.max-calls = 3\nmodels.max-loaded = 4");
    let mut client = served.unix();
    let first = client.init("endless", json!({"max_new_tokens": -1}));
    client.init("m", json!({}));
    let failure = client.call("rkllm.init", json!(["m"])).unwrap_err();
    assert_eq!(failure.name(), "limit_reached");
    // Another connection has its own.
    served.unix().init("m", json!({}));
    let runs: Vec<u64> = (0..3)
        .map(|_| client.send("rkllm.run", run_params(&first, "x", json!({}))))
        .collect();
    let failure = client.call("rkllm.is_running", json!([first])).unwrap_err();
    assert_eq!(failure.name(), "limit_reached");
    drop(runs);
    // An owner that destroys one may open another.
    let mut other = served.unix();
    let handle = other.init("m", json!({}));
    other.init("m", json!({}));
    other.call("rkllm.destroy", json!([handle])).unwrap();
    other.init("m", json!({}));
}

#[test]
fn destroy_ends_a_run() {
    let served = served("");
    let mut client = served.unix();
    let handle = client.init("endless", json!({"max_new_tokens": -1}));
    client.run_async(&handle, "x", json!({}));
    client.notification("rkllm.result");
    client.call("rkllm.destroy", json!([handle])).unwrap();
    wait_for_no_worker(&served);
    client.notification("rkllm.ended");
    let failure = client.call("rkllm.destroy", json!([handle])).unwrap_err();
    assert_eq!(failure.name(), "unknown_handle");
}

const FLOOD: &str =
    "repeat = { token = \"a long word that takes some room on its way \", times = 100000000 }\n";
const SLOW_READER: &str = "http.slow-reader-timeout = \"1s\"\nrpc.outgoing-limit-bytes = 65536\n\
    models.minimum-residency = \"0s\"";

#[test]
fn a_client_that_never_reads_loses_its_connection() {
    for transport in [Transport::Unix, Transport::WebSocket] {
        let setup = Setup::new().scenario("flood", FLOOD).settings(SLOW_READER);
        let served = Served::start(setup);
        let mut client = served.client(transport);
        let handle = client.init("flood", json!({"max_new_tokens": -1}));
        client.run_async(&handle, "x", json!({}));
        // Its handle goes with its connection.
        wait_for_no_worker(&served);
        let left = std::iter::from_fn(|| client.read()).count();
        assert!(left > 0, "what was sent before can be read");
    }
}

/// Likewise over plain HTTP, where the request ends and the handle stays.
#[test]
fn a_request_whose_events_are_not_read_is_ended() {
    use std::io::{Read, Write};

    let setup = Setup::new()
        .scenario("m", SHORT)
        .scenario("flood", FLOOD)
        .settings(SLOW_READER);
    let served = Served::start(setup);
    let mut client = served.client(Transport::Http);
    let handle = client.init("flood", json!({"max_new_tokens": -1}));
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "rkllm.run",
        "params": run_params(&handle, "x", json!({}))})
    .to_string();
    let mut stream = std::net::TcpStream::connect(served.daemon.address).unwrap();
    stream
        .set_read_timeout(Some(crate::daemon_support::PATIENCE))
        .unwrap();
    let head = format!(
        "POST /rpc HTTP/1.0\r\nhost: localhost\r\naccept: text/event-stream\r\n\
         content-length: {}\r\n\r\n{call}",
        call.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The run has the only place before another client asks for one.
    let mut events = String::new();
    while !events.contains("rkllm.result") {
        let mut some = [0; 256];
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "{events}");
        events.push_str(std::str::from_utf8(&some[..count]).unwrap());
    }
    let answer = served
        .daemon
        .post("/v1/chat/completions", &chat("m", "hi", json!({})));
    assert_eq!(answer.content(), "hello");
    stream.read_to_string(&mut events).unwrap();
    let last = events
        .lines()
        .rfind(|line| line.starts_with("data: "))
        .unwrap();
    let last: serde_json::Value = serde_json::from_str(&last["data: ".len()..]).unwrap();
    assert_eq!(last["error"]["data"]["code"], "slow_reader", "{last}");
    assert!(client.call("rkllm.is_running", json!([handle])).is_ok());
}

#[test]
fn a_daemon_that_shuts_down_ends_its_runs_and_says_so() {
    for transport in [Transport::Unix, Transport::WebSocket] {
        let served = served("deadlines.drain = \"500ms\"");
        let mut client = served.client(transport);
        let handle = client.init("endless", json!({"max_new_tokens": -1}));
        client.run_async(&handle, "x", json!({}));
        client.notification("rkllm.result");
        served.daemon.signal(rustix::process::Signal::TERM);
        let ended = client.notification("rkllm.ended");
        assert!(ended["error"]["code"].is_i64(), "{transport:?}: {ended}");
        assert_eq!(client.read(), None);
        assert!(served.daemon.wait().success());
    }
}

/// What a client does not read is not kept for it: its run is aborted, and others get its place.
#[test]
fn a_slow_readers_run_is_aborted_and_memory_stays_flat() {
    for transport in [Transport::Unix, Transport::WebSocket] {
        let setup = Setup::new()
            .scenario("m", SHORT)
            .scenario("flood", FLOOD)
            .settings(SLOW_READER);
        let served = Served::start(setup);
        let mut client = served.client(transport);
        let handle = client.init("flood", json!({"max_new_tokens": -1}));
        client.run_async(&handle, "x", json!({}));
        client.notification("rkllm.result");
        let before = resident_bytes(served.daemon.pid());
        // Nothing is read now. The chat gets the only place when the run has ended.
        let answer = served
            .daemon
            .post("/v1/chat/completions", &chat("m", "hi", json!({})));
        assert_eq!(answer.content(), "hello");
        let grown = resident_bytes(served.daemon.pid()).saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes");
        let ended = loop {
            let message = client.read().expect("one that reads on learns why");
            if message["method"] == "rkllm.ended" {
                break message;
            }
        };
        assert_eq!(
            ended["params"]["error"]["data"]["code"], "slow_reader",
            "{transport:?}"
        );
    }
}

#[test]
fn calls_of_one_connection_reach_a_handle_in_their_order() {
    let scenario = "echo-prompt = true\n";
    let setup = Setup::new()
        .scenario("echo", scenario)
        .settings("rpc.max-calls = 64");
    let served = Served::start(setup);
    let mut client = served.unix();
    let handle = client.init("echo", json!({}));
    // None of them waits for the one before.
    for number in 0..20 {
        let template = json!([handle, "", format!("<{number}>"), ""]);
        client.send("rkllm.set_chat_template", template);
        let run = client.send("rkllm.run", run_params(&handle, "x", json!({})));
        if number == 19 {
            let result = client.answer_to(run).unwrap();
            assert_eq!(result["results"][0]["text"], "<19>x");
        }
    }
}
