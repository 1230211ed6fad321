//! How sure a comparison is: the interval that the median of pairs lies in, by drawing the pairs again.

use crate::statistics::{median, quantile};

/// Draws of as many pairs as there are.
const DRAWS: usize = 2_000;
/// Of the medians of the draws, five of a hundred lie below the interval and five above.
const OUTSIDE: f64 = 0.05;

/// A median, and what it is between with 90 % confidence.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// Of the same values always the same.
pub fn of_median(values: &[f64]) -> Interval {
    let mut random = fastrand::Rng::with_seed(1);
    let draws = (0..DRAWS).map(|_| {
        let drawn = values.iter().map(|_| values[random.usize(..values.len())]);
        median(drawn)
    });
    let medians: Vec<f64> = draws.collect();
    Interval {
        median: median(values.iter().copied()),
        low: quantile(medians.iter().copied(), OUTSIDE),
        high: quantile(medians, 1.0 - OUTSIDE),
    }
}
