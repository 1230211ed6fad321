//! That every request ends, and as it must.

use std::collections::BTreeMap;

use serde_json::json;

use super::{NONE, none_found};
use crate::family::FamilyRun;
use crate::outcome::{Ended, Fault};
use crate::report::{Report, Target};

pub fn report(report: &mut Report, runs: &[FamilyRun]) {
    report.section("requests", "1. every request ends, and as it must");
    let started: u64 = runs.iter().map(|run| run.tally.started).sum();
    let total =
        |of: &dyn Fn(&Ended) -> bool| -> usize { runs.iter().map(|run| run.tally.count(of)).sum() };
    let ended = total(&|_| true);
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for run in runs {
        for (name, count) in run.tally.by_name() {
            *names.entry(name).or_default() += count;
        }
        let by_family = json!(run.tally.by_name());
        report.detail(run.family, by_family);
    }
    report.figure("started", "requests started", started as f64, "");
    for (name, count) in &names {
        report.note(format!("  {count:>7}  {name}"));
    }
    let unaccounted = started as f64 - ended as f64;
    report.promise("unaccounted", "started less ended", (unaccounted, ""), NONE);
    for (key, label, fault) in [
        ("hung", "hung: no byte for 60 s", Fault::Hung),
        (
            "wrong",
            "wrong, lost, repeated or foreign bytes or counts",
            Fault::Wrong,
        ),
        ("broken", "connections cut without an end", Fault::Broken),
        ("untyped", "errors without a known code", Fault::Untyped),
        (
            "no_retry_after",
            "429 without Retry-After",
            Fault::NoRetryAfter,
        ),
        (
            "poison_served",
            "poison prompts that ended otherwise",
            Fault::PoisonServed,
        ),
    ] {
        let all = runs.iter().flat_map(|run| run.tally.findings());
        let findings = all.filter(|(found, _)| *found == fault);
        let shown = findings.map(|(_, what)| {
            let what: String = what.chars().take(300).collect();
            format!("{fault:?}: {what}")
        });
        none_found(report, (key, label), shown.collect());
    }
    let complete = total(&|ended| matches!(ended, Ended::Complete)) as f64;
    let failed = total(&|ended| matches!(ended, Ended::Failed(_)));
    let excused_as_poison: usize = runs.iter().map(|run| run.deaths.rightly_poisoned).sum();
    let failed = (failed - excused_as_poison) as f64;
    report.promise(
        "complete_share",
        "complete, of those that nothing excuses",
        (100.0 * complete / (complete + failed), "%"),
        Target::AtLeast(99.0),
    );
    for (key, label, of) in [
        (
            "disconnected",
            "clients that left",
            excused(|ended| matches!(ended, Ended::Disconnected)),
        ),
        (
            "slow_readers",
            "slow readers told so",
            excused(|ended| matches!(ended, Ended::SlowReader)),
        ),
        (
            "over_capacity",
            "refused over capacity",
            excused(|ended| matches!(ended, Ended::OverCapacity)),
        ),
        (
            "poison",
            "poison prompts refused",
            excused(|ended| matches!(ended, Ended::Poison)),
        ),
    ] {
        // What never happened was not tested.
        report.promise(key, label, (total(&of) as f64, ""), Target::AtLeast(1.0));
    }
    let runs_complete = total(&|ended| matches!(ended, Ended::RunComplete));
    report.promise(
        "handle_runs",
        "runs of handles with their whole answers",
        (runs_complete as f64, ""),
        Target::AtLeast(1.0),
    );
    let runs_lost = total(&|ended| matches!(ended, Ended::RunLost(_)));
    report.figure(
        "handle_runs_lost",
        "runs of handles that ended with their worker",
        runs_lost as f64,
        "",
    );
    report.figure(
        "rightly_poisoned",
        "other requests refused after two faults",
        excused_as_poison as f64,
        "",
    );
    let wrongly = runs
        .iter()
        .flat_map(|run| run.deaths.wrongly_poisoned.clone());
    let kind = (
        "wrongly_poisoned",
        "refused as poison without two faults in the log",
    );
    none_found(report, kind, wrongly.collect());
}

fn excused(of: fn(&Ended) -> bool) -> fn(&Ended) -> bool {
    of
}
