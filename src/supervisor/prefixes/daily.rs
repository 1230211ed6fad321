//! How much was written in the last day, by hours: flash wears out by what is written.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

const HOURS: u64 = 24;

/// Survives the daemon, so that one that restarts often keeps to it as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daily {
    /// Hours since the epoch, and bytes written in each.
    hours: VecDeque<(u64, u64)>,
}

impl Daily {
    pub fn add(&mut self, bytes: u64, hour: u64) {
        self.hours.retain(|(at, _)| at.abs_diff(hour) < HOURS);
        match self.hours.back_mut() {
            Some((at, written)) if *at == hour => *written = written.saturating_add(bytes),
            _ => self.hours.push_back((hour, bytes)),
        }
    }

    /// An hour that lies ahead is one of a clock that was set back, and counts.
    pub fn bytes(&self, hour: u64) -> u64 {
        let last_day = self
            .hours
            .iter()
            .filter(|(at, _)| at.abs_diff(hour) < HOURS);
        last_day.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_day_is_counted_and_no_more() {
        let mut daily = Daily::default();
        daily.add(5, 100);
        daily.add(6, 100);
        daily.add(7, 110);
        assert_eq!([daily.bytes(110), daily.bytes(123)], [18, 18]);
        assert_eq!([daily.bytes(124), daily.bytes(134)], [7, 0]);
        daily.add(1, 200);
        assert_eq!(daily.hours.len(), 1, "what is over is forgotten");
    }

    proptest! {
        #[test]
        fn nothing_of_the_last_day_is_lost(written in prop::collection::vec((0u64..100, 0u64..1000), 0..50)) {
            let mut written = written;
            written.sort_by_key(|(hour, _)| *hour);
            let mut daily = Daily::default();
            for &(hour, bytes) in &written {
                daily.add(bytes, hour);
                let truth = written.iter().take_while(|it| it.0 <= hour);
                prop_assert!(daily.bytes(hour) <= truth.filter(|it| hour - it.0 < HOURS).map(|it| it.1).sum());
            }
            prop_assert!(daily.hours.len() <= 24);
        }
    }
}
