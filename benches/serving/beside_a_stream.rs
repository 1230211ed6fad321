//! The times between the tokens of a stream of the demo model while something goes on beside it, and while
//! nothing does, in turns.

use std::time::Instant;

use serde_json::json;

use crate::daemon_support::{Daemon, EventStream, completion};
use crate::report::{Report, Target};
use crate::statistics::{median, quantile};

pub const MODEL: &str = "smollm2";
const PAIRS: usize = 5;
const TOKENS: u32 = 256;
/// Fewer tell nothing of the slowest in a hundred.
const LEAST_GAPS: usize = 100;
const PROMPT: &str = "Once upon a time there was a small village by the sea, where an old man";

/// Times between the tokens of a stream, in milliseconds.
pub fn gaps(daemon: &Daemon) -> Vec<f64> {
    let values = json!({
        "stream": true, "temperature": 0, "repeat_penalty": 1.0, "max_tokens": TOKENS,
        "ignore_eos": true,
    });
    let body = completion(MODEL, PROMPT, values);
    let mut stream = EventStream::open(daemon.address, "/v1/completions", &body);
    assert_eq!(stream.status, 200);
    let mut times = Vec::new();
    while stream.next_content().is_some() {
        times.push(Instant::now());
    }
    let gaps: Vec<f64> = (times.windows(2))
        .map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3)
        .collect();
    assert!(gaps.len() >= LEAST_GAPS, "{} gaps", gaps.len());
    gaps
}

/// Gaps without and with; who comes first alternates.
pub struct Pairs(Vec<(Vec<f64>, Vec<f64>)>);

impl Pairs {
    /// `beside` gives the gaps of a stream beside which something goes on.
    pub fn measure(daemon: &Daemon, mut beside: impl FnMut(usize) -> Vec<f64>) -> Self {
        let pair = |number| match number % 2 {
            0 => {
                let alone = gaps(daemon);
                (alone, beside(number))
            }
            _ => {
                let disturbed = beside(number);
                (gaps(daemon), disturbed)
            }
        };
        Self((0..PAIRS).map(pair).collect())
    }

    /// `labels`: of the ratio of medians, and of the ratio of the slowest.
    pub fn promise(&self, report: &mut Report, labels: [&'static str; 2]) {
        let middle = |gaps: &[f64]| median(gaps.iter().copied());
        let slow = |gaps: &[f64]| quantile(gaps.iter().copied(), 0.99);
        report.figure(
            "gap_median_ms",
            "between two tokens, median",
            self.alone(middle),
            "ms",
        );
        report.figure(
            "gap_p99_ms",
            "between two tokens, p99",
            self.alone(slow),
            "ms",
        );
        let [of_medians, of_slowest] = labels;
        report.promise(
            "gap_median_ratio",
            of_medians,
            (self.ratio(middle), ""),
            Target::AtMost(1.1),
        );
        report.promise(
            "gap_p99_ratio",
            of_slowest,
            (self.ratio(slow), ""),
            Target::AtMost(1.5),
        );
    }

    fn alone(&self, of: fn(&[f64]) -> f64) -> f64 {
        median(self.0.iter().map(|(alone, _)| of(alone)))
    }

    fn ratio(&self, of: fn(&[f64]) -> f64) -> f64 {
        let ratios = self
            .0
            .iter()
            .map(|(alone, disturbed)| of(disturbed) / of(alone));
        median(ratios)
    }
}
