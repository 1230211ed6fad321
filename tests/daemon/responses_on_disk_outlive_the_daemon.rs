//! With `responses.keep-on-disk` a response that its client was told of is there after any end of the daemon, and can be
//! gone on from as if there had been none. What is deleted, or whose key is revoked, is on no disk.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::daemon_support::{Daemon, Setup, begin, eventually, keys, kill, request};
use rustix::process::Signal;
use serde_json::{Value, json};

const PATH: &str = "/v1/responses";
const TURNS: usize = 20;
/// Far more than end well.
const MOST_ATTEMPTS: usize = 400;
const PROBE: &str = "say it back";
/// About a tenth of a second of tokens, one word; asked for its prompt it tells that.
const SCENARIO: &str = "token-delay-us = 2000\nrepeat = { token = \"w\", times = 50 }\n\
    [[answer]]\nwhen-prompt-contains = \"say it back\"\necho-prompt = true\n\
    [[answer]]\nwhen-prompt-contains = \"at length\"\nrepeat = { token = \"w \", times = 60000 }\n";

fn started(state: &Path) -> Daemon {
    Setup::new()
        .environment("RKLLMD_LIBRARY__STATE_DIR", &state.display().to_string())
        .environment(
            "RKLLMD_HTTP__KEYS_FILE",
            &state.join("keys.toml").display().to_string(),
        )
        .settings("responses.keep-on-disk = true")
        .scenario("m", SCENARIO)
        .start()
}

/// Ends the daemon at once, and starts the next.
fn killed_and_started(daemon: Daemon, state: &Path) -> Daemon {
    kill(daemon.pid());
    daemon.wait();
    started(state)
}

fn id(response: &Value) -> &str {
    response["id"].as_str().expect("an id")
}

/// Files of responses, half-written ones as well.
fn files(state: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(state.join("responses")).into_iter().flatten();
    let folders = folders.map(|entry| entry.expect("an entry").path());
    let inside = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    inside
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// The prompt that the model gets.
fn prompt(daemon: &Daemon, input: &[Value], previous: &Value) -> String {
    let mut input = input.to_vec();
    input.push(json!({"role": "user", "content": PROBE}));
    let body =
        json!({"model": "m", "input": input, "previous_response_id": previous, "store": false});
    let answer = daemon.post(PATH, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let text = answer.json()["output"][0]["content"][0]["text"].clone();
    text.as_str().expect("a text").to_owned()
}

/// The response, if its client was told of its end.
fn told(daemon: &Daemon, body: &Value) -> Option<Value> {
    let connection = TcpStream::connect(daemon.address).ok()?;
    let begun = begin(connection, "POST", PATH, Some(body)).ok()?;
    if body["stream"] != true {
        let answer = begun.into_answer().ok()?;
        return serde_json::from_str(&answer.body).ok();
    }
    let mut stream = begun.into_events();
    while let Ok(Some(data)) = stream.try_next_data() {
        // A line may be cut by the daemon's end.
        let Ok(event) = serde_json::from_str::<Value>(&data) else {
            continue;
        };
        if event["type"] == "response.completed" {
            return Some(event["response"].clone());
        }
    }
    None
}

#[test]
fn twenty_turns_over_kills_lose_nothing_that_was_told() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let state = tempfile::tempdir().expect("a folder");
    let mut daemon = started(state.path());
    let (mut history, mut last, mut kills) = (Vec::<Value>::new(), Value::Null, 0);
    for turn in 0..TURNS {
        let said = json!({"role": "user", "content": format!("turn {turn} \"é\"")});
        let mut attempts = 0;
        let response = loop {
            attempts += 1;
            assert!(
                attempts < MOST_ATTEMPTS,
                "seed {seed}: turn {turn} has no end"
            );
            let body = json!({"model": "m", "input": [said], "stream": random.bool(),
                "previous_response_id": last["id"]});
            let pid = daemon.pid();
            // The first model's load takes its time as well.
            let moment = random
                .bool()
                .then(|| Duration::from_millis(random.u64(0..400)));
            let response = thread::scope(|threads| {
                if let Some(moment) = moment {
                    threads.spawn(move || {
                        thread::sleep(moment);
                        kill(pid);
                    });
                }
                told(&daemon, &body)
            });
            if moment.is_some() {
                kills += 1;
                daemon = killed_and_started(daemon, state.path());
            }
            if let Some(response) = response {
                break response;
            }
            assert!(moment.is_some(), "seed {seed}: turn {turn} has failed");
        };
        assert_eq!(response["store"], true, "seed {seed}: {response}");
        history.push(said);
        history.extend(response["output"].as_array().expect("items").clone());
        last = response;
        let kept = daemon.get(&format!("{PATH}/{}", id(&last)));
        assert_eq!(
            kept.status, 200,
            "seed {seed}: turn {turn} was told and is lost"
        );
        assert_eq!(kept.json(), last, "seed {seed}: turn {turn}");
        let of_chain = prompt(&daemon, &[], &last["id"]);
        let of_history = prompt(&daemon, &history, &Value::Null);
        assert_eq!(of_chain, of_history, "seed {seed}: turn {turn}");
        for before in 0..=turn {
            assert!(
                of_chain.contains(&format!("turn {before} \"é\"")),
                "{of_chain}"
            );
        }
    }
    assert!(kills > 0, "seed {seed}: no kill");
    let page = format!("{PATH}/{}/input_items?limit=100&order=asc", id(&last));
    let listed = daemon.get(&page).json();
    let count = listed["data"].as_array().expect("items").len();
    assert_eq!(count, 2 * TURNS - 1, "{listed}");
    for path in files(state.path()) {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name");
        assert!(!name.starts_with('.'), "half written: {name}");
    }
}

#[test]
fn what_is_there_after_a_restart_can_be_looked_at_and_deleted() {
    let state = tempfile::tempdir().expect("a folder");
    let daemon = started(state.path());
    let ask = |daemon: &Daemon, extra: &[(&str, Value)]| {
        let mut body = json!({"model": "m", "input": "hi"});
        for (name, value) in extra {
            body[*name] = value.clone();
        }
        let answer = daemon.post(PATH, &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let (first, second) = (ask(&daemon, &[]), ask(&daemon, &[]));
    let unkept = ask(&daemon, &[("store", false.into())]);
    let behind = ask(&daemon, &[("background", true.into())]);
    let path = |response: &Value| format!("{PATH}/{}", id(response));
    let behind = eventually("the end of the one in the background", || {
        let now = daemon.get(&path(&behind)).json();
        (now["status"] == "completed").then_some(now)
    });
    assert_eq!(files(state.path()).len(), 3);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let daemon = started(state.path());
    for response in [&first, &second, &behind] {
        assert_eq!(&daemon.get(&path(response)).json(), response);
    }
    assert_eq!(daemon.get(&path(&unkept)).status, 404);
    let listed = daemon.get(&format!("{}/input_items", path(&first))).json();
    assert_eq!(listed["data"][0]["content"][0]["text"], "hi", "{listed}");
    let deleted = request(daemon.address, "DELETE", &path(&first), None);
    assert_eq!(
        (deleted.status, &deleted.json()["deleted"]),
        (200, &json!(true))
    );
    // The answer comes behind the file's end.
    assert_eq!(files(state.path()).len(), 2);
    let daemon = killed_and_started(daemon, state.path());
    assert_eq!(daemon.get(&path(&first)).status, 404);
    assert_eq!(daemon.get(&path(&second)).status, 200);
}

#[test]
fn what_came_from_a_revoked_key_is_on_no_disk() {
    let state = tempfile::tempdir().expect("a folder");
    let kept = |name: &str| {
        let key = keys(state.path(), &format!("add {name}"));
        (name.to_owned(), key)
    };
    let owners = ["one", "two", "three"].map(kept);
    let ask = |daemon: &Daemon, key: &str, method: &str, path: &str, body: &str| {
        let mut connection = TcpStream::connect(daemon.address).expect("listening");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).expect("sent");
        std::io::read_to_string(connection).expect("an answer")
    };
    let daemon = started(state.path());
    let body = json!({"model": "m", "input": "hi"}).to_string();
    let responses = owners.clone().map(|(_, key)| {
        let answer = ask(&daemon, &key, "POST", PATH, &body);
        let (_, rest) = answer.split_once("\"id\":\"resp_").expect("an id");
        let (digits, _) = rest.split_once('"').expect("its end");
        format!("{PATH}/resp_{digits}")
    });
    assert_eq!(files(state.path()).len(), 3);
    keys(state.path(), "revoke one");
    eventually("its files' end", || {
        (files(state.path()).len() == 2).then_some(())
    });
    kill(daemon.pid());
    daemon.wait();
    // While there is no daemon.
    keys(state.path(), "revoke two");
    let daemon = started(state.path());
    eventually("its files' end", || {
        (files(state.path()).len() == 1).then_some(())
    });
    let [_, second, third] = &responses;
    let (_, key) = &owners[2];
    let found = ask(&daemon, key, "GET", third, "");
    assert!(found.starts_with("HTTP/1.1 200"), "{found}");
    let found = ask(&daemon, key, "GET", second, "");
    assert!(found.starts_with("HTTP/1.1 404"), "{found}");
    eventually("no folder of a key that is gone", || {
        let folders = fs::read_dir(state.path().join("responses")).expect("there");
        (folders.count() == 1).then_some(())
    });
}

#[test]
fn what_the_daemons_end_ends_is_there_as_it_ended() {
    let state = tempfile::tempdir().expect("a folder");
    let daemon = started(state.path());
    let body = json!({"model": "m", "input": "at length", "background": true});
    let begun = || id(&daemon.post(PATH, &body).json()).to_owned();
    let paths = [begun(), begun()].map(|id| format!("{PATH}/{id}"));
    eventually("the first one's being made", || {
        let first = daemon.get(&paths[0]).json();
        (first["status"] == "in_progress").then_some(())
    });
    // One slot makes them in the order in which they were begun.
    assert_eq!(daemon.get(&paths[1]).json()["status"], "queued");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let daemon = started(state.path());
    for path in paths {
        let kept = daemon.get(&path).json();
        assert_eq!(
            (&kept["status"], &kept["error"]["code"]),
            (&json!("failed"), &json!("shutting_down")),
            "{kept}"
        );
    }
}

#[test]
fn what_cannot_be_written_is_answered_and_says_so() {
    const SAID: &str = "could not be kept on disk";
    let state = tempfile::tempdir().expect("a folder");
    fs::write(state.path().join("responses"), "in the way").expect("written");
    let daemon = started(state.path());
    for stream in [false, true] {
        let body = json!({"model": "m", "input": "hi", "stream": stream});
        let response = told(&daemon, &body).expect("an answer");
        assert_eq!(
            (&response["status"], &response["store"]),
            (&json!("completed"), &json!(false)),
            "{response}"
        );
        let path = format!("{PATH}/{}", id(&response));
        assert_eq!(daemon.get(&path).status, 404);
    }
    let metrics = daemon.get("/metrics").body;
    assert!(
        metrics.contains("rkllmd_response_write_failures_total 2"),
        "{metrics}"
    );
    // A line may come later than its answer.
    daemon.log.wait_for(SAID);
    let lines = daemon.log.lines();
    let told = |line: &&String| line.contains(SAID);
    assert_eq!(lines.iter().filter(told).count(), 1, "{lines:?}");
}
