//! Whether a run's host keeps up. A mailbox that is full says only that the model is faster, which it is for
//! most hosts, so that a run loses its cells to a new one no sooner than its host has taken nothing for a
//! while. A run that lost them so comes back when its host has been told all: it would be out of step again
//! before it had drawn what its second evaluation is worth.

use std::time::{Duration, Instant};

/// A host that takes nothing for so long has stalled.
const STALLED_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct HostPace {
    /// None: there is room for a further letter.
    full_since: Option<Instant>,
}

impl HostPace {
    /// The run's mailbox was looked at.
    pub(super) fn seen(&mut self, has_room: bool, now: Instant) {
        self.full_since = match has_room {
            true => None,
            false => self.full_since.or(Some(now)),
        };
    }

    /// There was room when it was last looked at.
    pub(super) fn keeps_up(&self) -> bool {
        self.full_since.is_none()
    }

    pub(super) fn has_stalled(&self, now: Instant) -> bool {
        !self.keeps_up() && self.stalls_in(now).is_none()
    }

    /// How long until it has stalled. None: it has already, or keeps up.
    pub(super) fn stalls_in(&self, now: Instant) -> Option<Duration> {
        let full_for = now.duration_since(self.full_since?);
        STALLED_AFTER
            .checked_sub(full_for)
            .filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stalls_when_it_has_taken_nothing_for_a_while() {
        let begin = Instant::now();
        let mut host = HostPace::default();
        host.seen(true, begin);
        assert!(host.keeps_up() && !host.has_stalled(begin + STALLED_AFTER));
        assert_eq!(host.stalls_in(begin), None);
        host.seen(false, begin);
        host.seen(false, begin + STALLED_AFTER / 2);
        assert!(!host.keeps_up() && !host.has_stalled(begin));
        assert_eq!(host.stalls_in(begin), Some(STALLED_AFTER));
        assert!(host.has_stalled(begin + STALLED_AFTER));
        assert_eq!(host.stalls_in(begin + STALLED_AFTER), None);
    }

    #[test]
    fn a_slow_host_that_goes_on_taking_never_stalls() {
        let mut now = Instant::now();
        let mut host = HostPace::default();
        for _ in 0..100 {
            host.seen(false, now);
            now += STALLED_AFTER * 9 / 10;
            assert!(!host.has_stalled(now));
            host.seen(true, now);
        }
    }
}
