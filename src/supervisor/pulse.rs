//! A sign of life of the event loop, and of nothing else: it is given by the loop itself between two
//! messages, so it stops exactly when the loop does.

use std::fmt;
use std::time::{Duration, Instant};

/// Called by the event loop at least once every interval.
pub struct Pulse {
    interval: Duration,
    beat: Box<dyn FnMut() + Send>,
    next: Option<Instant>,
}

impl Pulse {
    /// `beat` must not wait for anything.
    pub fn new(interval: Duration, beat: impl FnMut() + Send + 'static) -> Self {
        Self {
            interval,
            beat: Box::new(beat),
            next: None,
        }
    }

    /// Beats if it is time to; returns when it will be again.
    pub(super) fn beat_if_due(&mut self, now: Instant) -> Instant {
        match self.next {
            Some(next) if now < next => next,
            _ => {
                (self.beat)();
                *self.next.insert(now + self.interval)
            }
        }
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse")
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}
