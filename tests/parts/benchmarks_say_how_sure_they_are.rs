//! A promise of a benchmark is missed only where what was measured says so with confidence.

use proptest::prelude::*;

use crate::intervals::of_median;

#[test]
fn pairs_that_agree_leave_no_doubt() {
    let interval = of_median(&[1.25; 7]);
    assert_eq!(
        [interval.low, interval.median, interval.high],
        [1.25, 1.25, 1.25]
    );
}

#[test]
fn pairs_that_differ_leave_some() {
    let interval = of_median(&[0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.4]);
    assert_eq!(interval.median, 1.0);
    assert!(interval.low < 0.96 && interval.low > 0.8, "{interval:?}");
    assert!(interval.high > 1.04 && interval.high < 1.4, "{interval:?}");
}

proptest! {
    #[test]
    fn an_interval_holds_its_median(values in prop::collection::vec(0.1..9.0_f64, 1..12)) {
        let interval = of_median(&values);
        prop_assert!(interval.low <= interval.median && interval.median <= interval.high);
        prop_assert!(values.iter().any(|value| *value <= interval.low));
        prop_assert!(values.iter().any(|value| *value >= interval.high));
    }
}
