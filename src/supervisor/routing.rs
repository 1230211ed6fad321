//! Which slot a request goes to: the one whose cells begin with the most of its prompt, if that is worth
//! it. Pure: it is given what each slot holds, and figures.
//!
//! What a slot costs a request is the time until it is free, the time to evaluate what of the prompt it
//! does not hold, and part of the time to evaluate again what it holds and loses: the conversation that it
//! is of may come back. Of slots that cost the same the one is taken that was used least recently.

use std::time::{Duration, Instant};

/// How much of what a slot loses counts: about every other conversation goes on.
const LOSS_COUNTS: f64 = 0.5;
/// A token of ordinary text, in bytes; only relations matter.
const BYTES_PER_TOKEN: f64 = 3.0;

/// One slot as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The text that its cells are of; what a run is making is not in it yet.
    pub holds: &'a str,
    /// Whether the request's client may have use of them, and its adapter has computed them.
    pub is_shared: bool,
    pub is_free: bool,
    /// When it was used last.
    pub used: Instant,
}

/// What is known of the model.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// To evaluate a token of a prompt; `None`: not measured, and what is saved is compared alone.
    pub per_token: Option<Duration>,
    /// What is left of a run on average: as much as runs take. `None`: not measured, so that none is waited
    /// for.
    pub run: Option<Duration>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this slot, which is free.
    Slot(usize),
    /// To this slot when it is free. Waiting for longer than this costs more than another slot does.
    WaitFor(usize, Duration),
    /// There is none.
    Nowhere,
}

/// `may_wait`: no other request has a use for the slot that would stay free meanwhile.
pub fn route(prompt: &str, slots: &[Candidate<'_>], costs: Costs, may_wait: bool) -> Route {
    let cost = |slot: &Candidate<'_>| {
        let shared = match slot.is_shared {
            true => shared_bytes(prompt, slot.holds),
            false => 0,
        };
        let evaluated = (prompt.len() - shared) as f64;
        let lost = (slot.holds.len() - shared) as f64 * LOSS_COUNTS;
        let per_token = costs.per_token.unwrap_or(Duration::from_millis(1));
        per_token.as_secs_f64() * (evaluated + lost) / BYTES_PER_TOKEN
    };
    let least = |is_free| {
        let fitting = slots.iter().enumerate();
        fitting
            .filter(|(_, slot)| slot.is_free == is_free)
            .map(|(nth, slot)| (cost(slot), slot.used, nth))
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    };
    let Some((at_once, _, free)) = least(true) else {
        return Route::Nowhere;
    };
    let (Some((later, _, busy)), Some(run)) = (least(false), costs.run) else {
        return Route::Slot(free);
    };
    let gain = at_once - later;
    if may_wait && costs.per_token.is_some() && gain > run.as_secs_f64() {
        return Route::WaitFor(busy, Duration::try_from_secs_f64(gain).unwrap_or(run));
    }
    Route::Slot(free)
}

/// How much of two texts is the same from their beginning on.
fn shared_bytes(a: &str, b: &str) -> usize {
    let pairs = a.bytes().zip(b.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNMEASURED: Costs = Costs {
        per_token: None,
        run: None,
    };
    const MEASURED: Costs = Costs {
        per_token: Some(Duration::from_millis(3)),
        run: Some(Duration::from_millis(500)),
    };

    fn slot(holds: &str, is_free: bool, age: u64) -> Candidate<'_> {
        Candidate {
            holds,
            is_shared: true,
            is_free,
            used: Instant::now() - Duration::from_secs(age),
        }
    }

    #[test]
    fn a_conversation_goes_back_to_its_slot() {
        let (mine, others) = ("You help. Hi! Hello.".repeat(9), "You help. Who?".repeat(9));
        let slots = [
            slot(&others, true, 3),
            slot(&mine, true, 1),
            slot("", true, 9),
        ];
        let prompt = mine.clone() + "And now?";
        for costs in [UNMEASURED, MEASURED] {
            assert_eq!(route(&prompt, &slots, costs, false), Route::Slot(1));
        }
    }

    #[test]
    fn a_new_conversation_takes_an_empty_slot_or_else_the_one_used_least_recently() {
        let slots = [
            slot("abc", true, 1),
            slot("", true, 0),
            slot("abd", true, 9),
        ];
        assert_eq!(route("xyz", &slots, UNMEASURED, false), Route::Slot(1));
        let slots = [slot("abc", true, 1), slot("abd", true, 9)];
        assert_eq!(route("xyz", &slots, UNMEASURED, false), Route::Slot(1));
    }

    #[test]
    fn what_another_tenant_has_left_draws_no_request() {
        let text = "You help. ".repeat(50);
        let anothers = Candidate {
            is_shared: false,
            ..slot(&text, true, 1)
        };
        let slots = [anothers, slot("You help.", true, 0)];
        assert_eq!(route(&text, &slots, MEASURED, false), Route::Slot(1));
    }

    #[test]
    fn a_long_conversation_is_not_lost_for_a_short_beginning_that_all_share() {
        let long = format!("You help.{}", " many turns".repeat(100));
        let slots = [slot(&long, true, 9), slot("", true, 1)];
        let prompt = "You help. Another one.";
        assert_eq!(route(prompt, &slots, MEASURED, false), Route::Slot(1));
    }

    #[test]
    fn a_slot_is_waited_for_where_evaluating_again_takes_longer() {
        let long = "word ".repeat(2000);
        let slots = [slot("", true, 1), slot(&long, false, 0)];
        let prompt = long.clone() + "more";
        // 10,000 bytes are about 3,300 tokens, at 3 ms.
        let Route::WaitFor(1, limit) = route(&prompt, &slots, MEASURED, true) else {
            panic!("it is worth the wait");
        };
        assert!((9..11).contains(&limit.as_secs()), "{limit:?}");
        assert_eq!(route(&prompt, &slots, MEASURED, false), Route::Slot(0));
        assert_eq!(route(&prompt, &slots, UNMEASURED, true), Route::Slot(0));
        let runs_long = Costs {
            run: Some(Duration::from_secs(20)),
            ..MEASURED
        };
        assert_eq!(route(&prompt, &slots, runs_long, true), Route::Slot(0));
    }

    fn text() -> impl Strategy<Value = String> {
        "[ab]{0,6}"
    }

    proptest! {
        #[test]
        fn a_request_goes_where_it_costs_least_of_what_is_free(
            prompt in text(),
            slots in prop::collection::vec((text(), any::<bool>(), 0u64..5), 0..6),
            may_wait: bool,
        ) {
            let slots: Vec<_> = slots
                .iter()
                .map(|(holds, is_free, age)| slot(holds, *is_free, *age))
                .collect();
            match route(&prompt, &slots, MEASURED, may_wait) {
                Route::Nowhere => prop_assert!(slots.iter().all(|slot| !slot.is_free)),
                Route::WaitFor(nth, _) => prop_assert!(may_wait && !slots[nth].is_free),
                Route::Slot(nth) => {
                    prop_assert!(slots[nth].is_free);
                    // One that holds the whole prompt's beginning and nothing else cannot be beaten.
                    let best = |slot: &Candidate<'_>| slot.is_free && slot.holds == prompt;
                    prop_assert!(!slots.iter().any(best) || slots[nth].holds == prompt);
                }
            }
        }
    }
}
