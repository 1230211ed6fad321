//! Which worker to grant, start or evict next. Pure: it decides, the event loop acts.
//!
//! Requests are looked at in the order they came. A loaded model serves its own request even while
//! an older one waits for a place, unless the place can be freed right now: so two models that
//! alternate do not reload for every request, and neither waits for ever. A worker whose place an older
//! request needs is not joined any more, so that it becomes idle.

use std::time::{Duration, Instant};

/// A model's worker, as far as placement is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupancy {
    /// No process.
    Empty,
    /// Loading.
    Busy,
    /// Loaded and in use.
    InUse {
        loaded_at: Instant,
        /// Its next waiter can join those that are on it.
        has_room: bool,
    },
    /// Ending; its place becomes free soon.
    Leaving,
    /// Outlived SIGKILL. Its place never becomes free without a reboot, so it is not counted as
    /// one; but nothing may join it on the NPU.
    Stuck,
    /// Loaded, nothing to do.
    Idle {
        loaded_at: Instant,
        last_used: Instant,
    },
}

/// One model in the eyes of `decide`.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub occupancy: Occupancy,
    pub uses_npu: bool,
    /// It must not be loaded before.
    pub not_before: Option<Instant>,
    /// The place of the request that is next for this model among all that wait.
    pub oldest_waiter: Option<u64>,
    /// Whether another model may have to go for it; not for a mere preload.
    pub may_evict: bool,
}

/// The next thing to do; the index is that of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Grant(usize),
    Load(usize),
    Evict(usize),
    /// Nothing now; look again at this time.
    WaitUntil(Instant),
    /// Nothing until something changes.
    Nothing,
}

/// The limits that placement keeps.
#[derive(Clone, Copy, Debug)]
pub struct PlacementLimits {
    pub max_loaded: usize,
    pub minimum_residency: Duration,
}

pub fn decide(candidates: &[Candidate], limits: PlacementLimits, now: Instant) -> Decision {
    let mut waiting: Vec<(u64, usize)> = candidates
        .iter()
        .enumerate()
        .filter_map(|(index, candidate)| Some((candidate.oldest_waiter?, index)))
        .collect();
    waiting.sort_unstable();
    let occupied = candidates
        .iter()
        .filter(|candidate| !matches!(candidate.occupancy, Occupancy::Empty | Occupancy::Stuck))
        .count();
    let npu_is_blocked = candidates
        .iter()
        .any(|candidate| candidate.occupancy == Occupancy::Stuck && candidate.uses_npu);
    let mut leaving = candidates
        .iter()
        .filter(|candidate| candidate.occupancy == Occupancy::Leaving)
        .count();
    let mut look_again: Option<Instant> = None;
    let mut awaited: Vec<usize> = Vec::new();
    for (_, index) in waiting {
        let candidate = &candidates[index];
        let not_before = candidate.not_before.unwrap_or(now);
        match candidate.occupancy {
            Occupancy::Idle { .. } => return Decision::Grant(index),
            Occupancy::InUse { has_room: true, .. } if !awaited.contains(&index) => {
                return Decision::Grant(index);
            }
            Occupancy::InUse { .. } => {}
            Occupancy::Busy | Occupancy::Leaving | Occupancy::Stuck => {}
            Occupancy::Empty if candidate.uses_npu && npu_is_blocked => {}
            Occupancy::Empty if not_before > now => {
                look_again = Some(look_again.map_or(not_before, |other| other.min(not_before)));
            }
            Occupancy::Empty if occupied < limits.max_loaded => return Decision::Load(index),
            // A place is already being freed for this one.
            Occupancy::Empty if leaving > 0 => leaving -= 1,
            Occupancy::Empty if !candidate.may_evict => {}
            Occupancy::Empty => match least_recently_used(candidates, limits, now) {
                Evictable::Now(victim) => return Decision::Evict(victim),
                Evictable::From(time) => {
                    look_again = Some(look_again.map_or(time, |other| other.min(time)));
                }
                Evictable::None => {
                    awaited.extend(longest_in_use(candidates, limits, now, &awaited))
                }
            },
        }
    }
    look_again.map_or(Decision::Nothing, Decision::WaitUntil)
}

/// The worker whose end of use is waited for where none is idle: the one that was loaded first of those
/// that have had their time, and that are not awaited for another request.
fn longest_in_use(
    candidates: &[Candidate],
    limits: PlacementLimits,
    now: Instant,
    awaited: &[usize],
) -> Option<usize> {
    let in_use = candidates.iter().enumerate().filter_map(|(index, it)| {
        let Occupancy::InUse { loaded_at, .. } = it.occupancy else {
            return None;
        };
        Some((loaded_at, index))
    });
    in_use
        .filter(|(loaded_at, index)| {
            *loaded_at + limits.minimum_residency <= now && !awaited.contains(index)
        })
        .min()
        .map(|(_, index)| index)
}

enum Evictable {
    Now(usize),
    From(Instant),
    None,
}

fn least_recently_used(
    candidates: &[Candidate],
    limits: PlacementLimits,
    now: Instant,
) -> Evictable {
    let mut victim: Option<(Instant, usize)> = None;
    let mut earliest: Option<Instant> = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let Occupancy::Idle {
            loaded_at,
            last_used,
        } = candidate.occupancy
        else {
            continue;
        };
        let evictable_from = loaded_at + limits.minimum_residency;
        if evictable_from <= now {
            victim = Some(victim.map_or((last_used, index), |other| other.min((last_used, index))));
        } else {
            earliest = Some(earliest.map_or(evictable_from, |other| other.min(evictable_from)));
        }
    }
    match (victim, earliest) {
        (Some((_, index)), _) => Evictable::Now(index),
        (None, Some(time)) => Evictable::From(time),
        (None, None) => Evictable::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: PlacementLimits = PlacementLimits {
        max_loaded: 1,
        minimum_residency: Duration::from_secs(10),
    };

    fn idle(loaded_at: Instant) -> Occupancy {
        Occupancy::Idle {
            loaded_at,
            last_used: loaded_at,
        }
    }

    fn candidate(occupancy: Occupancy, oldest_waiter: Option<u64>) -> Candidate {
        Candidate {
            occupancy,
            uses_npu: true,
            not_before: None,
            oldest_waiter,
            may_evict: true,
        }
    }

    #[test]
    fn a_free_place_is_loaded_and_an_idle_worker_granted() {
        let now = Instant::now();
        let empty = candidate(Occupancy::Empty, Some(1));
        assert_eq!(decide(&[empty], LIMITS, now), Decision::Load(0));
        let ready = candidate(idle(now), Some(1));
        assert_eq!(decide(&[ready], LIMITS, now), Decision::Grant(0));
    }

    #[test]
    fn an_idle_model_is_evicted_only_after_its_residency() {
        let now = Instant::now();
        let young = [
            candidate(idle(now), None),
            candidate(Occupancy::Empty, Some(1)),
        ];
        let from = now + LIMITS.minimum_residency;
        assert_eq!(decide(&young, LIMITS, now), Decision::WaitUntil(from));
        assert_eq!(decide(&young, LIMITS, from), Decision::Evict(0));
    }

    #[test]
    fn an_older_request_for_another_model_gets_the_place_once_it_can() {
        let now = Instant::now();
        let both = [
            candidate(idle(now), Some(2)),
            candidate(Occupancy::Empty, Some(1)),
        ];
        assert_eq!(decide(&both, LIMITS, now), Decision::Grant(0));
        let later = now + LIMITS.minimum_residency;
        assert_eq!(decide(&both, LIMITS, later), Decision::Evict(0));
    }

    fn in_use(loaded_at: Instant, has_room: bool) -> Occupancy {
        Occupancy::InUse {
            loaded_at,
            has_room,
        }
    }

    #[test]
    fn a_worker_in_use_is_joined_where_it_has_room() {
        let now = Instant::now();
        let joined = candidate(in_use(now, true), Some(1));
        assert_eq!(decide(&[joined], LIMITS, now), Decision::Grant(0));
        let full = candidate(in_use(now, false), Some(1));
        assert_eq!(decide(&[full], LIMITS, now), Decision::Nothing);
    }

    #[test]
    fn a_worker_that_is_always_in_use_makes_room_for_an_older_request() {
        let now = Instant::now();
        let busy = [
            candidate(in_use(now, true), Some(2)),
            candidate(Occupancy::Empty, Some(1)),
        ];
        assert_eq!(decide(&busy, LIMITS, now), Decision::Grant(0), "its time");
        let later = now + LIMITS.minimum_residency;
        assert_eq!(decide(&busy, LIMITS, later), Decision::Nothing);
        let younger = [
            candidate(in_use(now, true), Some(1)),
            candidate(Occupancy::Empty, Some(2)),
        ];
        assert_eq!(decide(&younger, LIMITS, later), Decision::Grant(0));
        let idle = [candidate(idle(now), Some(2)), busy[1]];
        assert_eq!(decide(&idle, LIMITS, later), Decision::Evict(0));
    }

    #[test]
    fn a_place_that_is_being_freed_is_not_freed_twice() {
        let now = Instant::now();
        let old = now - LIMITS.minimum_residency;
        let limits = PlacementLimits {
            max_loaded: 2,
            ..LIMITS
        };
        let three = [
            candidate(Occupancy::Leaving, None),
            candidate(idle(old), None),
            candidate(Occupancy::Empty, Some(1)),
        ];
        assert_eq!(decide(&three, limits, now), Decision::Nothing);
    }

    #[test]
    fn a_model_that_must_wait_is_loaded_when_its_time_has_come() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let waits = Candidate {
            not_before: Some(later),
            ..candidate(Occupancy::Empty, Some(1))
        };
        assert_eq!(decide(&[waits], LIMITS, now), Decision::WaitUntil(later));
        assert_eq!(decide(&[waits], LIMITS, later), Decision::Load(0));
    }

    #[test]
    fn nothing_joins_an_unkillable_worker_on_the_npu() {
        let now = Instant::now();
        let stuck = candidate(Occupancy::Stuck, None);
        let on_npu = candidate(Occupancy::Empty, Some(1));
        assert_eq!(decide(&[stuck, on_npu], LIMITS, now), Decision::Nothing);
        let on_cpu = Candidate {
            uses_npu: false,
            ..on_npu
        };
        assert_eq!(decide(&[stuck, on_cpu], LIMITS, now), Decision::Load(1));
    }

    #[test]
    fn a_preload_takes_a_free_place_and_no_other() {
        let now = Instant::now();
        let preload = Candidate {
            may_evict: false,
            ..candidate(Occupancy::Empty, Some(1))
        };
        let old = candidate(idle(now - LIMITS.minimum_residency), None);
        assert_eq!(decide(&[old, preload], LIMITS, now), Decision::Nothing);
        assert_eq!(decide(&[preload], LIMITS, now), Decision::Load(0));
    }

    fn any_candidate(now: Instant) -> impl Strategy<Value = Candidate> {
        let occupancy = prop_oneof![
            Just(Occupancy::Empty),
            Just(Occupancy::Busy),
            (0u64..30, any::<bool>())
                .prop_map(move |(age, room)| in_use(now - Duration::from_secs(age), room)),
            Just(Occupancy::Leaving),
            Just(Occupancy::Stuck),
            (0u64..30).prop_map(move |age| idle(now - Duration::from_secs(age))),
        ];
        let waits =
            prop::option::of((0u64..30).prop_map(move |wait| now + Duration::from_secs(wait)));
        (
            occupancy,
            prop::option::of(0u64..100),
            waits,
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(
                |(occupancy, oldest_waiter, not_before, uses_npu, may_evict)| Candidate {
                    occupancy,
                    uses_npu,
                    not_before: not_before.filter(|_| occupancy == Occupancy::Empty),
                    oldest_waiter,
                    may_evict,
                },
            )
    }

    proptest! {
        #[test]
        fn every_decision_can_be_carried_out(
            (now, candidates) in Just(Instant::now()).prop_flat_map(|now| {
                (Just(now), prop::collection::vec(any_candidate(now), 0..6))
            }),
            max_loaded in 1usize..4,
        ) {
            let limits = PlacementLimits { max_loaded, ..LIMITS };
            let occupied = candidates.iter().filter(|c| !matches!(c.occupancy, Occupancy::Empty | Occupancy::Stuck)).count();
            let blocked = candidates.iter().any(|c| c.occupancy == Occupancy::Stuck && c.uses_npu);
            let loadable = |c: &Candidate| {
                c.occupancy == Occupancy::Empty
                    && c.not_before.is_none_or(|time| time <= now)
                    && !(c.uses_npu && blocked)
            };
            match decide(&candidates, limits, now) {
                Decision::Grant(i) => {
                    prop_assert!(candidates[i].oldest_waiter.is_some());
                    prop_assert!(
                        matches!(candidates[i].occupancy, Occupancy::Idle { .. } | Occupancy::InUse { has_room: true, .. }),
                        "only a worker with room is granted"
                    );
                }
                Decision::Load(i) => {
                    prop_assert!(loadable(&candidates[i]));
                    prop_assert!(occupied < max_loaded);
                }
                Decision::Evict(i) => {
                    prop_assert!(occupied >= max_loaded);
                    let Occupancy::Idle { loaded_at, .. } = candidates[i].occupancy else {
                        return Err(TestCaseError::fail("only an idle worker is evicted"));
                    };
                    prop_assert!(now - loaded_at >= LIMITS.minimum_residency);
                }
                Decision::WaitUntil(time) => prop_assert!(time > now),
                Decision::Nothing => {
                    let grantable = candidates.iter().any(|c| c.oldest_waiter.is_some()
                        && (matches!(c.occupancy, Occupancy::Idle { .. })
                            || loadable(c) && occupied < max_loaded));
                    prop_assert!(!grantable);
                }
            }
        }
    }
}
