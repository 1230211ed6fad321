use super::*;
use proptest::prelude::*;

fn holding(cells: usize, standing: Standing) -> Holding {
    Holding {
        cells,
        promised: 0,
        standing,
    }
}

const IDLE: fn(u64) -> Standing = |since| Standing::Idle { since };
const RUNNING: fn(u64) -> Standing = |age| Standing::Running { age };
const STALLED: fn(u64) -> Standing = |age| Standing::Stalled { age };

#[test]
fn the_longest_unused_prefix_goes_first() {
    let holdings = [
        holding(0, RUNNING(9)),
        holding(30, IDLE(5)),
        holding(30, IDLE(3)),
        holding(30, RUNNING(1)),
    ];
    let room = |wanted, need| make_room(&holdings, 100, 0, wanted, need);
    assert_eq!(room(10, Need::Prefix), Some(vec![]));
    assert_eq!(room(11, Need::Prefix), Some(vec![2]));
    assert_eq!(room(41, Need::Admission), Some(vec![2, 1]));
    assert_eq!(room(71, Need::Growth), None);
}

#[test]
fn the_youngest_run_goes_before_older_ones_and_after_a_stalled_one() {
    let holdings = [
        holding(10, RUNNING(1)),
        holding(30, RUNNING(2)),
        holding(30, RUNNING(4)),
        holding(30, STALLED(3)),
    ];
    let grown = |by: usize| make_room(&holdings, 100, 0, 10 + by, Need::Growth);
    assert_eq!(grown(1), Some(vec![3]));
    assert_eq!(grown(31), Some(vec![3, 2]));
    assert_eq!(grown(61), Some(vec![3, 2, 1]));
    // The youngest one finds no younger.
    assert_eq!(make_room(&holdings[..3], 70, 2, 31, Need::Growth), None);
}

#[test]
fn what_is_promised_is_not_given_to_others() {
    let mut holdings = [holding(0, IDLE(1)), holding(10, RUNNING(1))];
    holdings[1].promised = 60;
    let room = |wanted| make_room(&holdings, 100, 0, wanted, Need::Admission);
    assert_eq!(room(40), Some(vec![]));
    assert_eq!(room(41), None);
}

fn any_holding() -> impl Strategy<Value = (usize, usize, u8)> {
    (0..60_usize, 0..60_usize, 0..3_u8)
}

proptest! {
    #[test]
    fn room_is_made_by_those_that_have_to(
        drawn in prop::collection::vec(any_holding(), 1..9),
        wanted in 0..120_usize,
        need in prop::sample::select(vec![Need::Prefix, Need::Admission, Need::Growth]),
        capacity in 60..200_usize,
    ) {
        let mut holdings: Vec<Holding> = drawn.iter().enumerate().map(|(at, &(cells, promised, kind))| {
            let order = at as u64;
            let standing = [IDLE(order), RUNNING(order), STALLED(order)][usize::from(kind)];
            let promised = if kind == 0 { 0 } else { promised };
            Holding { cells, promised, standing }
        }).collect();
        let who = holdings.len() / 2;
        if need == Need::Growth {
            holdings[who].standing = RUNNING(who as u64);
        }
        let claims = |without: &[usize]| -> usize {
            holdings.iter().enumerate()
                .filter(|(at, _)| *at != who && !without.contains(at))
                .map(|(_, holding)| holding.claim())
                .sum()
        };
        let may_lose = |at: usize| at != who && match holdings[at].standing {
            Standing::Idle { .. } => true,
            Standing::Stalled { .. } => need != Need::Prefix,
            Standing::Running { age } => need == Need::Growth && age > who as u64,
        };
        match make_room(&holdings, capacity, who, wanted, need) {
            Some(losing) => {
                prop_assert!(claims(&losing) + wanted <= capacity);
                prop_assert!(losing.iter().all(|&at| may_lose(at)));
                // The last one had to go.
                if let Some((_, before)) = losing.split_last() {
                    prop_assert!(claims(before) + wanted > capacity);
                }
            }
            None => {
                let all: Vec<usize> = (0..holdings.len()).filter(|&at| may_lose(at)).collect();
                prop_assert!(claims(&all) + wanted > capacity);
            }
        }
    }

    #[test]
    fn the_oldest_run_always_gets_what_the_cache_has(
        drawn in prop::collection::vec(any_holding(), 0..9),
        wanted in 0..100_usize,
    ) {
        let mut holdings = vec![holding(20, RUNNING(0))];
        holdings.extend(drawn.iter().enumerate().map(|(at, &(cells, promised, kind))| {
            let order = at as u64 + 1;
            let standing = [IDLE(order), RUNNING(order), STALLED(order)][usize::from(kind)];
            Holding { cells, promised, standing }
        }));
        prop_assert!(make_room(&holdings, 100, 0, wanted, Need::Growth).is_some());
    }
}

#[test]
fn memory_is_given_back_when_others_claim_it() {
    let (claims, written) = ([300, 0, 100], [200, 150, 400]);
    assert!(give_back(&claims, &written, 850).is_empty());
    assert_eq!(give_back(&claims, &written, 849), [2]);
    assert_eq!(give_back(&claims, &written, 549), [2, 1]);
}

proptest! {
    #[test]
    fn what_is_written_stays_within_the_capacity(
        sequences in prop::collection::vec((0..500_usize, 0..500_usize), 1..9),
        room in 0..500_usize,
    ) {
        let (claims, mut written): (Vec<_>, Vec<_>) = sequences.into_iter().unzip();
        let capacity = claims.iter().sum::<usize>() + room;
        for at in give_back(&claims, &written, capacity) {
            prop_assert!(written[at] > claims[at]);
            written[at] = claims[at];
        }
        let all: usize = claims.iter().zip(&written).map(|(a, b)| *a.max(b)).sum();
        prop_assert!(all <= capacity);
    }
}
