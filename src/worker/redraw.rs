//! Keeps an answer to its grammar, and bans out of it, where the library lets no one between its logits and
//! its token, by what every library can do: to make tokens, to be aborted, and to tell logits.
//!
//! ```text
//!   makes tokens ──one that may come──► told
//!     ▲      │ one that may not, or an end before its time: abort, of which nothing is told
//!     │      ▼
//!     │   FINISH ──one token alone may come, or the row is in hand───────┐
//!     │      ▼                                                           ▼
//!     │   logits behind prompt and answer ──abort──► FINISH ──► drawn of what may come, told
//!     └──────────────── prompt, answer, what is forced ◄─────────────────┘
//! ```
//!
//! Tokens are made with the row of each in hand where that takes less (`choice`) or is set, and where it is to be
//! told how likely they were. Logits come of all that is evaluated, so the prompt is evaluated without.
//!
//! All of these are runs by tokens, so that each finds in the cache what the one before has evaluated, and
//! the row is that of the very tokens that were told. What is drawn is what `constraint::Draws` defines;
//! penalties are neutral where the library takes them per run, because it alone knows what they have seen.

mod answer;
mod came;
mod choice;
mod library;
mod of_handle;
mod perf;
mod prepared;
mod scores;
mod sinks;
#[cfg(test)]
mod tests;

use std::time::Instant;

use rkllm_sys::ResultSink;

pub use answer::{Answer, Rules, Spells, Told};
pub use came::Came;
pub use choice::Costs;
pub use of_handle::OfHandle;
pub use prepared::{prepare, random_chance};

use crate::constraint::Draws;
use crate::generation::{RedrawLimits, RedrawRuns};
use crate::ipc::{Redraws, WaitsFor};
use crate::worker::token_agreement::Spelled;
use crate::worker::token_sink::RunRecord;
use answer::SharedAnswer;
use library::{Asks, Library};
use sinks::{For, Left, RowSink, SharedLeft, TokensSink};

/// Runs for the logits of one place: a library may begin with half a character, whose logits are not known.
const TRIES: u32 = 3;

/// A run may make so many tokens more than are wanted of it: it is aborted, and an abort must not come to one
/// that has just ended by itself, because the next one follows at once.
const BEYOND: u32 = 1;

pub struct Redraw<L> {
    library: L,
    answer: SharedAnswer,
    /// The prompt's tokens, and those of a begun answer.
    input: Vec<i32>,
    draws: Draws,
    limits: RedrawLimits,
    chance: fn() -> f64,
    /// Tokens that the library has made at places of the answer; what it made behind them was not looked at.
    looked_at: u32,
    /// Of the input of the last one.
    asked_tokens: usize,
    reuses: bool,
    /// All that was evaluated was told.
    is_measured: bool,
    /// What the library printed for its tokens.
    spelled: Spelled,
    came: Came,
}

/// What comes after a run that makes tokens.
enum Then {
    Over,
    /// Another one, behind what it has made.
    GoesOn,
    /// A token is drawn in the place of what may not come: from this row, if it is in hand.
    Redraw(Option<Vec<f32>>),
}

impl<L: Library> Redraw<L> {
    /// `chance`: from 0 to below 1, evenly.
    pub fn new(
        library: L,
        answer: Answer,
        input: Vec<i32>,
        (draws, limits, costs): (Draws, RedrawLimits, Costs),
        chance: fn() -> f64,
    ) -> Self {
        Self {
            library,
            answer: SharedAnswer::new(answer),
            input,
            draws,
            limits,
            chance,
            looked_at: 0,
            asked_tokens: 0,
            reuses: false,
            is_measured: true,
            spelled: Spelled::default(),
            came: Came {
                result: Ok(()),
                record: RunRecord::default(),
                not_kept: None,
                redraws: Redraws::default(),
                asked_runtime: false,
                runs: 0,
                costs,
                tokens_are_others: false,
            },
        }
    }

    /// Blocks until the answer has ended.
    pub fn run(mut self) -> Came {
        let mut answer = self.answer.lock();
        answer.ends_where_it_begins();
        answer.takes_what_is_forced();
        drop(answer);
        loop {
            let row = match self.makes_tokens() {
                Then::Over => break,
                Then::GoesOn => continue,
                Then::Redraw(row) => row,
            };
            let goes_on = match self.may_redraw() {
                true => self.redraws(row),
                false => self.goes_on_beyond_its_limit(),
            };
            if !goes_on {
                break;
            }
        }
        self.counted()
    }

    fn makes_tokens(&mut self) -> Then {
        if self.is_aborted() || self.answer.lock().is_over() {
            return Then::Over;
        }
        let is_for = self.next_is_for();
        let left = SharedLeft::default();
        let sink = TokensSink {
            answer: self.answer.clone(),
            left: Left::default(),
            for_caller: left.clone(),
            abort: self.library.abort(),
            release: self.library.release(),
            is_for,
            most_tokens: match is_for {
                For::TokensWithRows => self.most_with_rows(),
                For::Tokens | For::Evaluation => u32::MAX,
            },
            untold: None,
        };
        let (asks, wanted) = match is_for {
            For::Evaluation => (Asks::Tokens, 1),
            For::Tokens => (Asks::Tokens, self.answer.lock().budget_left()),
            For::TokensWithRows => (Asks::TokensWithRows, self.answer.lock().budget_left()),
        };
        self.asks(asks, wanted.saturating_add(BEYOND), Box::new(sink));
        let left = self.takes_in(&left);
        if self.has_failed() || self.is_aborted() {
            return Then::Over;
        }
        let mut answer = self.answer.lock();
        if answer.is_over() {
            return Then::Over;
        }
        if is_for == For::Evaluation {
            return Then::GoesOn;
        }
        let with_rows = is_for == For::TokensWithRows;
        let (tokens, took) = left.pace.behind_the_first();
        self.came.costs.made(tokens, took, with_rows);
        if left.rows_are_missing {
            self.came.costs.misses_rows();
        }
        self.looked_at += left.made_tokens + u32::from(left.strayed);
        // What was forced before a run that has made nothing.
        answer.tells();
        let has_ended_itself = !left.strayed && !left.is_full;
        if answer.is_over() || (has_ended_itself && answer.ends_here()) {
            return Then::Over;
        }
        match left.is_full || (left.lacks_row && left.made_tokens > 0) {
            true => Then::GoesOn,
            false => Then::Redraw(left.row),
        }
    }

    fn next_is_for(&self) -> For {
        let strayed = self.came.redraws.redraws;
        let (answer, costs) = (self.answer.lock(), &self.came.costs);
        let with_rows = match (answer.wants_scores(), self.limits.runs) {
            (true, _) => true,
            (false, _) if !answer.may_stray() => false,
            (false, RedrawRuns::Measured) => costs.wants_rows(strayed, self.looked_at),
            (false, RedrawRuns::Tokens) => false,
            (false, RedrawRuns::Logits) => costs.may_have_rows(),
        };
        match with_rows {
            true if self.came.runs == 0 => For::Evaluation,
            true => For::TokensWithRows,
            false => For::Tokens,
        }
    }

    /// Where the library's rows may be kept until its run has ended, and where they are had for their worth.
    fn most_with_rows(&self) -> u32 {
        let may = self.library.most_with_rows();
        let is_chosen = self.limits.runs == RedrawRuns::Measured;
        match is_chosen && !self.answer.lock().wants_scores() {
            true => {
                let strayed = self.came.redraws.redraws;
                may.min(self.came.costs.worth_rows(strayed, self.looked_at))
            }
            false => may,
        }
    }

    fn has_failed(&self) -> bool {
        self.came.result.is_err() || self.came.record.reported_error
    }

    fn limit(&self) -> (u32, &'static str) {
        match self.reuses {
            true => (self.limits.redraws, "max-redraws"),
            false => (self.limits.without_reuse, "max-redraws-without-reuse"),
        }
    }

    fn may_redraw(&mut self) -> bool {
        let may = self.came.redraws.redraws < self.limit().0;
        self.came.redraws.redraws += u32::from(may);
        may
    }

    /// As what is free, if it was only wished for.
    fn goes_on_beyond_its_limit(&self) -> bool {
        let (most, setting) = self.limit();
        let mut answer = self.answer.lock();
        let goes_on = answer.goes_free();
        if !goes_on {
            answer.fails(format!(
                "more than {most} of its tokens would have to be drawn again (`constraints.{setting}`)"
            ));
        }
        goes_on
    }

    /// Puts a token that may come in the place of one that may not. Returns whether the answer goes on.
    fn redraws(&mut self, in_hand: Option<Vec<f32>>) -> bool {
        let mut answer = self.answer.lock();
        let before = answer.drawn().len();
        answer.takes_what_is_forced();
        let is_settled = answer.drawn().len() > before || answer.is_over();
        drop(answer);
        if !is_settled {
            let Some(row) = in_hand.or_else(|| self.row()) else {
                return false;
            };
            let mut answer = self.answer.lock();
            answer.draws_from(&row, self.draws, (self.chance)());
            answer.takes_what_is_forced();
        }
        let mut answer = self.answer.lock();
        answer.tells();
        !answer.is_over()
    }

    /// The logits behind the prompt and what was made of the answer.
    fn row(&mut self) -> Option<Vec<f32>> {
        for _ in 0..TRIES {
            if self.is_aborted() {
                return None;
            }
            let left = SharedLeft::default();
            let sink = RowSink {
                answer: self.answer.clone(),
                left: Left::default(),
                for_caller: left.clone(),
                abort: self.library.abort(),
                release: self.library.release(),
            };
            let asked_at = Instant::now();
            self.asks(Asks::Row, 1 + BEYOND, Box::new(sink));
            let left = self.takes_in(&left);
            if self.has_failed() || self.is_aborted() || self.answer.lock().is_over() {
                return None;
            }
            if left.row.is_some() {
                self.came.costs.told_a_row(asked_at.elapsed());
                return left.row;
            }
        }
        let mut answer = self.answer.lock();
        answer.fails("the library gives no logits to draw its next token from");
        None
    }

    /// Has the library run behind all that there is.
    fn asks(&mut self, asks: Asks, most_tokens: u32, sink: Box<dyn ResultSink>) {
        let answer = self.answer.lock();
        let input = [self.input.as_slice(), answer.drawn()].concat();
        if self.came.runs > 0 {
            answer.goes_back(WaitsFor::Evaluation);
        }
        drop(answer);
        self.came.runs += 1;
        self.came.redraws.runs_with_rows += u32::from(asks == Asks::TokensWithRows);
        self.asked_tokens = input.len();
        self.came.asked_runtime = true;
        self.came.result = self.library.run(&input, asks, most_tokens, sink);
    }

    fn is_aborted(&self) -> bool {
        let mut answer = self.answer.lock();
        let is_aborted = answer.progress().abort_requested() && !answer.is_over();
        if is_aborted {
            answer.ends_by_abort();
        }
        is_aborted
    }
}
