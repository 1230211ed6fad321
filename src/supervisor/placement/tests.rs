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
        kept_until: None,
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

#[test]
fn a_worker_that_nobody_keeps_is_unloaded_while_nothing_needs_it() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let kept = |occupancy, waiter| Candidate {
        kept_until: Some(later),
        ..candidate(occupancy, waiter)
    };
    let unused = kept(idle(now), None);
    assert_eq!(decide(&[unused], LIMITS, now), Decision::WaitUntil(later));
    assert_eq!(decide(&[unused], LIMITS, later), Decision::Unload(0));
    let waited_for = kept(idle(now), Some(1));
    assert_eq!(decide(&[waited_for], LIMITS, later), Decision::Grant(0));
    let used = kept(in_use(now, true), None);
    assert_eq!(decide(&[used], LIMITS, later), Decision::Nothing);
    let limits = PlacementLimits {
        max_loaded: 2,
        ..LIMITS
    };
    // It goes rather than the one that was used longest ago.
    let old = candidate(idle(now - Duration::from_secs(60)), None);
    let wanted = candidate(Occupancy::Empty, Some(1));
    let three = [old, unused, wanted];
    assert_eq!(decide(&three, limits, later), Decision::Unload(1));
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
    let waits = prop::option::of((0u64..30).prop_map(move |wait| now + Duration::from_secs(wait)));
    (
        occupancy,
        prop::option::of(0u64..100),
        waits,
        any::<bool>(),
        any::<bool>(),
        prop::option::of(
            (0u64..30)
                .prop_map(move |age| now + Duration::from_secs(15) - Duration::from_secs(age)),
        ),
    )
        .prop_map(
            |(occupancy, oldest_waiter, not_before, uses_npu, may_evict, kept_until)| Candidate {
                occupancy,
                uses_npu,
                not_before: not_before.filter(|_| occupancy == Occupancy::Empty),
                oldest_waiter,
                may_evict,
                kept_until,
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
            Decision::Unload(i) => {
                prop_assert!(matches!(candidates[i].occupancy, Occupancy::Idle { .. }), "only an idle worker");
                prop_assert!(candidates[i].oldest_waiter.is_none(), "that nothing waits for");
                prop_assert!(candidates[i].kept_until.is_some_and(|time| time <= now));
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
