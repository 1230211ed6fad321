//! What the daemon costs without a client: the time until it serves, and its memory.

use std::thread;
use std::time::{Duration, Instant};

use crate::daemon_support::{Setup, children, resident_bytes};
use crate::report::{Report, Target};
use crate::statistics::{largest, median};

const STARTS: usize = 10;
/// Nothing happens in a daemon that was left alone for this long after its first answer.
const SETTLING: Duration = Duration::from_millis(200);

pub fn measure(report: &mut Report) {
    report.section("startup", "start and idle, demo model installed, 10 starts");
    let mut starts_ms = Vec::new();
    let mut resident_mb = Vec::new();
    for _ in 0..STARTS {
        let setup = Setup::new().demo_model("smollm2");
        let before = Instant::now();
        let daemon = setup.start();
        let health = daemon.get("/health");
        starts_ms.push(before.elapsed().as_secs_f64() * 1e3);
        assert_eq!(health.status, 200, "{}", health.body);
        thread::sleep(SETTLING);
        assert!(
            children(daemon.pid()).is_empty(),
            "a worker was started unasked"
        );
        resident_mb.push(resident_bytes(daemon.pid()) as f64 / 1e6);
    }
    report.promise(
        "first_answer_ms",
        "exec to the first answer of /health, median",
        (median(starts_ms.iter().copied()), "ms"),
        Target::AtMost(100.0),
    );
    report.figure(
        "first_answer_max_ms",
        "the slowest start",
        largest(starts_ms),
        "ms",
    );
    report.promise(
        "idle_rss_mb",
        "resident memory of the idle daemon, median",
        (median(resident_mb), "MB"),
        Target::Below(15.0),
    );
}
