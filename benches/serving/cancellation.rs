//! The time from a client's going away in mid-generation to the worker's being free for the next,
//! which is then served.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon_support::{Daemon, Setup, completion, find_model, send};
use crate::kept_connection::KeptConnection;
use crate::report::{Report, Target};
use crate::statistics::{largest, median};

const CANCELLATIONS: usize = 10;
const CHUNKS_BEFORE: usize = 8;
const CROWDS: usize = 5;
const STREAMS: usize = 7;
const PREFILL_WORDS: usize = 3000;
const POLL: Duration = Duration::from_millis(1);
const MODEL: &str = "m";
/// 50 tokens a second for longer than the benchmark waits.
const SCENARIO: &str = "repeat = { token = \"tok \", times = 4000 }\ntoken-delay-us = 20000\n";

struct Labels {
    key: &'static str,
    median: &'static str,
    max_key: &'static str,
    max: &'static str,
}

pub fn measure(report: &mut Report) {
    report.section(
        "cancellation",
        "a stream is closed in mid-generation; until the worker is free, 10 times",
    );
    let fake = Setup::new().scenario(MODEL, SCENARIO).start();
    summarise(
        report,
        &cancel_repeatedly(&fake),
        &Labels {
            key: "fake_ms",
            median: "fake runtime, 50 tokens/s, median",
            max_key: "fake_max_ms",
            max: "fake runtime, the slowest",
        },
    );
    drop(fake);
    let real = Setup::new().demo_model(MODEL).all_threads().start();
    summarise(
        report,
        &cancel_repeatedly(&real),
        &Labels {
            key: "demo_model_ms",
            median: "demo model, median",
            max_key: "demo_model_max_ms",
            max: "demo model, the slowest",
        },
    );
    drop(real);
    let crowd = Setup::new()
        .demo_model(MODEL)
        .all_threads()
        .model_file(MODEL, "model.toml", "parallel = 8\n")
        .start();
    summarise(
        report,
        &(0..CROWDS)
            .map(|nth| cancel_in_a_crowd(&crowd, nth))
            .collect::<Vec<_>>(),
        &Labels {
            key: "crowd_ms",
            median: "demo model, one of 8 slots beside a prefill of 3,000 tokens, median",
            max_key: "crowd_max_ms",
            max: "the same, the slowest",
        },
    );
}

/// Seven streams run and a prompt of 3,000 tokens is being evaluated; one stream is closed. Returns the time
/// until its slot is free.
fn cancel_in_a_crowd(daemon: &Daemon, nth: usize) -> f64 {
    let in_use = || {
        let page = daemon.get("/metrics").body;
        let start = format!("rkllmd_slots_in_use{{model=\"{MODEL}\"}} ");
        let count = page
            .lines()
            .find_map(|line| line.strip_prefix(&start)?.parse().ok());
        count.unwrap_or(0_usize)
    };
    let until = |wanted: usize| {
        let began = Instant::now();
        while in_use() != wanted {
            assert!(began.elapsed() < Duration::from_secs(60), "{wanted} slots");
            thread::sleep(POLL);
        }
    };
    let mut streams: Vec<_> = (0..STREAMS)
        .map(|stream| {
            let prompt = format!("{nth}.{stream}: Once upon a time there was a small village");
            let body = completion(MODEL, &prompt, json!({"stream": true, "max_tokens": 900}));
            let mut stream = daemon.stream("/v1/completions", &body);
            stream.next_content().expect("text");
            stream
        })
        .collect();
    let prompt = format!("{nth}{}", " the".repeat(PREFILL_WORDS));
    let body = completion(MODEL, &prompt, json!({"stream": true, "max_tokens": 4}));
    let mut prefill = TcpStream::connect(daemon.address).expect("the daemon accepts connections");
    send(&mut prefill, "POST", "/v1/completions", Some(&body)).expect("the request is taken");
    until(STREAMS + 1);
    // It has begun to be evaluated.
    for stream in &mut streams {
        stream.next_content().expect("text");
    }
    let closed_at = Instant::now();
    drop(streams.pop());
    until(STREAMS);
    let latency = closed_at.elapsed().as_secs_f64() * 1e3;
    prefill.set_nonblocking(true).expect("a socket");
    let has_come = prefill.peek(&mut [0; 1]);
    assert!(
        has_come.is_err(),
        "the prompt was evaluated before the stream was closed"
    );
    drop((prefill, streams));
    until(0);
    latency
}

fn summarise(report: &mut Report, latencies_ms: &[f64], labels: &Labels) {
    let target = Target::AtMost(200.0);
    let values = || latencies_ms.iter().copied();
    report.promise(labels.key, labels.median, (median(values()), "ms"), target);
    report.promise(
        labels.max_key,
        labels.max,
        (largest(values()), "ms"),
        target,
    );
}

fn cancel_repeatedly(daemon: &Daemon) -> Vec<f64> {
    let mut connection = KeptConnection::open(daemon.address);
    let mut phase = || {
        let ready = connection.get("/v1/ready");
        find_model(&ready, MODEL)["phase"]
            .as_str()
            .expect("a phase")
            .to_owned()
    };
    let prompt = "Once upon a time there was a small village by the sea, where an old man";
    let long = completion(MODEL, prompt, json!({"stream": true, "max_tokens": 2000}));
    let short = completion(MODEL, prompt, json!({"max_tokens": 4}));
    (0..CANCELLATIONS)
        .map(|_| {
            let mut stream = daemon.stream("/v1/completions", &long);
            for _ in 0..CHUNKS_BEFORE {
                stream.next_content().expect("text");
            }
            assert_eq!(phase(), "running");
            let closed_at = Instant::now();
            drop(stream);
            while phase() != "ready" {
                assert!(closed_at.elapsed() < Duration::from_secs(30), "never free");
                thread::sleep(POLL);
            }
            let latency = closed_at.elapsed();
            let next = daemon.post("/v1/completions", &short);
            assert_eq!(next.status, 200, "{}", next.body);
            let text = &next.json()["choices"][0]["text"];
            assert!(
                text.as_str().is_some_and(|text| !text.is_empty()),
                "{}",
                next.body
            );
            latency.as_secs_f64() * 1e3
        })
        .collect()
}
