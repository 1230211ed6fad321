//! How sure a comparison is: the interval that a figure of pairs lies in, by drawing the pairs again.

#![allow(dead_code, reason = "each program uses a part of this")]

use crate::statistics::{median, quantile};

/// Draws of as many pairs as there are.
const DRAWS: usize = 2_000;
/// Of the figures of the draws, five of a hundred lie below the interval and five above.
const OUTSIDE: f64 = 0.05;

/// A figure, and what it is between with 90 % confidence.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub figure: f64,
    pub low: f64,
    pub high: f64,
}

/// Of the median. Of the same values always the same.
pub fn of_median(values: &[f64]) -> Interval {
    let mut random = fastrand::Rng::with_seed(1);
    let draws = (0..DRAWS).map(|_| {
        let drawn = values.iter().map(|_| values[random.usize(..values.len())]);
        median(drawn)
    });
    between(median(values.iter().copied()), draws.collect())
}

/// Of the second sides' figure less the first sides'. Pairs of one start are more alike than pairs of several, so
/// that starts are drawn, and pairs of each. Of the same pairs always the same.
pub fn of_difference(starts: &[Vec<(f64, f64)>], figure: fn(Vec<f64>) -> f64) -> Interval {
    let difference = |pairs: &[(f64, f64)]| {
        let (first, second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        figure(second) - figure(first)
    };
    let mut random = fastrand::Rng::with_seed(1);
    let draws = (0..DRAWS).map(|_| {
        let mut drawn = Vec::new();
        for _ in starts {
            let pairs = &starts[random.usize(..starts.len())];
            drawn.extend(pairs.iter().map(|_| pairs[random.usize(..pairs.len())]));
        }
        difference(&drawn)
    });
    between(difference(&starts.concat()), draws.collect())
}

fn between(figure: f64, draws: Vec<f64>) -> Interval {
    Interval {
        figure,
        low: quantile(draws.iter().copied(), OUTSIDE),
        high: quantile(draws, 1.0 - OUTSIDE),
    }
}
