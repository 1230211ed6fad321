//! The checks, in the order of the list in docs/benchmarks.md.

mod injuries;
mod requests;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::calm_hangs::{Detection, Disturbed};
use crate::comings::Came;
use crate::family::{DRAIN, FamilyRun, MAX_LOADED};
use crate::metrics::Metrics;
use crate::report::{Report, Target, rounded};
use crate::soak;
use crate::statistics::{largest, median, quantile};
use crate::steadiness::{Sample, growth};
use crate::strangers::Visits;

/// Findings of a kind that are printed in full.
const SHOWN: usize = 5;
/// Earlier than its deadline nothing may be given up; clocks and files agree to some milliseconds.
const EARLY_MS: f64 = -50.0;
const NONE: Target = Target::AtMost(0.0);

pub fn report(report: &mut Report, runs: &[FamilyRun], calm: &(Vec<Detection>, Disturbed)) {
    requests::report(report, runs);
    injuries::report(report, runs);
    deaths(report, runs);
    steadiness(report, runs);
    comings(report, runs);
    strangers(report, runs);
    hangs(report, runs, calm);
    shutdown(report, runs);
}

fn comings(report: &mut Report, runs: &[FamilyRun]) {
    report.section(
        "comings",
        "a client of Ollama's API that loads, keeps and unloads what the crowd uses",
    );
    let mut all = Came::default();
    for run in runs {
        all.merge(&run.came);
    }
    let count = |count: usize| count as f64;
    report.figure("answered", "questions answered", count(all.answered), "");
    report.figure(
        "refused",
        "requests that an injury hit",
        count(all.refused),
        "",
    );
    report.figure(
        "left",
        "unloads that were left to the daemon",
        count(all.left),
        "",
    );
    report.promise(
        "unloaded",
        "models unloaded, whose worker's end was waited for",
        (count(all.unloaded), ""),
        Target::AtLeast(1.0),
    );
    none_found(
        report,
        ("findings", "wrong answers, untyped errors"),
        all.findings,
    );
}

fn strangers(report: &mut Report, runs: &[FamilyRun]) {
    report.section(
        "strangers",
        "clients and folders that mean harm, beside the crowd",
    );
    let mut all = Visits::default();
    for run in runs {
        all.merge(run.visits.clone());
    }
    soak::report_visits(report, &all);
    let kept = runs
        .iter()
        .map(|run| run.after_strangers.resident_mb - run.quiet_before.resident_mb);
    report.promise(
        "kept_mb",
        "resident memory that they leave behind, at most",
        (largest(kept), "MB"),
        Target::AtMost(20.0),
    );
}

fn deaths(report: &mut Report, runs: &[FamilyRun]) {
    report.section("streams", "2. streams whose worker died in the middle");
    let sum = |of: fn(&FamilyRun) -> usize| -> f64 { runs.iter().map(of).sum::<usize>() as f64 };
    let streams = sum(|run| run.deaths.streams);
    let poisoned = sum(|run| run.deaths.poisoned);
    let gone = sum(|run| run.deaths.readers_gone);
    report.promise("streams", "streams", (streams, ""), Target::AtLeast(1.0));
    report.figure(
        "poisoned",
        "of them at a second fault, refused",
        poisoned,
        "",
    );
    report.figure("readers_gone", "of them left by their readers", gone, "");
    let complete = sum(|run| run.deaths.complete);
    let due = (streams - poisoned - gone).max(1.0);
    report.promise(
        "resumed_share",
        "resumed and complete, of the others",
        (100.0 * complete / due, "%"),
        Target::AtLeast(99.0),
    );
    let told: u64 = runs.iter().map(|run| run.deaths.resumptions_told).sum();
    report.promise(
        "resumptions_told",
        "resumptions that answers tell of",
        (told as f64, ""),
        Target::AtLeast(1.0),
    );
    let gaps: Vec<f64> = runs
        .iter()
        .flat_map(|run| run.deaths.gaps_ms.clone())
        .collect();
    let beyond: Vec<f64> = runs
        .iter()
        .flat_map(|run| run.deaths.beyond_load_ms.clone())
        .collect();
    if gaps.is_empty() {
        report.promise(
            "gaps",
            "gaps that were measured",
            (0.0, ""),
            Target::AtLeast(1.0),
        );
        return;
    }
    report.figure("gaps", "gaps that were measured", gaps.len() as f64, "");
    report.figure(
        "exit_to_token_ms",
        "exit to next token at the reader, median",
        median(gaps.clone()),
        "ms",
    );
    report.figure("exit_to_token_p99_ms", "p99", quantile(gaps, 0.99), "ms");
    report.promise(
        "gap_ms",
        "likewise beyond starting and loading, median",
        (median(beyond.clone()), "ms"),
        Target::AtMost(100.0),
    );
    report.figure("gap_p99_ms", "p99", quantile(beyond, 0.99), "ms");
    let pages: Vec<&Metrics> = runs.iter().map(|run| &run.metrics).collect();
    for (metric, median_key, median_label, p99_key) in [
        (
            "rkllmd_resume_gap_seconds",
            "daemon_exit_to_token_ms",
            "exit to next token as the daemon counts it, median at most",
            "daemon_exit_to_token_p99_ms",
        ),
        (
            "rkllmd_resume_overhead_seconds",
            "daemon_gap_ms",
            "likewise beyond starting, loading and prefill, median at most",
            "daemon_gap_p99_ms",
        ),
    ] {
        let histogram = Metrics::histogram(&pages, metric);
        for (key, label, share) in [
            (median_key, median_label, 0.5),
            (p99_key, "p99 at most", 0.99),
        ] {
            if let Some(seconds) = histogram.at_most(share) {
                report.figure(key, label, seconds * 1e3, "ms");
            }
        }
    }
}

fn steadiness(report: &mut Report, runs: &[FamilyRun]) {
    report.section(
        "steadiness",
        "3. what the daemon holds, the family where it grew most",
    );
    let worst = |of: &dyn Fn(&FamilyRun) -> f64| largest(runs.iter().map(of));
    report.promise(
        "rss_growth_mb",
        "resident memory, last third less first third",
        (worst(&|run| growth(&run.samples, |s| s.resident_mb)), "MB"),
        Target::AtMost(2.0),
    );
    for (key, label, of) in [
        (
            "descriptor_growth",
            "descriptors, quiet after less before",
            Sample::held_descriptors as fn(&Sample) -> f64,
        ),
        (
            "thread_growth",
            "threads, quiet after less before",
            Sample::held_threads,
        ),
    ] {
        let grown = worst(&|run| of(&run.quiet_after) - of(&run.quiet_before));
        report.promise(key, label, (grown, ""), Target::AtMost(2.0));
    }
    let under_load = |of: fn(&Sample) -> f64| worst(&|run| growth(&run.samples, of));
    report.figure(
        "descriptor_growth_under_load",
        "descriptors under load, third less third",
        under_load(Sample::held_descriptors),
        "",
    );
    report.figure(
        "thread_growth_under_load",
        "threads under load, third less third",
        under_load(Sample::held_threads),
        "",
    );
    let most = worst(&|run| largest(run.samples.iter().map(|sample| sample.children)));
    // While one takes the place of another, both may be there.
    report.promise(
        "children",
        "workers at once, ending ones included",
        (most, ""),
        Target::AtMost(2.0 * MAX_LOADED as f64),
    );
    report.promise(
        "children_quiet",
        "workers when nothing is asked",
        (worst(&|run| run.quiet_after.children), ""),
        Target::AtMost(MAX_LOADED as f64),
    );
    for run in runs {
        let memory: Vec<f64> = run.samples.iter().map(|s| rounded(s.resident_mb)).collect();
        let mut more = run.quiet_after.targets.clone();
        for held in &run.quiet_before.targets {
            if let Some(at) = more.iter().position(|target| target == held) {
                more.swap_remove(at);
            }
        }
        report.detail(
            run.family,
            json!({"resident_mb": memory, "more_descriptors": more}),
        );
    }
}

fn hangs(
    report: &mut Report,
    runs: &[FamilyRun],
    (detections, disturbed): &(Vec<Detection>, Disturbed),
) {
    report.section(
        "hangs",
        "4. hangs, each alone: found later than its deadline by",
    );
    for detection in detections {
        let over = || detection.over_ms.iter().copied();
        report.promise(
            detection.key,
            detection.label,
            (largest(over()), "ms"),
            Target::AtMost(1000.0),
        );
    }
    // A stopped process is found by whichever deadline comes first.
    let strict = detections
        .iter()
        .filter(|detection| detection.key != "sigstop_ms");
    let earliest = strict.flat_map(|detection| detection.over_ms.clone());
    report.promise(
        "earliest_ms",
        "the earliest of them, SIGSTOP apart",
        (-largest(earliest.map(|over| -over)), "ms"),
        Target::AtLeast(EARLY_MS),
    );
    let kind = ("disturbed", "answers that a hang kept from being whole");
    none_found(report, kind, disturbed.0.clone());
    let mut passed: BTreeMap<String, f64> = BTreeMap::new();
    for run in runs {
        for (name, count) in run
            .metrics
            .by_label("rkllmd_deadlines_passed_total", "deadline")
        {
            *passed.entry(name).or_default() += count;
        }
    }
    let list: Vec<String> = passed
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    report.note(format!("deadlines passed under load: {}", list.join(", ")));
    report.detail("deadlines_under_load", json!(passed));
    report.detail(
        "over_ms_by_family",
        Value::Array(
            detections
                .iter()
                .map(|d| json!({d.key: d.over_ms}))
                .collect(),
        ),
    );
}

fn shutdown(report: &mut Report, runs: &[FamilyRun]) {
    report.section("shutdown", "SIGTERM while answers are made, in each family");
    let failed = runs
        .iter()
        .filter(|run| run.drained.exit_code != Some(0))
        .count();
    report.promise(
        "exit_not_0",
        "exits with another code than 0",
        (failed as f64, ""),
        NONE,
    );
    let longest = largest(runs.iter().map(|run| run.drained.took.as_secs_f64()));
    report.promise(
        "drain_s",
        "longest until the exit",
        (longest, "s"),
        Target::AtMost(DRAIN.as_secs_f64()),
    );
    let left: usize = runs.iter().map(|run| run.drained.children_left).sum();
    report.promise(
        "children_left",
        "workers left behind",
        (left as f64, ""),
        NONE,
    );
    let cut = runs.iter().flat_map(|run| run.drained.cut.clone());
    none_found(report, ("cut", "streams without an end"), cut.collect());
}

/// Promises that nothing of a kind was found, and shows the first of what was.
fn none_found(report: &mut Report, (key, label): (&str, &'static str), found: Vec<String>) {
    report.promise(key, label, (found.len() as f64, ""), NONE);
    for what in found.into_iter().take(SHOWN) {
        report.note(what);
    }
}
