//! How long a run may take that is not alone on its worker. Pure.
//!
//! What it may take alone it may take of its own time, of which it has the nth part while n runs go on. So
//! eight that move together do not look hung, one that does not move while others do is found, and one
//! that is alone has no more time than on a worker of one slot.
//!
//! Slots that share a pool differ in one thing: the library may let a run wait until others have ended, and
//! then evaluate again what it had. So a run is not missed there while another moves, until the others have
//! made more than they can before they end.

use std::time::{Duration, Instant};

/// What the runs of a worker do together.
#[derive(Clone, Copy, Debug)]
pub struct Company {
    /// Runs that go on.
    pub runs: u32,
    /// When one of them moved last, or one began or ended.
    pub moved: Instant,
    /// Where they share a pool: how long none of them may move, and what the others of a run can make
    /// before they end, in tokens.
    pub pool: Option<PoolLimits>,
}

#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    pub still: Duration,
    pub tokens: u64,
}

/// A run's own time.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Until when it is counted; the number of runs was another one before.
    counted: Instant,
    /// What it has had by then since it last moved.
    had: Duration,
}

impl Share {
    pub fn begin(now: Instant) -> Self {
        Self {
            counted: now,
            had: Duration::ZERO,
        }
    }

    /// So many runs have gone on until now; from now on there are more or fewer. `moved`: when this one
    /// last did.
    pub fn count(&mut self, moved: Instant, runs: u32, now: Instant) {
        let (from, had) = self.since(moved);
        let passed = now.saturating_duration_since(from);
        *self = Self {
            counted: now,
            had: had + passed / runs.max(1),
        };
    }

    /// When a run that last moved then has had so much time of its own, if none ends or begins.
    fn has_had(&self, moved: Instant, limit: Duration, runs: u32) -> Instant {
        let (from, had) = self.since(moved);
        from + limit.saturating_sub(had).saturating_mul(runs.max(1))
    }

    fn since(&self, moved: Instant) -> (Instant, Duration) {
        match moved > self.counted {
            true => (moved, Duration::ZERO),
            false => (self.counted, self.had),
        }
    }
}

/// A run in its company.
#[derive(Clone, Copy, Debug)]
pub struct InCompany {
    pub company: Company,
    pub share: Share,
    /// Tokens that others have made since it last moved.
    pub others_made: u64,
}

impl InCompany {
    /// No other run goes on.
    #[cfg(test)]
    pub fn alone(started: Instant) -> Self {
        Self {
            company: Company {
                runs: 1,
                moved: started,
                pool: None,
            },
            share: Share::begin(started),
            others_made: 0,
        }
    }

    /// Since when, and how long, a run waits that last moved at `moved` and may take `limit` alone.
    pub fn deadline(&self, moved: Instant, limit: Duration) -> (Instant, Duration) {
        let Company { runs, pool, .. } = self.company;
        let own = self.share.has_had(moved, limit, runs);
        let lasts = own.saturating_duration_since(moved);
        // Alone ever since, it waits for no other.
        let was_alone = runs <= 1 && moved >= self.share.counted;
        match pool.filter(|pool| !was_alone && self.others_made <= pool.tokens) {
            None => (moved, lasts),
            Some(pool) => {
                let since = self.company.moved.max(moved);
                (since, pool.still.max(limit))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn company(runs: u32, moved: Instant) -> Company {
        Company {
            runs,
            moved,
            pool: None,
        }
    }

    fn due(run: &InCompany, moved: Instant) -> Instant {
        let (since, limit) = run.deadline(moved, LIMIT);
        since + limit
    }

    fn of(company: Company, share: Share, others_made: u64) -> InCompany {
        InCompany {
            company,
            share,
            others_made,
        }
    }

    #[test]
    fn a_run_that_hangs_alone_is_found_however_much_others_move() {
        let start = Instant::now();
        let seven_move = company(8, start + LIMIT * 100);
        let hung = of(seven_move, Share::begin(start), 10_000);
        assert_eq!(due(&hung, start), start + LIMIT * 8);
    }

    #[test]
    fn the_time_in_which_fewer_went_on_counts_for_more() {
        let start = Instant::now();
        let mut share = Share::begin(start);
        // Four went on for half of its time.
        share.count(start, 4, start + LIMIT * 2);
        let alone = of(company(1, start), share, 0);
        assert_eq!(due(&alone, start), start + LIMIT * 2 + LIMIT / 2);
        let moved = start + LIMIT * 2 + Duration::from_secs(1);
        assert_eq!(due(&alone, moved), moved + LIMIT, "it has moved since");
    }

    #[test]
    fn a_run_that_waits_for_room_in_a_pool_is_missed_only_when_none_moves() {
        let start = Instant::now();
        let still = LIMIT * 3;
        let pool = Some(PoolLimits { still, tokens: 500 });
        let moved = start + LIMIT * 50;
        let company = Company {
            pool,
            ..company(2, moved)
        };
        let parked = of(company, Share::begin(start), 500);
        assert_eq!(due(&parked, start), moved + still);
        // The other one has made more than fits, so it was not this one that waited for it.
        let hung = of(company, Share::begin(start), 501);
        assert_eq!(due(&hung, start), start + LIMIT * 2);
        let alone = Company { runs: 1, ..company };
        let alone = of(alone, Share::begin(start), 0);
        assert_eq!(due(&alone, moved), moved + LIMIT, "no other was there");
    }

    proptest! {
        /// Runs come and go, and each moves whenever it has had less than its limit of its own time: then
        /// none is ever missed.
        #[test]
        fn runs_that_get_their_part_of_the_time_are_never_missed(
            steps in prop::collection::vec((1u32..9, 1u64..20_000), 1..40),
            moves_after_ms in 1u64..10_000,
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut share = Share::begin(start);
            let (mut moved, mut had) = (start, Duration::ZERO);
            for (runs, lasts) in steps {
                let mut left = Duration::from_millis(lasts);
                loop {
                    // It moves when it has had `moves_after_ms` of its own.
                    let until_move = (Duration::from_millis(moves_after_ms) - had) * runs;
                    let passes = left.min(until_move);
                    let wait = of(company(runs, moved), share, 0);
                    // One of the parts may be rounded down by a nanosecond.
                    prop_assert!(due(&wait, moved) + Duration::from_micros(1) >= now + passes);
                    now += passes;
                    left -= passes;
                    had += passes / runs;
                    if had + Duration::from_micros(1) >= Duration::from_millis(moves_after_ms) {
                        (moved, had) = (now, Duration::ZERO);
                    }
                    if left.is_zero() {
                        break;
                    }
                }
                share.count(moved, runs, now);
            }
        }
    }
}
