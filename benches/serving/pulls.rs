//! What a running stream keeps of its steadiness while a model is pulled at 20 MB/s, in turns with calm, and what the
//! process that pulls has of the memory. The library is the fake one, whose tokens come on a schedule; the hub is a part
//! of this program, and takes of the same processors.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon_support::{
    Daemon, EventStream, Setup, all_children, completion, eventually, request,
};
use crate::hub_support::{Hub, Reply, Repo, listed_gguf};
use crate::report::{Report, Target, rounded};
use crate::statistics::{largest, median, quantile};

const PAIRS: usize = 5;
const TOKENS: u32 = 400;
const TOKEN_DELAY: Duration = Duration::from_millis(5);
const MODEL: &str = "model-Q4_1.gguf";
/// Longer on its way than the stream.
const MODEL_BYTES: usize = 64_000_000;
const PIECE_BYTES: usize = 200_000;
const PIECE_EVERY: Duration = Duration::from_millis(10);

pub fn measure(report: &mut Report) {
    report.section(
        "pulls",
        "a stream beside a pull at 20 MB/s, in turns with calm",
    );
    let repo = Repo::new(&[(MODEL, &listed_gguf(MODEL_BYTES))]);
    let hub = Hub::start(move |request, _| Reply {
        drip: request.is_for_file().then_some((PIECE_BYTES, PIECE_EVERY)),
        ..repo.answer(request)
    });
    let scenario = format!(
        "token-delay-us = {}\nrepeat = {{ token = \"w \", times = {TOKENS} }}\n",
        TOKEN_DELAY.as_micros()
    );
    let daemon = Setup::new()
        .scenario("stream", &scenario)
        .settings(&format!("hub.endpoint = {:?}", hub.endpoint()))
        .settings("hub.keep-free-bytes = 0")
        .start();
    gaps(&daemon);
    let (mut medians, mut slowest, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let calm = gaps(&daemon);
        let (busy, peak) = beside_a_pull(&daemon, &hub);
        let ratio = |of: fn(&[f64]) -> f64| of(&busy) / of(&calm);
        medians.push(ratio(|gaps| median(gaps.iter().copied())));
        slowest.push(ratio(|gaps| quantile(gaps.iter().copied(), 0.99)));
        peaks.push(peak);
    }
    report.promise(
        "median_gap",
        "median gap between tokens, part of the calm one",
        (median(medians.iter().copied()), ""),
        Target::AtMost(1.1),
    );
    report.promise(
        "p99_gap",
        "the 99th percentile, part of the calm one",
        (median(slowest.iter().copied()), ""),
        Target::AtMost(1.5),
    );
    report.promise(
        "memory",
        "peak memory of the process that pulls",
        (largest(peaks), "MB"),
        Target::AtMost(30.0),
    );
    let all =
        |ratios: Vec<f64>| -> Value { json!(ratios.into_iter().map(rounded).collect::<Vec<_>>()) };
    report.detail("median_gaps", all(medians));
    report.detail("p99_gaps", all(slowest));
}

/// Seconds between the tokens of a stream.
fn gaps(daemon: &Daemon) -> Vec<f64> {
    let body = completion("stream", "x", json!({"stream": true, "max_tokens": TOKENS}));
    let events = EventStream::open(daemon.address, "/v1/completions", &body).collect();
    assert!(events.len() >= TOKENS as usize, "{} events", events.len());
    let pairs = events.windows(2);
    pairs
        .map(|pair| pair[1].0.duration_since(pair[0].0).as_secs_f64())
        .collect()
}

/// The same while a model comes, and the most memory in MB that the process had which brings it.
fn beside_a_pull(daemon: &Daemon, hub: &Hub) -> (Vec<f64>, f64) {
    let before = hub.sent();
    let ask = |method, path, body: Value| {
        let answer = request(daemon.address, method, path, Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let measured = thread::scope(|scope| {
        let pull = json!({"model": "owner/name", "stream": false});
        scope.spawn(|| ask("POST", "/api/pull", pull));
        eventually("a part of the file", || (hub.sent() > before).then_some(()));
        let gaps = gaps(daemon);
        let peak = peak_bytes(daemon).expect("it is pulled longer than the stream lasts");
        (gaps, peak as f64 / 1e6)
    });
    ask("DELETE", "/api/delete", json!({"model": "owner/name"}));
    measured
}

fn peak_bytes(daemon: &Daemon) -> Option<u64> {
    all_children(daemon.pid()).into_iter().find_map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        if name.trim() != "rkllmd-transfer" {
            return None;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    })
}
