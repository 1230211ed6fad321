//! A promise of a benchmark is missed only where what was measured says so with confidence.

use proptest::prelude::*;

use crate::intervals::{of_difference, of_median};
use crate::statistics::{median, quantile};

#[test]
fn pairs_that_agree_leave_no_doubt() {
    let interval = of_median(&[1.25; 7]);
    assert_eq!(
        [interval.low, interval.figure, interval.high],
        [1.25, 1.25, 1.25]
    );
}

#[test]
fn pairs_that_differ_leave_some() {
    let interval = of_median(&[0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.4]);
    assert_eq!(interval.figure, 1.0);
    assert!(interval.low < 0.96 && interval.low > 0.8, "{interval:?}");
    assert!(interval.high > 1.04 && interval.high < 1.4, "{interval:?}");
}

proptest! {
    #[test]
    fn an_interval_holds_its_median(values in prop::collection::vec(0.1..9.0_f64, 1..12)) {
        let interval = of_median(&values);
        prop_assert!(interval.low <= interval.figure && interval.figure <= interval.high);
        prop_assert!(values.iter().any(|value| *value <= interval.low));
        prop_assert!(values.iter().any(|value| *value >= interval.high));
    }
}

fn middle(values: Vec<f64>) -> f64 {
    median(values)
}

fn p90(values: Vec<f64>) -> f64 {
    quantile(values, 0.9)
}

/// Values that no two starts have alike.
fn start(number: u32) -> impl Iterator<Item = f64> {
    (0..30).map(move |nth| f64::from((nth * 7 + number * 11) % 30) + f64::from(number))
}

#[test]
fn what_is_added_to_each_is_the_difference() {
    let starts: Vec<Vec<(f64, f64)>> = (0..5)
        .map(|number| start(number).map(|it| (it, it + 0.5)).collect())
        .collect();
    for figure in [middle, p90] {
        let interval = of_difference(&starts, figure);
        assert_eq!(
            [interval.low, interval.figure, interval.high],
            [0.5, 0.5, 0.5]
        );
    }
}

#[test]
fn two_sides_of_one_kind_do_not_differ_with_confidence() {
    let starts: Vec<Vec<(f64, f64)>> = (0..5)
        .map(|number| {
            start(number)
                .zip(start(number).skip(11).chain(start(number).take(11)))
                .collect()
        })
        .collect();
    for figure in [middle, p90] {
        let interval = of_difference(&starts, figure);
        assert_eq!(interval.figure, 0.0);
        assert!(interval.low < 0.0 && interval.high > 0.0, "{interval:?}");
    }
}

#[test]
fn starts_that_differ_leave_more_doubt_than_pairs_that_do() {
    let added = [0.0, 1.0, 2.0, 3.0, 4.0];
    let apart: Vec<Vec<(f64, f64)>> = added.map(|it| vec![(0.0, it); 30]).into();
    let mixed: Vec<Vec<(f64, f64)>> = vec![added.map(|it| (0.0, it)).repeat(6); 5];
    let width = |starts: &[Vec<(f64, f64)>]| {
        let interval = of_difference(starts, middle);
        assert_eq!(interval.figure, 2.0);
        interval.high - interval.low
    };
    assert!(width(&apart) > width(&mixed));
}
