//! How long a run may take that is not alone on its worker. Pure.
//!
//! What it may take alone it may take of its own time, of which it has the nth part while n runs go on. So
//! eight that move together do not look hung, one that does not move while others do is found, and one
//! that is alone has no more time than on a worker of one slot.
//!
//! Slots that share a pool differ in one thing: the library may let a run wait until others have ended, and
//! then evaluate again what it had. It lets none wait for a run that came later. So a run is not missed there
//! while one of those that may be ahead of it moves; from the last one's end on it has the time to evaluate
//! all again, however many come behind it.

use std::time::{Duration, Instant};

/// The clock of a run may say that it moved so much too early.
const CLOCK: Duration = Duration::from_millis(1);

/// What the runs of a worker do together, for one of them.
#[derive(Clone, Copy, Debug)]
pub struct Company {
    /// Runs that go on.
    pub runs: u32,
    /// When one of them moved last, or one began or ended.
    pub moved: Instant,
    /// When the first of the others began; `None`: there is no other.
    pub others_began: Option<Instant>,
    /// Where they share a pool: how long none of them may move.
    pub still: Option<Duration>,
    /// The pool may have no room for what they have, so that one may have to wait until others have ended. It
    /// is filled as long as none of them ends.
    pub may_be_full: bool,
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

/// What a run waits for.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// When it last moved, or began.
    pub moved: Instant,
    /// How long it may take alone.
    pub limit: Duration,
    /// The library has it since then at the latest: what begins later is behind it.
    pub taken_in: Instant,
}

impl Wait {
    /// Of a run that has moved.
    pub fn for_next(moved: Instant, limit: Duration) -> Self {
        Self {
            moved,
            limit,
            taken_in: moved,
        }
    }

    /// Of a run that has not: making tokens of its prompt takes a part of its time.
    pub fn for_first(began: Instant, limit: Duration) -> Self {
        Self {
            moved: began,
            limit,
            taken_in: began + limit,
        }
    }

    /// It has made tokens: in a pool with room it makes the next ones in every step.
    fn is_for_next(&self) -> bool {
        self.taken_in == self.moved
    }

    /// Whether one that began then may be ahead of it.
    fn is_behind(&self, began: Instant) -> bool {
        began <= self.taken_in + CLOCK
    }
}

/// A run in its company.
#[derive(Clone, Copy, Debug)]
pub struct InCompany {
    pub company: Company,
    pub share: Share,
    /// How long evaluating again all that it has may take alone.
    pub again: Duration,
    /// When the company was last another one in which a run may have been ahead of it.
    pub was_behind: Option<Instant>,
}

impl InCompany {
    /// No other run goes on.
    #[cfg(test)]
    pub fn alone(started: Instant) -> Self {
        Self {
            company: Company {
                runs: 1,
                moved: started,
                others_began: None,
                still: None,
                may_be_full: false,
            },
            share: Share::begin(started),
            again: Duration::ZERO,
            was_behind: None,
        }
    }

    /// Whether it may wait for another one in the library.
    pub fn is_behind(&self, wait: Wait) -> bool {
        let Company {
            still,
            others_began,
            may_be_full,
            ..
        } = self.company;
        let may_wait = may_be_full || !wait.is_for_next();
        still.is_some() && may_wait && others_began.is_some_and(|began| wait.is_behind(began))
    }

    /// Since when, and how long, a run waits.
    pub fn deadline(&self, wait: Wait) -> (Instant, Duration) {
        let Wait { moved, limit, .. } = wait;
        let Company { runs, still, .. } = self.company;
        let own = self.share.has_had(moved, limit, runs);
        let own = (moved, own.saturating_duration_since(moved));
        let Some(still) = still else { return own };
        if self.is_behind(wait) {
            return (self.company.moved.max(moved), still.max(limit));
        }
        match self.was_behind.filter(|until| *until >= moved) {
            None => own,
            Some(until) => {
                let again = self.again.saturating_add(limit);
                (until, again.saturating_mul(runs.max(1)).max(still))
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
            others_began: None,
            still: None,
            may_be_full: true,
        }
    }

    fn due(run: &InCompany, moved: Instant) -> Instant {
        let (since, limit) = run.deadline(Wait::for_next(moved, LIMIT));
        since + limit
    }

    fn of(company: Company, share: Share) -> InCompany {
        InCompany {
            company,
            share,
            again: LIMIT,
            was_behind: None,
        }
    }

    #[test]
    fn a_run_that_hangs_alone_is_found_however_much_others_move() {
        let start = Instant::now();
        let seven_move = company(8, start + LIMIT * 100);
        let hung = of(seven_move, Share::begin(start));
        assert_eq!(due(&hung, start), start + LIMIT * 8);
    }

    #[test]
    fn the_time_in_which_fewer_went_on_counts_for_more() {
        let start = Instant::now();
        let mut share = Share::begin(start);
        // Four went on for half of its time.
        share.count(start, 4, start + LIMIT * 2);
        let alone = of(company(1, start), share);
        assert_eq!(due(&alone, start), start + LIMIT * 2 + LIMIT / 2);
        let moved = start + LIMIT * 2 + Duration::from_secs(1);
        assert_eq!(due(&alone, moved), moved + LIMIT, "it has moved since");
    }

    const STILL: Duration = Duration::from_secs(30);

    /// With another one beside it that began then and has just moved.
    fn in_pool(began: Instant, moved: Instant) -> Company {
        Company {
            others_began: Some(began),
            still: Some(STILL),
            ..company(2, moved)
        }
    }

    #[test]
    fn a_run_that_may_wait_for_room_in_a_pool_is_missed_only_when_none_moves() {
        let start = Instant::now();
        let moved = start + LIMIT * 50;
        let parked = of(in_pool(start, moved), Share::begin(start));
        assert_eq!(due(&parked, start), moved + STILL);
    }

    #[test]
    fn a_run_that_hangs_in_a_pool_with_room_is_found_beside_older_ones() {
        let start = Instant::now();
        let company = Company {
            may_be_full: false,
            ..in_pool(start, start + LIMIT * 50)
        };
        let hung = of(company, Share::begin(start));
        assert_eq!(due(&hung, start), start + LIMIT * 2, "its own time");
        // Prompts are evaluated one after the other, whatever room there is.
        let wait = Wait::for_first(start, LIMIT);
        assert_eq!(hung.deadline(wait), (start + LIMIT * 50, STILL));
    }

    #[test]
    fn no_run_waits_in_a_pool_for_one_that_came_later() {
        let start = Instant::now();
        let (came, moved) = (start + LIMIT / 2, start + LIMIT * 50);
        let hung = of(in_pool(came, moved), Share::begin(start));
        assert_eq!(due(&hung, start), start + LIMIT * 2, "its own time");
        // One whose prompt is still being read may be overtaken.
        let wait = Wait::for_first(start, LIMIT);
        assert_eq!(hung.deadline(wait), (moved, STILL));
        let late = of(in_pool(start + LIMIT * 2, moved), Share::begin(start));
        assert_eq!(late.deadline(wait), (start, LIMIT * 2));
    }

    #[test]
    fn when_those_ahead_have_ended_a_run_has_the_time_to_evaluate_all_again() {
        let start = Instant::now();
        let ended = start + LIMIT * 20;
        let behind = in_pool(ended, start + LIMIT * 50);
        let parked = InCompany {
            was_behind: Some(ended),
            ..of(behind, Share::begin(start))
        };
        assert_eq!(due(&parked, start), ended + (LIMIT + LIMIT) * 2);
        let alone = InCompany {
            company: Company {
                still: Some(STILL),
                ..company(1, ended)
            },
            ..parked
        };
        assert_eq!(due(&alone, start), ended + STILL);
        assert_eq!(
            due(&alone, ended + LIMIT),
            ended + LIMIT * 2,
            "it has moved"
        );
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
                    let wait = of(company(runs, moved), share);
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
