//! A figure of both, in pairs: the medians, and the ratio with its interval.

use serde_json::json;

use crate::intervals::{Interval, of_median};
use crate::report::{Report, Target, rounded};
use crate::statistics::median;

/// How often each is measured, unless the environment says otherwise.
const PAIRS: usize = 7;
const VARIABLE: &str = "BENCH_PAIRS";

fn pairs() -> usize {
    let Some(text) = std::env::var_os(VARIABLE) else {
        return PAIRS;
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    let number = number.filter(|&number| number > 0);
    number.unwrap_or_else(|| panic!("{VARIABLE} must be a number of pairs, but is {text:?}"))
}

/// `measure` gets the number of the pair, and whether it is asked for ours. Who is first alternates, so
/// that neither always has the machine as the other left it.
pub fn in_turns<T>(mut measure: impl FnMut(usize, bool) -> T) -> Vec<(T, T)> {
    (0..pairs())
        .map(|pair| {
            if pair % 2 == 0 {
                let ours = measure(pair, true);
                (ours, measure(pair, false))
            } else {
                let theirs = measure(pair, false);
                (measure(pair, true), theirs)
            }
        })
        .collect()
}

#[derive(Clone, Copy)]
pub enum Better {
    More,
    Less,
}

/// What a figure is called.
#[derive(Clone, Copy)]
pub struct Figure {
    pub key: &'static str,
    pub ours: &'static str,
    pub theirs: &'static str,
    pub ratio: &'static str,
    pub unit: &'static str,
    pub better: Better,
    /// Of the ratio, ours to theirs.
    pub target: f64,
}

pub fn compare(report: &mut Report, figure: Figure, pairs: &[(f64, f64)]) {
    let ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
    let Interval {
        figure: ratio,
        low,
        high,
    } = of_median(&ratios);
    let key = |part: &str| format!("{}_{part}", figure.key);
    let ours = median(pairs.iter().map(|pair| pair.0));
    let theirs = median(pairs.iter().map(|pair| pair.1));
    report.figure(&key("ours"), figure.ours, ours, figure.unit);
    report.figure(&key("theirs"), figure.theirs, theirs, figure.unit);
    report.note(format!(
        "ours / theirs: {ratio:.3}, between {low:.3} and {high:.3} with 90 % confidence"
    ));
    report.detail(&key("ratio"), json!(rounded(ratio)));
    let all: Vec<f64> = ratios.into_iter().map(rounded).collect();
    report.detail(&key("ratios"), json!(all));
    // The end of the interval that is nearer to what is promised.
    let (end, target) = match figure.better {
        Better::More => (high, Target::AtLeast(figure.target)),
        Better::Less => (low, Target::AtMost(figure.target)),
    };
    report.promise(&key("interval_end"), figure.ratio, (end, ""), target);
}
