//! How fast what a client sends arrives. Others, or the client's own next requests, wait for what a slow
//! message holds: it has a slowest rate on the whole, and gives way sooner where memory is scarce.

use std::time::{Duration, Instant};

use crate::settings::{HttpSettings, MemorySettings};

/// A smaller message is no burden.
const SMALL_BYTES: usize = 16 * 1024;

/// How slowly a message may arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowestPace {
    /// The longest time between two of its pieces, and beside what it takes at the slowest rate.
    pub stall: Duration,
    /// Bytes a second, on the whole.
    pub rate: u32,
    /// The same from one span of `stall` to the next, while memory is scarce.
    pub rate_while_scarce: u32,
}

impl SlowestPace {
    pub fn of(http: &HttpSettings, memory: &MemorySettings) -> Self {
        Self {
            stall: http.slow_reader_timeout,
            rate: http.slowest_bytes_per_second,
            rate_while_scarce: memory.slowest_bytes_per_second,
        }
    }
}

/// Of one message, from its first byte on.
#[derive(Debug)]
pub(crate) struct Pace {
    slowest: SlowestPace,
    begun: Instant,
    span_begun: Instant,
    arrived_before: u32,
}

impl Pace {
    pub fn new(slowest: SlowestPace) -> Self {
        let now = Instant::now();
        Self {
            slowest,
            begun: now,
            span_begun: now,
            arrived_before: 0,
        }
    }

    /// How long the next piece may take to come, behind so many bytes.
    pub fn patience(&self, arrived: u32) -> Duration {
        let SlowestPace { stall, rate, .. } = self.slowest;
        let at_the_slowest = Duration::from_secs(1) * arrived / rate;
        (at_the_slowest + stall)
            .saturating_sub(self.begun.elapsed())
            .min(stall)
    }

    /// At the end of a span, whether what arrived in it is too little where memory is scarce.
    /// `arrived`: in all.
    pub fn is_too_slow(&mut self, arrived: u32) -> bool {
        let taken = self.span_begun.elapsed();
        if taken < self.slowest.stall {
            return false;
        }
        let wanted = taken.as_secs_f64() * f64::from(self.slowest.rate_while_scarce);
        let came = f64::from(arrived - self.arrived_before);
        (self.span_begun, self.arrived_before) = (Instant::now(), arrived);
        arrived as usize > SMALL_BYTES && came < wanted
    }
}
