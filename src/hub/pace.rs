//! Whether a connection brings enough to be kept. One that drips holds a place, and its file up, as well as one
//! that stands still.

use std::time::{Duration, Instant};

use super::HubAccess;

/// Looked at once in each time of patience.
pub(super) struct Pace {
    since: Instant,
    bytes: u64,
    patience: Duration,
    least: u64,
}

impl Pace {
    pub fn of(hub: &HubAccess) -> Self {
        let (patience, rate) = (hub.stall_timeout, hub.slowest_bytes_per_second);
        let least = patience.as_millis().saturating_mul(u128::from(rate)) / 1000;
        Self {
            since: Instant::now(),
            bytes: 0,
            patience,
            least: u64::try_from(least).unwrap_or(u64::MAX),
        }
    }

    /// Takes in that so many bytes came just now.
    pub fn is_too_slow(&mut self, read: usize) -> bool {
        self.is_too_slow_at(Instant::now(), read)
    }

    fn is_too_slow_at(&mut self, now: Instant, read: usize) -> bool {
        self.bytes += read as u64;
        if now.duration_since(self.since) < self.patience {
            return false;
        }
        let is_slow = self.bytes < self.least;
        (self.since, self.bytes) = (now, 0);
        is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Job;
    use crate::settings::Settings;

    #[test]
    fn what_drips_is_told_from_what_pauses() {
        let mut settings = Settings::default();
        settings.hub.stall_timeout = Duration::from_secs(10);
        settings.hub.slowest_bytes_per_second = 100;
        let mut pace = Pace::of(&Job::new("a/b", &settings).hub);
        let begin = pace.since;
        let mut at =
            |seconds, read| pace.is_too_slow_at(begin + Duration::from_secs(seconds), read);
        assert!(!at(9, 1), "its time is not over");
        assert!(at(10, 998), "999 bytes in ten seconds");
        assert!(!at(19, 1000));
        assert!(!at(20, 0), "a thousand came in the second ten");
        assert!(at(30, 999));
    }

    #[test]
    fn no_setting_is_too_large_for_it() {
        let mut settings = Settings::default();
        settings.hub.stall_timeout = Duration::MAX;
        settings.hub.slowest_bytes_per_second = u32::MAX;
        assert_eq!(Pace::of(&Job::new("a/b", &settings).hub).least, u64::MAX);
    }
}
