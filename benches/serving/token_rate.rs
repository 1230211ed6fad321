//! What a token costs between the library's callback and the client's socket. The library is the
//! fake one, which makes tokens at once or on a schedule at no cost worth mentioning; every token is
//! an event of its own, and the client checks that none is missing.

use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::bare_steps::Pace;
use crate::cpu_time::{Usage, Watch};
use crate::daemon_support::{Daemon, Setup, completion};
use crate::event_counter::count_stream;
use crate::report::{Report, Target, rounded};

const STREAMS: usize = 32;
const SLOTS: usize = 8;
/// Long enough for ticks of 10 ms to be a small error.
const SPAN: Duration = Duration::from_secs(6);
const PROBE_TOKENS: u32 = 50_000;
const PACED_PER_SECOND: u32 = 50;
const PACED_TOKENS: u32 = 10 * PACED_PER_SECOND;
const PACE: Duration = Duration::from_micros(1_000_000 / PACED_PER_SECOND as u64);
/// Threads that took less for a token are not named.
const LEAST_US_NAMED: f64 = 0.05;
/// What the machine itself takes, before the slots are measured and once more behind them.
const BARE: Pace = Pace {
    groups: STREAMS / SLOTS,
    streams: SLOTS,
    step: PACE,
    steps: 3 * PACED_PER_SECOND,
};

pub fn measure(report: &mut Report) {
    let at_once = start("");
    report.section("one_stream", "one stream, a runtime without delay");
    let probe = count_stream(at_once.address, &name(0), PROBE_TOKENS);
    let rate = f64::from(PROBE_TOKENS) / probe.as_secs_f64();
    let tokens = (rate * SPAN.as_secs_f64()) as u32;
    flood(report, &at_once, 1, tokens, Duration::ZERO);

    report.section(
        "streams_32",
        "32 streams of 32 models, a runtime without delay",
    );
    let tokens = tokens / STREAMS as u32;
    flood(report, &at_once, STREAMS, tokens, Duration::ZERO);
    drop(at_once);

    report.section("paced_32", "32 streams of 32 models, 50 tokens/s each");
    let pace = format!("token-delay-us = {}\n", PACE.as_micros());
    let paced = start(&pace);
    // Tokens that come in step are cheap, because one wake-up serves several. Streams that begin together
    // stay in step as long as chance has it; these never are.
    flood(report, &paced, STREAMS, PACED_TOKENS, PACE / STREAMS as u32);
    drop(paced);

    // The slots of a model share the runtime's steps, so that their tokens come together; those of the four
    // models do not.
    report.section(
        "paced_4_by_8",
        "32 streams of 4 models with 8 slots each, 50 steps/s each",
    );
    let in_step = format!("{pace}tokens-in-step = true\n");
    let before = BARE.bare_cost();
    let (usage, tokens) = flood_slots(&in_step);
    let bare = before.mean(BARE.bare_cost());
    for (key, label, seconds, most_us) in [
        (
            "daemon_target",
            "CPU of the daemon per token",
            usage.daemon_s,
            15.0,
        ),
        (
            "workers_target",
            "CPU of the workers per token",
            usage.workers_s,
            20.0,
        ),
    ] {
        let us = seconds * 1e6 / tokens;
        report.promise(key, label, (us, "us"), Target::AtMost(most_us));
    }
    summarise(report, &usage, tokens);
    // The first is the library's part of the workers': its thread of each slot wakes for each token.
    for (key, label, us) in [
        (
            "bare_wake_us_per_token",
            "a thread that only wakes for each token",
            bare.wake,
        ),
        (
            "bare_write_us_per_token",
            "one that only writes 8 tokens at each step",
            bare.write,
        ),
        (
            "workers_beyond_bare_us_per_token",
            "the workers' without the former",
            usage.workers_s * 1e6 / tokens - bare.wake,
        ),
        (
            "daemon_beyond_bare_us_per_token",
            "the daemon's without the latter",
            usage.daemon_s * 1e6 / tokens - bare.write,
        ),
    ] {
        report.figure(key, label, us, "us");
    }

    report.section(
        "paced_4_by_8_out_of_step",
        "the same where no two slots share a step",
    );
    let (usage, tokens) = flood_slots(&pace);
    summarise(report, &usage, tokens);
}

/// What 32 streams of 4 models with 8 slots each cost at a pace, and their tokens.
fn flood_slots(pace: &str) -> (Usage, f64) {
    let daemon = start_with(pace, STREAMS / SLOTS, SLOTS);
    let watch = Watch::start(&daemon);
    thread::scope(|scope| {
        for number in 0..STREAMS {
            thread::sleep(PACE / STREAMS as u32);
            let model = name(number % (STREAMS / SLOTS));
            let address = daemon.address;
            scope.spawn(move || count_stream(address, &model, PACED_TOKENS));
        }
    });
    (watch.stop(), STREAMS as f64 * f64::from(PACED_TOKENS))
}

/// A daemon with 32 loaded models.
fn start(pace: &str) -> Daemon {
    start_with(pace, STREAMS, 1)
}

/// One with so many loaded models, of so many slots each.
fn start_with(pace: &str, models: usize, slots: usize) -> Daemon {
    let scenario = format!(
        "repeat = {{ token = \"tok \", times = 2000000000 }}\nmax-context-limit = 2000000000\n{pace}"
    );
    let mut setup = Setup::new().settings(&format!("models.max-loaded = {models}"));
    for number in 0..models {
        setup = setup.scenario(&name(number), &scenario).model_file(
            &name(number),
            "model.toml",
            &format!("template = \"chatml\"\ncontext-length = 1999999968\nparallel = {slots}\n"),
        );
    }
    let daemon = setup.start();
    for number in 0..models {
        let body = completion(&name(number), "load", json!({"max_tokens": 1}));
        let answer = daemon.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    daemon
}

fn name(number: usize) -> String {
    format!("m{number}")
}

/// Reads `streams` streams of `tokens` tokens each at the same time, each begun so much later than the one
/// before.
fn flood(report: &mut Report, daemon: &Daemon, streams: usize, tokens: u32, later: Duration) {
    let watch = Watch::start(daemon);
    thread::scope(|scope| {
        for number in 0..streams {
            thread::sleep(later);
            scope.spawn(move || count_stream(daemon.address, &name(number), tokens));
        }
    });
    summarise(report, &watch.stop(), streams as f64 * f64::from(tokens));
}

fn summarise(report: &mut Report, usage: &Usage, tokens: f64) {
    let per_token = |seconds: f64| seconds * 1e6 / tokens;
    report.figure(
        "events_per_second",
        "events, one token each",
        tokens / usage.elapsed_s,
        "/s",
    );
    report.figure(
        "daemon_cpu_us_per_token",
        "CPU of the daemon per token",
        per_token(usage.daemon_s),
        "us",
    );
    report.figure(
        "workers_cpu_us_per_token",
        "CPU of the workers per token",
        per_token(usage.workers_s),
        "us",
    );
    report.figure(
        "client_cpu_us_per_token",
        "CPU of this client per token",
        per_token(usage.client_s),
        "us",
    );
    report.detail("tokens", json!(tokens));
    let mut threads = Map::new();
    for (name, spent) in usage.by_name() {
        let us = per_token(spent.seconds);
        if us < LEAST_US_NAMED {
            continue;
        }
        let turns = spent.turns.map(|turns| turns / tokens);
        let in_turns = turns.map_or(String::new(), |turns| format!(" in {turns:.2} turns"));
        report.note(format!("{name}: {us:.1} us{in_turns} per token"));
        let (us, turns) = (rounded(us), turns.map(rounded));
        threads.insert(
            name,
            json!({"cpu_us_per_token": us, "turns_per_token": turns}),
        );
    }
    report.detail("threads", Value::Object(threads));
    for line in usage.bound() {
        report.note(line);
    }
}
