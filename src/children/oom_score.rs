//! Whom the kernel kills first when memory is short: children, then anything else of the machine, and the
//! daemon, which starts another child, late (`OOMScoreAdjust` in its unit). A process may raise its own
//! score without any right, and what it starts inherits it.

use std::fs;

/// As if a child held half of the memory that is short beside what it holds: before the daemon and other
/// services, and among children the largest first.
const SCORE: i32 = 500;
const FILE: &str = "/proc/self/oom_score_adj";

/// Raises the score of this process, unless it is as high. Best effort: without it the kernel goes by size.
pub fn raise() {
    let score = fs::read_to_string(FILE).ok();
    let score = score.and_then(|score| score.trim().parse::<i32>().ok());
    if score.is_some_and(|score| score >= SCORE) {
        return;
    }
    if let Err(error) = fs::write(FILE, SCORE.to_string()) {
        eprintln!("W rkllmd: {FILE} cannot be set to {SCORE}: {error}");
    }
}
