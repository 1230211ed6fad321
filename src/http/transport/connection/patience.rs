//! How long a connection waits for its client between requests. Pure: it is told what was seen and
//! when, and says what is due.
//!
//! ```text
//!            request begins                 answer ends
//!  header ─────────────────▶ served ─────────────────────▶ idle
//!    ▲                                                       │ first byte of the next request
//!    └───────────────────────────────────────────────────────┘
//! ```
//!
//! A header that has begun has `http.header-read-timeout`, an idle connection the longer
//! `http.keep-alive-timeout`. A connection that never asked anything counts as one whose header has
//! begun: its client was not told how long it may wait.

use std::time::{Duration, Instant};

use super::traffic::Seen;

/// An idle connection is kept so much longer than was announced: a request that was sent at the last
/// moment is still under way then.
pub(super) const ON_THE_WAY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Patience {
    header: Duration,
    idle: Duration,
    /// Requests that had begun when this was last told.
    begun: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Header { until: Instant },
    Served,
    Idle { until: Instant, arrived: u64 },
}

/// What is due when the time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing is lost by closing, unless something has arrived meanwhile.
    CloseIdle,
    /// The header did not come.
    GiveUp,
}

impl Patience {
    pub fn new(header: Duration, keep_alive: Duration, now: Instant) -> Self {
        Self {
            header,
            idle: keep_alive.saturating_add(ON_THE_WAY),
            begun: 0,
            phase: Phase::Header {
                until: now + header,
            },
        }
    }

    pub fn observe(&mut self, seen: Seen, now: Instant) {
        let began = std::mem::replace(&mut self.begun, seen.begun) != seen.begun;
        self.phase = match self.phase {
            _ if seen.serving => Phase::Served,
            Phase::Idle { until, arrived } if !began && seen.arrived == arrived => {
                Phase::Idle { until, arrived }
            }
            Phase::Header { until } if !began => Phase::Header { until },
            Phase::Idle { .. } if !began => Phase::Header {
                until: now + self.header,
            },
            _ => Phase::Idle {
                until: now + self.idle,
                arrived: seen.arrived,
            },
        };
    }

    /// Until when, and what is due then.
    pub fn due(&self) -> Option<(Instant, Due)> {
        match self.phase {
            Phase::Header { until } => Some((until, Due::GiveUp)),
            Phase::Idle { until, .. } => Some((until, Due::CloseIdle)),
            Phase::Served => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    fn seen(begun: u64, serving: bool, arrived: u64) -> Seen {
        Seen {
            arrived,
            begun,
            serving,
            bound: false,
        }
    }

    #[test]
    fn idle_and_half_a_header_are_told_apart() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut patience = Patience::new(HEADER, IDLE, start);
        assert_eq!(patience.due(), Some((at(10), Due::GiveUp)));
        patience.observe(seen(0, false, 7), at(9));
        assert_eq!(
            patience.due(),
            Some((at(10), Due::GiveUp)),
            "bytes that drip"
        );
        patience.observe(seen(1, true, 50), at(9));
        assert_eq!(patience.due(), None);
        patience.observe(seen(1, false, 50), at(100));
        let idle = Some((at(100) + IDLE + ON_THE_WAY, Due::CloseIdle));
        assert_eq!(patience.due(), idle);
        patience.observe(seen(1, false, 50), at(170));
        assert_eq!(patience.due(), idle);
        patience.observe(seen(1, false, 51), at(171));
        patience.observe(seen(1, false, 52), at(175));
        assert_eq!(patience.due(), Some((at(181), Due::GiveUp)));
        // Begun and answered between two looks.
        patience.observe(seen(2, false, 90), at(180));
        let idle = Some((at(180) + IDLE + ON_THE_WAY, Due::CloseIdle));
        assert_eq!(patience.due(), idle);
        patience.observe(seen(3, false, 130), at(190));
        let idle = Some((at(190) + IDLE + ON_THE_WAY, Due::CloseIdle));
        assert_eq!(patience.due(), idle);
    }
}
