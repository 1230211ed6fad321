//! `make chaos`: many clients of a daemon whose workers are killed, hang and fail to load, by a
//! recorded seed; what each client must get is known to the byte. Prints what it found and one line
//! of JSON. With `SOAK_SECONDS` it is `make soak`: no injuries, a longer time. The exit code is 1 when a check fails,
//! which it names, and 2 when something could not be measured.

#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;

#[path = "../common/bare_loop.rs"]
mod bare_loop;
mod calm_hangs;
mod client;
mod comings;
mod crowd;
mod deaths;
mod drain;
mod fairness;
mod family;
mod faults;
mod findings;
mod handles;
mod injector;
#[path = "../common/interruption.rs"]
mod interruption;
mod log_watch;
mod metrics;
mod outcome;
mod plan;
mod real_model;
#[path = "../common/report.rs"]
mod report;
mod scenario;
mod slots;
mod soak;
mod source_address;
#[path = "../common/statistics.rs"]
mod statistics;
mod steadiness;
mod strangers;

use std::process::ExitCode;
use std::time::Duration;

use daemon_support::FAMILIES_RUN;
use plan::Plan;
use report::Report;

/// For what is not crowd and injuries, several times what it takes.
const OTHER_PARTS: Duration = Duration::from_secs(6 * 60);

fn main() -> ExitCode {
    let plan = Plan::from_environment();
    eprintln!("CHAOS_SEED={}", plan.seed);
    if let Some(length) = plan.soak {
        return interruption::run(2 * length + OTHER_PARTS, move || {
            let mut report = Report::new();
            soak::measure(&mut report, plan, length);
            report
        });
    }
    interruption::run(2 * plan.load + OTHER_PARTS, move || measure(plan))
}

fn measure(plan: Plan) -> Report {
    let mut report = Report::new();
    report.section("plan", "the run");
    report.note(format!("CHAOS_SEED={} repeats these decisions", plan.seed));
    report.detail("seed", plan.seed.into());
    let load = plan.load / FAMILIES_RUN.len() as u32;
    let runs: Vec<_> = FAMILIES_RUN
        .iter()
        .map(|family| {
            eprintln!("crowd and injuries: runtime family {family}, {load:?}");
            family::run(plan, family, load)
        })
        .collect();
    eprintln!("each kind of hang alone, in each family");
    let calm = calm_hangs::measure(&FAMILIES_RUN);
    findings::report(&mut report, &runs, &calm);
    eprintln!("a client with four handles and one with a chat");
    fairness::measure(&mut report);
    eprintln!("eight answers at once on one worker");
    slots::measure(&mut report, plan);
    if cfg!(debug_assertions) {
        report.note("the real model is left out: this is a debug build");
    } else {
        real_model::measure(&mut report, plan);
    }
    report
}
