//! How long a load may take: as long as it gets on. Pure; the worker and the daemon both keep it,
//! each with its own clock and its own look at the kernel's figures.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Growth that counts as progress. Reading the figures is itself counted as bytes read, so that a
/// few bytes more prove nothing.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The limits of a load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadDeadline {
    /// Always granted: the base and the time for the size of the file.
    pub granted: Duration,
    /// After that the load goes on while it made progress within this time …
    pub stall: Duration,
    /// … but never beyond this.
    pub longest: Duration,
}

/// Figures of a process that grow while it loads something. `None`: not readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadFigures {
    pub read_bytes: Option<u64>,
    pub resident_bytes: Option<u64>,
}

/// A load in progress.
#[derive(Clone, Copy, Debug)]
pub struct LoadWatch {
    limits: LoadDeadline,
    started: Instant,
    best: LoadFigures,
    last_progress: Option<Instant>,
}

impl LoadWatch {
    pub fn begin(limits: LoadDeadline, now: Instant, figures: LoadFigures) -> Self {
        Self {
            limits,
            started: now,
            best: figures,
            last_progress: None,
        }
    }

    /// Takes a new look at the figures.
    pub fn observe(&mut self, now: Instant, figures: LoadFigures) {
        let grew = grown(&mut self.best.read_bytes, figures.read_bytes)
            | grown(&mut self.best.resident_bytes, figures.resident_bytes);
        if grew {
            self.last_progress = Some(now);
        }
    }

    /// It is not known whether it has got on, so it may have.
    pub fn cannot_be_observed(&mut self, now: Instant) {
        self.last_progress = Some(now);
    }

    /// When the load is given up, if nothing more happens until then.
    pub fn expires_at(&self) -> Instant {
        let granted = self.started + self.limits.granted;
        let longest = self.started + self.limits.longest.max(self.limits.granted);
        match self.last_progress {
            Some(progress) => granted.max(progress + self.limits.stall).min(longest),
            None => granted,
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }
}

/// Moves the mark up when `now` lies far enough beyond it.
fn grown(mark: &mut Option<u64>, now: Option<u64>) -> bool {
    match (*mark, now) {
        (Some(before), Some(after)) if after >= before.saturating_add(PROGRESS_BYTES) => {
            *mark = now;
            true
        }
        (None, Some(_)) => {
            *mark = now;
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: LoadDeadline = LoadDeadline {
        granted: Duration::from_secs(60),
        stall: Duration::from_secs(10),
        longest: Duration::from_secs(300),
    };

    fn read(bytes: u64) -> LoadFigures {
        LoadFigures {
            read_bytes: Some(bytes),
            resident_bytes: None,
        }
    }

    #[test]
    fn without_progress_only_the_granted_time_counts() {
        let start = Instant::now();
        let mut watch = LoadWatch::begin(LIMITS, start, read(0));
        watch.observe(start + Duration::from_secs(59), read(PROGRESS_BYTES - 1));
        assert_eq!(watch.expires_at(), start + LIMITS.granted);
    }

    #[test]
    fn progress_carries_a_load_past_it_and_a_stall_ends_it() {
        let start = Instant::now();
        let mut watch = LoadWatch::begin(LIMITS, start, read(0));
        for second in 1..=100 {
            watch.observe(start + Duration::from_secs(second), read(second << 20));
        }
        assert_eq!(watch.expires_at(), start + Duration::from_secs(110));
        watch.observe(start + Duration::from_secs(109), read(100 << 20));
        assert_eq!(watch.expires_at(), start + Duration::from_secs(110));
    }

    #[test]
    fn figures_that_are_not_known_are_no_stall() {
        let start = Instant::now();
        let mut watch = LoadWatch::begin(LIMITS, start, read(0));
        for second in 1..=100 {
            watch.cannot_be_observed(start + Duration::from_secs(second));
        }
        assert_eq!(watch.expires_at(), start + Duration::from_secs(110));
        watch.cannot_be_observed(start + Duration::from_secs(299));
        assert_eq!(watch.expires_at(), start + LIMITS.longest);
    }

    #[test]
    fn slow_growth_adds_up() {
        let start = Instant::now();
        let mut watch = LoadWatch::begin(LIMITS, start, read(0));
        for second in 1..=90 {
            watch.observe(
                start + Duration::from_secs(second),
                read(second * PROGRESS_BYTES / 8),
            );
        }
        assert_eq!(watch.expires_at(), start + Duration::from_secs(98));
    }

    proptest! {
        #[test]
        fn a_load_is_never_given_less_than_granted_nor_more_than_the_cap(
            figures in prop::collection::vec((0u64..400, prop::option::of(0u64..1 << 34), prop::option::of(0u64..1 << 34)), 0..40),
        ) {
            let start = Instant::now();
            let mut watch = LoadWatch::begin(LIMITS, start, LoadFigures::default());
            for (second, read_bytes, resident_bytes) in figures {
                let figures = LoadFigures { read_bytes, resident_bytes };
                watch.observe(start + Duration::from_secs(second), figures);
                prop_assert!(watch.expires_at() >= start + LIMITS.granted);
                prop_assert!(watch.expires_at() <= start + LIMITS.longest);
            }
        }
    }
}
