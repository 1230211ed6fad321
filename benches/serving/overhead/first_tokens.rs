//! The time to first token: what the daemon adds to the bare loop's, what another bare loop adds, and what of
//! the one is beyond the other.

use serde_json::json;

use super::{Round, Start, Way};
use crate::intervals::{Interval, of_difference};
use crate::report::{Report, Target, rounded};
use crate::statistics::{median, quantile};

/// What p99 may be at most.
const P99_MS: f64 = 4.0;

/// What summarises the rounds' values.
type Figure = fn(Vec<f64>) -> f64;

pub(super) fn report_on(report: &mut Report, starts: &[Start]) {
    let all = |of: &dyn Fn(&Round) -> f64| -> Vec<f64> {
        starts.iter().flat_map(Start::rounds).map(of).collect()
    };
    report.figure(
        "bare_first_token_ms",
        "bare loop, time to first token, median of 150",
        median(all(&|round| round.bare.first_token_ms)),
        "ms",
    );
    report.figure(
        "http_first_token_ms",
        "HTTP stream, time to first token, median of 150",
        median(all(&|round| round.served.first_token_ms)),
        "ms",
    );
    let added = all(&|round| round.added_first_token_ms(Way::Http));
    report.promise(
        "added_first_token_ms",
        "added to the time to first token, median",
        (middle(added.clone()), "ms"),
        Target::AtMost(1.5),
    );
    report.figure(
        "added_first_token_p90_ms",
        "likewise, p90",
        p90(added.clone()),
        "ms",
    );
    report.promise(
        "added_first_token_p99_ms",
        "likewise, p99",
        (p99(added.clone()), "ms"),
        Target::AtMost(P99_MS),
    );
    let null = all(&|round| round.added_first_token_ms(Way::Other));
    let figures: [(&str, &'static str, Figure); 3] = [
        (
            "null_first_token_ms",
            "other bare loop in the daemon's place, median",
            middle,
        ),
        ("null_first_token_p90_ms", "likewise, p90", p90),
        ("null_first_token_p99_ms", "likewise, p99", p99),
    ];
    for (key, label, figure) in figures {
        report.figure(key, label, figure(null.clone()), "ms");
    }
    let slow = |added: &[f64]| added.iter().filter(|ms| **ms > P99_MS).count();
    report.note(format!(
        "rounds with more than {P99_MS} ms: {} of {}, of the other bare loop {}",
        slow(&added),
        added.len(),
        slow(&null)
    ));
    report.detail("slow_rounds", json!(slow(&added)));
    report.detail("null_slow_rounds", json!(slow(&null)));
    report_beyond_null(report, starts);
    let outside = all(&|round| round.added_outside_prefill_ms(Way::Http));
    report.figure(
        "added_outside_prefill_ms",
        "the daemon's without the library's own prefill",
        middle(outside.clone()),
        "ms",
    );
    report.figure(
        "added_outside_prefill_p99_ms",
        "likewise, p99",
        p99(outside),
        "ms",
    );
}

/// What a figure of the daemon's has beyond the same of the other bare loop.
fn report_beyond_null(report: &mut Report, starts: &[Start]) {
    let pairs = |start: &Start| -> Vec<(f64, f64)> {
        let added =
            |round: &Round| [Way::Other, Way::Http].map(|way| round.added_first_token_ms(way));
        start.rounds().map(added).map(<(f64, f64)>::from).collect()
    };
    let starts: Vec<Vec<(f64, f64)>> = starts.iter().map(pairs).collect();
    let figures: [(&str, &'static str, Figure); 3] = [
        (
            "median",
            "the daemon's less the other loop's, median",
            middle,
        ),
        ("p90", "likewise, p90", p90),
        ("p99", "likewise, p99", p99),
    ];
    for (name, label, figure) in figures {
        let Interval { figure, low, high } = of_difference(&starts, figure);
        report.figure(&format!("beyond_null_{name}_ms"), label, figure, "ms");
        report.note(format!(
            "between {low:.3} and {high:.3} ms with 90 % confidence"
        ));
        report.detail(
            &format!("beyond_null_{name}_interval_ms"),
            json!([rounded(low), rounded(high)]),
        );
    }
    report.note("of 150 rounds two lie at p99 or above: its interval may end too early");
}

fn middle(values: Vec<f64>) -> f64 {
    median(values)
}

fn p90(values: Vec<f64>) -> f64 {
    quantile(values, 0.9)
}

fn p99(values: Vec<f64>) -> f64 {
    quantile(values, 0.99)
}
