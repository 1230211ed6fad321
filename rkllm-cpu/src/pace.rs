//! How much of a prompt is evaluated in one step while other runs wait for theirs: as much as is
//! predicted to hold them up for no more than a moment, by what steps were measured to take.
//!
//! llama.cpp computes attention in another way, and so rounds differently, where 64 tokens or more are
//! evaluated at once. A prompt is therefore never cut so that less than that is left of what a run
//! alone would evaluate at once: what a run says does not depend on who ran beside it.

use std::time::Duration;

/// What a step may take while others wait for it.
const STEP: Duration = Duration::from_millis(60);
/// The least number of tokens that llama.cpp evaluates in its way for many.
const GRAIN: usize = 64;
/// The weight of a new measurement.
const NEW: f64 = 0.25;

#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Seconds for a token of a prompt.
    token: Option<f64>,
}

impl Pace {
    /// Tokens that a step has time for, in whole grains; one grain at least.
    pub(crate) fn tokens(&self) -> usize {
        let each = self.token.unwrap_or(f64::INFINITY);
        let tokens = (STEP.as_secs_f64() / each) as usize;
        (tokens / GRAIN * GRAIN).max(GRAIN)
    }

    /// A step with so many tokens of a prompt took `wall`.
    pub(crate) fn measured(&mut self, tokens: usize, wall: Duration) {
        if tokens >= GRAIN {
            let each = wall.as_secs_f64() / tokens as f64;
            let known = self.token.get_or_insert(each);
            *known += (each - *known) * NEW;
        }
    }
}

/// How many of the next `whole` tokens, which a run alone would evaluate at once, are evaluated now if
/// there is time for `tokens`.
pub(crate) fn piece(whole: usize, tokens: usize) -> usize {
    if whole <= tokens || whole < 2 * GRAIN {
        return whole;
    }
    tokens.min((whole - GRAIN) / GRAIN * GRAIN).max(GRAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_step_has_time_for_what_it_was_measured_to_take() {
        let mut pace = Pace::default();
        assert_eq!(pace.tokens(), 64, "nothing is known");
        pace.measured(320, Duration::from_millis(96));
        // 60 ms at 0.3 ms.
        assert_eq!(pace.tokens(), 192);
        pace.measured(63, Duration::from_secs(9));
        assert_eq!(pace.tokens(), 192, "too little to be measured");
        for _ in 0..40 {
            pace.measured(64, Duration::from_secs(5));
        }
        assert_eq!(pace.tokens(), 64, "however long that takes");
    }

    proptest! {
        #[test]
        fn all_pieces_are_evaluated_in_the_same_way(whole in 1..513_usize, grains in 1..9_usize) {
            let mut left = whole;
            while left > 0 {
                let piece = piece(left, grains * GRAIN);
                prop_assert!((1..=left).contains(&piece));
                prop_assert_eq!(piece >= GRAIN, whole >= GRAIN);
                prop_assert!(piece <= grains * GRAIN || piece < 2 * GRAIN);
                left -= piece;
            }
        }
    }
}
