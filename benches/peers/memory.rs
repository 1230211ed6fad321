//! Memory of eight slots after eight clients were served: ours with the cells that it has by default,
//! theirs with a whole context for each; and ours with as many.

use crate::crowd::round;
use crate::report::{Report, Target};
use crate::served::Served;

const SLOTS: usize = 8;
const MB: f64 = 1e6;

pub fn measure(report: &mut Report) {
    report.section("memory", "peak memory of 8 slots, after 8 clients");
    let peak = |served: Served| {
        round(served.address(), SLOTS, 0, 96);
        served.peak_bytes() as f64 / MB
    };
    // One after the other: neither has the other's pages to share.
    let ours = peak(Served::ours(SLOTS));
    let equal = format!("models.pool-contexts = {SLOTS}");
    let equal = peak(Served::ours_with(SLOTS, &equal));
    let theirs = peak(Served::theirs(SLOTS));
    report.figure("ours_mb", "rkllmd, all its processes", ours, "MB");
    report.figure("equal_mb", "rkllmd, with 8 contexts' cells", equal, "MB");
    report.figure("theirs_mb", "llama-server", theirs, "MB");
    let part = (ours / theirs, "");
    report.promise("ratio", "ours / theirs", part, Target::AtMost(0.5));
    let part = (equal / theirs, "");
    let label = "with equal cells, ours / theirs";
    report.promise("equal_ratio", label, part, Target::AtMost(1.05));
}
