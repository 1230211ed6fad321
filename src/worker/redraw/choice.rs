//! Whether a run is to tell the logits of each of its tokens. With them, a token that may not come is drawn
//! again from what is in hand; without, a run of its own tells its row. Which is less depends on how often
//! tokens may not come, which the answer shows, and on what either takes, which is measured. Pure.
//!
//! ```text
//!   a token free          F + V R + V B      F: a token without its row    V: of so many tokens one may not come
//!   a token with its row  L + V B            L: one with it                R: a run for a row alone
//!                                            B: the way back, in either
//! ```

use std::time::Duration;

/// So many of an answer's tokens were drawn again before its rate says anything.
const ENOUGH: u32 = 3;
/// What was measured last counts for so much of the mean.
const NEW: f64 = 0.25;
/// Tokens of a run that shows what one with its row takes.
const TRIED: u32 = 32;
/// A run of fewer is not worth its beginning.
const LEAST: u32 = 8;

/// What things take with one handle, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    free_token: Option<f64>,
    token_with_row: Option<f64>,
    row: Option<f64>,
    /// The library was seen to tell a token without its row, in a run that was to tell both.
    rows_are_missing: bool,
}

impl Costs {
    /// A run made so many tokens behind its first one.
    pub fn made(&mut self, tokens: u32, took: Duration, with_rows: bool) {
        if tokens > 0 {
            let place = match with_rows {
                true => &mut self.token_with_row,
                false => &mut self.free_token,
            };
            measured(place, took.as_secs_f64() / f64::from(tokens));
        }
    }

    /// A run told a row, and was ended.
    pub fn told_a_row(&mut self, took: Duration) {
        measured(&mut self.row, took.as_secs_f64());
    }

    pub fn misses_rows(&mut self) {
        self.rows_are_missing = true;
    }

    pub fn may_have_rows(&self) -> bool {
        !self.rows_are_missing
    }

    /// `strayed` of so many tokens may not come. What a token with its row takes is found out where it is not known.
    pub fn wants_rows(&self, strayed: u32, tokens: u32) -> bool {
        if !self.may_have_rows() || strayed < ENOUGH {
            return false;
        }
        let tokens = f64::from(tokens.max(strayed));
        self.token_with_row.is_none() || tokens < f64::from(strayed) * self.worth_of_a_redraw()
    }

    /// How many tokens a run with rows that is wanted may make, all of which may come, before one without would
    /// take less again.
    pub fn worth_rows(&self, strayed: u32, tokens: u32) -> u32 {
        if self.token_with_row.is_none() {
            return TRIED;
        }
        let until = f64::from(strayed) * self.worth_of_a_redraw();
        if until >= f64::from(u32::MAX) {
            return u32::MAX;
        }
        let until = until.ceil() as u32;
        until.saturating_sub(tokens.max(strayed)).max(LEAST)
    }

    /// Tokens with their rows for each that is drawn again, which take as much as without.
    fn worth_of_a_redraw(&self) -> f64 {
        let (Some(free), Some(with_row), Some(row)) =
            (self.free_token, self.token_with_row, self.row)
        else {
            // So that an answer which keeps to its format shows the rest in a run without.
            return f64::from(TRIED);
        };
        match with_row - free {
            more if more > 0.0 => row / more,
            _ => f64::INFINITY,
        }
    }
}

fn measured(mean: &mut Option<f64>, now: f64) {
    *mean = Some(match *mean {
        None => now,
        Some(before) => before + NEW * (now - before),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// In milliseconds.
    fn costs(free: u32, with_row: u32, row: u32) -> Costs {
        let mut costs = Costs::default();
        costs.made(10, MS * free * 10, false);
        costs.made(5, MS * with_row * 5, true);
        costs.told_a_row(MS * row);
        costs
    }

    #[test]
    fn rows_are_worth_it_where_enough_tokens_may_not_come() {
        // 40 ms more a token, against 200 ms for one in so many.
        let costs = costs(60, 100, 200);
        assert!(costs.wants_rows(4, 12));
        assert!(!costs.wants_rows(4, 40));
        assert!(!costs.wants_rows(2, 2), "that says nothing yet");
    }

    #[test]
    fn what_is_not_known_is_tried_once_there_is_a_reason() {
        let mut costs = Costs::default();
        assert!(!costs.wants_rows(0, 100));
        assert!(costs.wants_rows(3, 100));
        costs.made(0, MS, true);
        assert!(costs.wants_rows(3, 100), "no token was measured");
        assert_eq!(costs.worth_rows(3, 100), TRIED);
        costs.misses_rows();
        assert!(!costs.wants_rows(30, 30), "they do not come");
    }

    #[test]
    fn what_only_a_run_without_rows_shows_is_found_out_once_an_answer_keeps_to_its_format() {
        let mut costs = Costs::default();
        costs.made(5, MS, true);
        assert!(costs.wants_rows(3, 3) && costs.wants_rows(3, 3 * TRIED - 1));
        assert!(!costs.wants_rows(3, 3 * TRIED));
        assert_eq!(costs.worth_rows(3, TRIED), 2 * TRIED);
        assert_eq!(costs.worth_rows(3, 3 * TRIED - 1), LEAST);
    }

    #[test]
    fn what_was_measured_last_changes_it() {
        let mut costs = costs(10, 10, 100);
        assert!(costs.wants_rows(3, 30));
        for _ in 0..20 {
            costs.made(1, MS * 500, true);
        }
        assert!(!costs.wants_rows(3, 30));
    }

    proptest! {
        /// Whatever it takes, what is chosen takes no more than the other, by the sums above.
        #[test]
        fn the_lesser_is_chosen(
            free in 1..500_u32, with_row in 1..500_u32, row in 1..2000_u32,
            strayed in ENOUGH..50, more in 0..500_u32,
        ) {
            let tokens = strayed + more;
            let rate = f64::from(strayed) / f64::from(tokens);
            let without = f64::from(free) + rate * f64::from(row);
            let with = f64::from(with_row);
            prop_assume!((without - with).abs() > 1e-6);
            let chosen = costs(free, with_row, row).wants_rows(strayed, tokens);
            prop_assert_eq!(chosen, with < without);
        }

        /// Once an answer keeps to its format, its tokens are made without their rows again, and not before.
        #[test]
        fn rows_are_had_as_long_as_they_are_worth_it(
            free in 1..500_u32, with_row in 1..500_u32, row in 1..2000_u32,
            strayed in ENOUGH..50, more in 0..500_u32,
        ) {
            let tokens = strayed + more;
            let costs = costs(free, with_row, row);
            prop_assume!(costs.wants_rows(strayed, tokens) && with_row != free);
            let worth = costs.worth_rows(strayed, tokens);
            prop_assert!(worth >= LEAST);
            if worth == u32::MAX {
                prop_assert!(with_row <= free);
            } else {
                prop_assert!(!costs.wants_rows(strayed, tokens + worth + 1));
                let one_less = tokens + worth - 1;
                prop_assert!(worth == LEAST || costs.wants_rows(strayed, one_less - 1));
            }
        }
    }
}
