//! `make soak`: a crowd that must get its answers to the byte, and strangers beside it, for a long
//! time; what the daemon and its readers hold at the end is compared with what they held early on.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::daemon_support::readers;
use crate::family;
use crate::outcome::Ended;
use crate::plan::Plan;
use crate::report::{Report, Target};
use crate::scenario::{self, MODELS};
use crate::statistics::median;
use crate::strangers::{Strangers, Visits};

const FAMILY: &str = "1_3_1";
const INTERVAL: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// What one look found, in megabytes.
struct Held {
    after: Duration,
    daemon_mb: f64,
    readers_mb: f64,
}

impl Held {
    fn total_mb(&self) -> f64 {
        self.daemon_mb + self.readers_mb
    }
}

pub fn measure(report: &mut Report, plan: Plan, length: Duration) {
    report.section("soak", "a crowd with strangers beside it");
    let answers = scenario::answers();
    let daemon = family::start(FAMILY, &answers, &[]);
    let (open, going) = (AtomicUsize::new(0), AtomicBool::new(true));
    let models = daemon.folder().join("models");
    let crowd = Crowd {
        address: daemon.address,
        plan,
        name: "soak",
        answers: &answers,
        slow_reader_timeout: Duration::from_secs(1),
        open: &open,
        going: &going,
        poison: false,
    };
    let strangers = Strangers {
        address: daemon.address,
        daemon: daemon.pid(),
        models: &models,
        model: MODELS[0].id,
        open: &open,
        going: &going,
    };
    let decisions = |of: &str| plan.decisions(("soak", of));
    let (tally, visits, held) = thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd.run());
        let strangers = scope.spawn(|| strangers.run(decisions("clients"), decisions("folders")));
        let held = watch(daemon.pid(), length);
        going.store(false, Ordering::Relaxed);
        (
            crowd.join().expect("the crowd does not panic"),
            strangers.join().expect("the strangers do not panic"),
            held,
        )
    });
    for (name, count) in tally.by_name() {
        report.note(format!("  {count:>7}  {name}"));
    }
    let findings: Vec<_> = tally.findings().collect();
    report.promise(
        "findings",
        "answers of the crowd that were not as they must be",
        (findings.len() as f64, ""),
        Target::AtMost(0.0),
    );
    for (fault, what) in findings.iter().take(5) {
        report.note(format!("{fault:?}: {what}"));
    }
    let complete = tally.count(|ended| matches!(ended, Ended::Complete));
    report.promise(
        "complete",
        "complete answers",
        (complete as f64, ""),
        Target::AtLeast(1.0),
    );
    report_visits(report, &visits);
    report_memory(report, &held, length);
}

/// What the strangers did, and that no client paid for it.
pub fn report_visits(report: &mut Report, visits: &Visits) {
    for (name, count) in &visits.made {
        report.note(format!("  {count:>7}  {name}"));
    }
    report.promise(
        "visits",
        "visits of strangers",
        (visits.count() as f64, ""),
        Target::AtLeast(9.0),
    );
    report.promise(
        "stranger_findings",
        "after which something was not as it must be",
        (visits.findings.len() as f64, ""),
        Target::AtMost(0.0),
    );
    for what in visits.findings.iter().take(8) {
        let what: String = what.chars().take(300).collect();
        report.note(what);
    }
    report.figure(
        "slowest_health_ms",
        "slowest /health meanwhile",
        visits.slowest_health_ms,
        "ms",
    );
}

fn report_memory(report: &mut Report, held: &[Held], length: Duration) {
    // Of 20 minutes: minutes 5 to 10, and the last five.
    let quarter = length / 4;
    let between = |from: Duration, to: Duration| {
        let looks = held.iter().filter(|held| (from..to).contains(&held.after));
        median(looks.map(Held::total_mb))
    };
    let early = between(quarter, 2 * quarter);
    let late = between(3 * quarter, length + quarter);
    report.figure("early_mb", "PSS in the second quarter, median", early, "MB");
    report.figure("late_mb", "PSS in the last quarter, median", late, "MB");
    report.promise(
        "growth_mb",
        "growth",
        (late - early, "MB"),
        Target::AtMost(2.0),
    );
    let most = |of: fn(&Held) -> f64| held.iter().map(of).fold(0.0, f64::max);
    report.figure(
        "daemon_peak_mb",
        "the daemon's largest",
        most(|h| h.daemon_mb),
        "MB",
    );
    report.figure(
        "readers_peak_mb",
        "its readers' largest",
        most(|h| h.readers_mb),
        "MB",
    );
}

fn watch(daemon: u32, length: Duration) -> Vec<Held> {
    let began = Instant::now();
    let mut held = Vec::new();
    let mut next = began;
    while began.elapsed() < length {
        if Instant::now() >= next {
            held.push(Held {
                after: began.elapsed(),
                daemon_mb: proportional_mb(daemon).expect("the daemon lives"),
                // One that has just ended holds nothing.
                readers_mb: readers(daemon)
                    .into_iter()
                    .filter_map(proportional_mb)
                    .sum(),
            });
            next += INTERVAL;
        }
        thread::sleep(POLL);
    }
    held
}

/// Proportional set size: what is shared counts in parts.
fn proportional_mb(pid: u32) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
