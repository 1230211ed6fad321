//! Many clients: each request ends in a whole answer or a typed refusal, and nothing is left behind.

use std::sync::Barrier;
use std::thread;

use crate::daemon_support::{
    Answer, Daemon, Setup, chat, children, descriptors, eventually, readers, threads,
};
use serde_json::json;

const SCENARIO: &str = "repeat = { token = \"w \", times = 20 }\ntoken-delay-us = 200\n";

fn answer_is_whole(answer: &Answer) -> bool {
    answer.status == 200 && answer.content() == "w ".repeat(20)
}

/// Waits until the daemon has no more descriptors, threads and children than `before`.
fn nothing_is_left(daemon: &Daemon, before: (usize, usize, usize)) {
    eventually(
        &format!("descriptors, threads and children back at {before:?}"),
        || {
            let now = count(daemon);
            (now.0 <= before.0 && now.1 <= before.1 && now.2 <= before.2).then_some(())
        },
    );
}

/// A crowd may need another reader than one client; it goes when the crowd has gone.
fn setup() -> Setup {
    Setup::new().settings("reader.idle-timeout = \"100ms\"")
}

/// The count once no reader reads the model's files.
fn settled(daemon: &Daemon) -> (usize, usize, usize) {
    eventually("no reader", || {
        readers(daemon.pid()).is_empty().then_some(())
    });
    count(daemon)
}

fn count(daemon: &Daemon) -> (usize, usize, usize) {
    let pid = daemon.pid();
    (descriptors(pid).len(), threads(pid), children(pid).len())
}

fn at_once(daemon: &Daemon, clients: usize) -> Vec<Answer> {
    let start = Barrier::new(clients);
    thread::scope(|scope| {
        let running: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    daemon.post("/v1/chat/completions", &chat("m", "x", json!({})))
                })
            })
            .collect();
        running
            .into_iter()
            .map(|client| client.join().expect("a client"))
            .collect()
    })
}

#[test]
fn two_hundred_requests_in_a_row() {
    let daemon = setup().scenario("m", SCENARIO).start();
    daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    let before = settled(&daemon);
    for number in 0..200 {
        let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
        assert!(answer_is_whole(&answer), "{number}: {}", answer.body);
    }
    nothing_is_left(&daemon, before);
}

#[test]
fn sixty_four_at_once_are_all_served() {
    let daemon = setup()
        .settings("queue.capacity = 64")
        .scenario("m", SCENARIO)
        .start();
    daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    let before = settled(&daemon);
    for answer in at_once(&daemon, 64) {
        assert!(answer_is_whole(&answer), "{}", answer.body);
    }
    nothing_is_left(&daemon, before);
}

#[test]
fn three_hundred_at_once_are_served_or_told_when_to_come_back() {
    let daemon = setup()
        .settings("queue.capacity = 64")
        .scenario("m", SCENARIO)
        .start();
    daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    let before = settled(&daemon);
    let answers = at_once(&daemon, 300);
    let (whole, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| answer_is_whole(a));
    for answer in &refused {
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (429, "queue_full"),
            "{}",
            answer.body
        );
        let seconds = answer.header("retry-after").expect("Retry-After");
        assert!(seconds.parse::<u32>().expect("seconds") >= 1, "{seconds}");
    }
    assert_eq!(whole.len() + refused.len(), 300);
    assert!(whole.len() >= 64, "only {} were served", whole.len());
    nothing_is_left(&daemon, before);
}
