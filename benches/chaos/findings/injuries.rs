//! That each injury happened and was reported.

use std::collections::BTreeMap;

use serde_json::json;

use super::none_found;
use crate::family::FamilyRun;
use crate::injector::{Injury, Settled};
use crate::report::{Report, Target};
use crate::statistics::{largest, median};

pub fn report(report: &mut Report, runs: &[FamilyRun]) {
    report.section("injuries", "workers killed, hung and kept from loading");
    let all = || runs.iter().flat_map(|run| &run.injuries);
    let with = |settled: Settled| all().filter(move |injury| injury.settled == settled);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for injury in with(Settled::Counted) {
        *kinds.entry(injury.name).or_default() += 1;
    }
    let list: Vec<String> = kinds
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    for line in list.chunks(6) {
        report.note(line.join(", "));
    }
    report.detail("counted_by_kind", json!(kinds));
    let mut causes: BTreeMap<String, f64> = BTreeMap::new();
    for run in runs {
        let by_cause = run.metrics.by_label("rkllmd_worker_exits_total", "cause");
        for (cause, count) in by_cause {
            *causes.entry(cause).or_default() += count;
        }
    }
    report.detail("exits_by_cause", json!(causes));
    report.promise(
        "counted",
        "reported by waitpid as what it was, and gone",
        (with(Settled::Counted).count() as f64, ""),
        Target::AtLeast(10.0),
    );
    report.figure(
        "overtaken",
        "processes that were ending already",
        with(Settled::Overtaken).count() as f64,
        "",
    );
    let unused: usize = runs.iter().map(|run| run.unused_faults).sum();
    report.figure(
        "unused",
        "faults that no call came by for",
        unused as f64,
        "",
    );
    for (key, label, settled) in [
        (
            "unreported",
            "deaths that were not reported",
            Settled::Unreported,
        ),
        (
            "still_there",
            "reported processes that are still there",
            Settled::StillThere,
        ),
    ] {
        let shown = with(settled).map(|injury| format!("{}: {}", injury.name, injury.note));
        none_found(report, (key, label), shown.collect());
    }
    let noticed = |hang: bool| -> Vec<f64> {
        let of_kind = with(Settled::Counted).filter(|injury| injury.is_hang == hang);
        of_kind
            .filter_map(|injury: &Injury| injury.noticed_ms)
            .collect()
    };
    for (hang, median_key, median_label, longest_key, longest_label) in [
        (
            false,
            "death_noticed_ms",
            "from a death to its log line, median",
            "death_noticed_max_ms",
            "the longest",
        ),
        (
            true,
            "hang_noticed_ms",
            "from a hang under load to its log line, median",
            "hang_noticed_max_ms",
            "the longest",
        ),
    ] {
        let times = noticed(hang);
        if !times.is_empty() {
            report.figure(median_key, median_label, median(times.clone()), "ms");
            report.figure(longest_key, longest_label, largest(times), "ms");
        }
    }
}
