//! A model that takes long to be read delays no other: the daemon starts with what is known, says that
//! more is to come, and serves the rest, or tells what is wrong with it, once it is read.

use std::time::Duration;

use crate::daemon_support::{Daemon, Setup, chat, cpu_ticks, eventually, readers};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// Read for as long as a reader may.
const ENDLESS: &str =
    "{% for i in range(99999) %}{% set x = range(99999)|list|sort|list|length %}{% endfor %}";

fn ids(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.get("/v1/models").json();
    let models = listed["data"].as_array().expect("a list");
    let id = |model: &Value| model["id"].as_str().expect("an id").to_owned();
    models.iter().map(id).collect()
}

#[test]
fn a_model_that_takes_long_to_be_read_delays_no_other() {
    // The first in the folder's order.
    let daemon = Setup::new()
        .settings("deadlines.reader-open = \"15s\"")
        .environment("RKLLMD_DEADLINES__READER_AT_START", "5s")
        .scenario("a-late", "tokens = [\"late\"]\n")
        .model_file("a-late", "chat_template.jinja", ENDLESS)
        .model_file("a-late", "model.toml", "id = \"late\"\n")
        .scenario("good", "tokens = [\"fine\"]\n")
        .scenario("last", "tokens = [\"fine\"]\n")
        .start();
    assert_eq!(ids(&daemon), ["good", "last"]);
    daemon.log.wait_for("are read on while others are served");
    for model in ["good", "last"] {
        let answer = daemon.post(CHAT, &chat(model, "x", json!({})));
        assert_eq!(answer.status, 200, "{model}: {}", answer.body);
    }
    // It may be any name's: no client is told that there is no such model.
    for path in ["/v1/models/late", "/v1/ready?model=late"] {
        let early = daemon.get(path);
        assert_eq!(
            (early.status, &*early.error_code()),
            (503, "model_unavailable"),
            "{path}: {}",
            early.body
        );
        assert_eq!(early.header("retry-after"), Some("1"), "{path}");
    }
    let early = daemon.post(CHAT, &chat("late", "x", json!({})));
    assert_eq!(early.error_code(), "model_unavailable", "{}", early.body);
    eventually("the end of reading", || {
        (ids(&daemon).len() == 3).then_some(())
    });
    let broken = daemon.post(CHAT, &chat("late", "x", json!({})));
    assert_eq!(
        (broken.status, &*broken.error_code()),
        (500, "chat_template_broken"),
        "{}",
        broken.body
    );
    let unknown = daemon.post(CHAT, &chat("nobody", "x", json!({})));
    assert_eq!(unknown.error_code(), "model_not_found", "{}", unknown.body);
}

#[test]
fn a_model_that_is_read_late_is_served_and_preloaded() {
    let daemon = Setup::new()
        .settings("models.preload = [\"m\"]")
        // Nothing is read so soon.
        .environment("RKLLMD_DEADLINES__READER_AT_START", "1ms")
        .scenario("m", "tokens = [\"fine\"]\n")
        .start();
    eventually("the preloaded model", || {
        let ready = daemon.get("/v1/ready").json();
        (ready["models"][0]["phase"] == "ready").then_some(())
    });
    let answer = daemon.post(CHAT, &chat("m", "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        daemon
            .log
            .lines()
            .iter()
            .all(|line| !line.contains("not installed")),
        "{:?}",
        daemon.log.lines()
    );
}

#[test]
fn a_reload_gives_way_to_a_model_that_has_served_no_request_yet() {
    let daemon = Setup::new()
        .settings("deadlines.reader-open = \"10m\"\ndeadlines.models-read = \"10m\"")
        .scenario("good", "tokens = [\"fine\"]\n")
        .start();
    assert_eq!(ids(&daemon), ["good"]);
    let folder = daemon.folder().join("models/endless");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("model.rkllm"), "tokens = []\n").expect("a model");
    std::fs::write(folder.join("chat_template.jinja"), ENDLESS).expect("a template");
    daemon.signal(rustix::process::Signal::HUP);
    let at_work = |but: Option<u32>| {
        eventually("a reader that runs the endless template", || {
            let mut readers = readers(daemon.pid()).into_iter();
            readers.find(|&pid| Some(pid) != but && cpu_ticks(pid) > 50)
        })
    };
    let first = at_work(None);
    let answer = daemon.post(CHAT, &chat("good", "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    // Behind the request it is read again.
    at_work(Some(first));
    let lines = daemon.log.lines();
    let is_over = lines.iter().any(|line| line.contains("reloaded:"));
    assert!(!is_over, "{lines:?}");
}

/// A reload reads all of it itself.
#[test]
fn a_reload_does_not_wait_for_what_is_late() {
    let daemon = Setup::new()
        .settings("deadlines.reader-open = \"10m\"\ndeadlines.models-read = \"10m\"")
        .environment("RKLLMD_DEADLINES__READER_AT_START", "2s")
        .scenario("late", "tokens = [\"late\"]\n")
        .model_file("late", "chat_template.jinja", ENDLESS)
        .model_file("late", "model.toml", "")
        .scenario("good", "tokens = [\"fine\"]\n")
        .start();
    daemon.log.wait_for("are read on while others are served");
    let template = daemon.folder().join("models/late/chat_template.jinja");
    std::fs::write(template, "{{ messages[0].content }}").expect("the template");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.log.wait_for("reloaded:");
    let answer = daemon.post(CHAT, &chat("late", "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let began = std::time::Instant::now();
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait();
    assert!(began.elapsed() < Duration::from_secs(10));
}
