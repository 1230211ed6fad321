//! How long requests take, measured, for telling a refused client when to come back.

use std::time::Duration;

/// Weight of the newest measurement.
const NEWEST: f64 = 0.2;
/// Told when nothing was measured yet; also the least that is ever told.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(3600);

/// Moving average of the time a request occupies its slot, and how many slots there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceTime {
    average_seconds: Option<f64>,
    slots: u8,
}

impl ServiceTime {
    /// `slots`: those of the worker that it was on.
    pub fn record(&mut self, took: Duration, slots: u8) {
        self.slots = slots;
        let seconds = took.as_secs_f64();
        self.average_seconds = Some(match self.average_seconds {
            Some(average) => average + NEWEST * (seconds - average),
            None => seconds,
        });
    }

    /// When a place is likely to be free with `waiting` requests ahead, each of which takes the slot that
    /// is free first.
    pub fn retry_after(&self, waiting: usize) -> Duration {
        let in_turn = waiting as f64 / f64::from(self.slots.max(1));
        let seconds = self.average_seconds.unwrap_or(0.0) * in_turn;
        Duration::from_secs_f64(seconds.clamp(LEAST.as_secs_f64(), MOST.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_with_what_was_measured_and_stays_in_bounds() {
        let mut time = ServiceTime::default();
        assert_eq!(time.retry_after(64), LEAST);
        time.record(Duration::from_secs(2), 1);
        assert_eq!(time.retry_after(10), Duration::from_secs(20));
        time.record(Duration::from_secs(4), 1);
        assert!(time.retry_after(10) > Duration::from_secs(20));
        assert_eq!(time.retry_after(1_000_000), MOST);
    }

    #[test]
    fn requests_leave_as_many_at_a_time_as_there_are_slots() {
        let mut time = ServiceTime::default();
        time.record(Duration::from_secs(8), 8);
        assert_eq!(time.retry_after(64), Duration::from_secs(64));
        time.record(Duration::from_secs(8), 1);
        assert_eq!(time.retry_after(64), Duration::from_secs(512));
    }
}
