//! What a daemon costs that is asked nothing and looks at a board's sensors: CPU time, descriptors, and
//! memory beside that of one which looks at none. The board is a copy, made of documented facts.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::board_support::Board;
use crate::daemon_support::{Daemon, Setup, cpu_ticks, descriptors, eventually, resident_bytes};
use crate::report::{Report, Target};

const BOARD: &str = "invented-rk3588-vendor-6.1";
const SPAN: Duration = Duration::from_secs(60);
/// Seconds instead of `SPAN`.
const VARIABLE: &str = "BENCH_IDLE_SECONDS";
/// What follows a start has happened by then.
const SETTLING: Duration = Duration::from_secs(5);
const TICKS_PER_SECOND: f64 = 100.0;

pub fn measure(report: &mut Report) {
    let span = match std::env::var(VARIABLE) {
        Ok(text) => Duration::from_secs(text.parse().expect("a number of seconds")),
        Err(_) => SPAN,
    };
    let seconds = span.as_secs();
    report.section(
        "idle",
        &format!("asked nothing for {seconds} s, a board's sensors looked at"),
    );
    report.detail("seconds", json!(seconds));
    let without = resident_bytes(start("board.interval = \"0s\"").pid());

    let board = Board::of(BOARD);
    let root = board.root().to_str().expect("UTF-8");
    let daemon = start(&format!("board.root = {root:?}"));
    eventually("a look at the board", || {
        let told = daemon.get("/v1/status").json();
        told["board"].is_object().then_some(())
    });
    let (open, ticks) = (descriptors(daemon.pid()).len(), cpu_ticks(daemon.pid()));
    thread::sleep(span);
    let ticks = cpu_ticks(daemon.pid()) - ticks;
    let used = ticks as f64 / TICKS_PER_SECOND / span.as_secs_f64();
    report.promise(
        "cpu_percent",
        "CPU of the daemon, part of one core",
        (used * 100.0, "%"),
        Target::Below(0.2),
    );
    report.promise(
        "more_descriptors",
        "descriptors, difference of end and beginning",
        (descriptors(daemon.pid()).len().abs_diff(open) as f64, ""),
        Target::AtMost(0.0),
    );
    let with = resident_bytes(daemon.pid());
    report.promise(
        "more_resident_mb",
        "resident memory, more than without sensors",
        ((with as f64 - without as f64) / 1e6, "MB"),
        Target::AtMost(1.0),
    );
}

/// A daemon that has answered once, as those do that are looked after, and has settled.
fn start(settings: &str) -> Daemon {
    let daemon = Setup::new().settings(settings).start();
    assert_eq!(daemon.get("/v1/status").status, 200);
    thread::sleep(SETTLING);
    daemon
}
