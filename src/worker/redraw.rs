//! Keeps an answer to its grammar where the library lets nobody between its logits and its token, by what
//! every library can do: to make tokens, to be aborted, and to tell logits.
//!
//! ```text
//!   makes tokens ──one that may come──► told
//!     ▲      │ one that may not, or an end before its time: abort, of which nothing is told
//!     │      ▼
//!     │   FINISH ──one token alone may come──────────────────────────────┐
//!     │      ▼                                                           ▼
//!     │   logits behind prompt and answer ──abort──► FINISH ──► drawn of what may come, told
//!     └──────────────── prompt, answer, what is forced ◄─────────────────┘
//! ```
//!
//! All of these are runs by tokens, so that each finds in the cache what the one before has evaluated, and
//! the row is that of the very tokens that were told. What is drawn is what `constraint::Draws` defines;
//! penalties are neutral where the library takes them per run, because it alone knows what they have seen.

mod answer;
mod of_handle;
mod sinks;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Context;
use rkllm_sys::{CallError, PerfStat, ReleaseBuffer, ResultSink, RunMode};

pub use answer::{Answer, Spells, Told};
pub use of_handle::OfHandle;

use crate::constraint::Draws;
use crate::ipc::{Redraws, RunConstraint, RunSpec, WaitsFor};
use crate::worker::constrained::{self, SharedTokens, TOKENS_UNKNOWN};
use crate::worker::token_sink::RunRecord;
use answer::SharedAnswer;
use sinks::{Abort, Left, RowSink, SharedLeft, TokensSink};

/// Runs for the logits of one place: a library may begin with half a character, whose logits are not known.
const TRIES: u32 = 3;

/// A run may make so many tokens more than are wanted of it: it is aborted, and an abort must not come to one
/// that has just ended by itself, because the next one follows at once.
const BEYOND: u32 = 1;

/// What makes the tokens.
pub trait Library {
    /// Returns when the run has ended.
    fn run(
        &mut self,
        input: &[i32],
        mode: RunMode,
        most_tokens: u32,
        sink: Box<dyn ResultSink>,
    ) -> Result<(), CallError>;

    fn abort(&self) -> Abort;

    fn release(&self) -> Option<ReleaseBuffer>;
}

/// The answer of a run, at its beginning, and the tokens that it goes on behind.
///
/// # Errors
/// Those of the model or of the prompt are not known, or there is no following the grammar.
pub fn prepare(
    spec: &RunSpec,
    constraint: &RunConstraint,
    tokens: Option<&SharedTokens>,
    (told, spells): (Told, Spells),
) -> anyhow::Result<(Answer, Vec<i32>)> {
    let parsers = tokens.context(TOKENS_UNKNOWN)?.get()?;
    let prompt = spec.prompt_tokens.as_ref();
    let prompt = prompt.context("the tokens of the prompt are not known")?;
    let begun = spec.begun.as_ref();
    let follower = constrained::follower_of(constraint, &parsers, begun)?;
    let tokens = parsers.tokens();
    let begun = begun.map(|begun| match &begun.token_ids {
        Some(ids) => ids.clone(),
        // The model may have made others of the same text.
        None => (tokens.spell(begun.text.as_bytes()).into_iter())
            .filter_map(|id| i32::try_from(id).ok())
            .collect(),
    });
    let input = [&**prompt, begun.as_deref().unwrap_or_default()].concat();
    anyhow::ensure!(!input.is_empty(), "a run needs a token");
    let tokens = Arc::clone(tokens);
    Ok((Answer::new(told, spells, tokens, follower), input))
}

/// From 0 to below 1, evenly.
pub fn random_chance() -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    let mut bytes = [0; 8];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Whichever token is drawn, the answer keeps to its grammar.
        eprintln!("W rkllmd-worker: drawing a number: {error}");
    }
    let bits = u64::from_le_bytes(bytes) >> (u64::BITS - BITS);
    bits as f64 / (1_u64 << BITS) as f64
}

/// How many tokens may be drawn again.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub redraws: u32,
    /// While it is not seen that the library finds in its cache what it has evaluated.
    pub without_reuse: u32,
}

/// How it came back.
pub struct Came {
    pub result: Result<(), CallError>,
    pub record: RunRecord,
    pub not_kept: Option<String>,
    pub redraws: Redraws,
    /// The library was asked to run.
    pub asked_runtime: bool,
}

pub struct Redraw<L> {
    library: L,
    answer: SharedAnswer,
    /// The prompt's tokens, and those of a begun answer.
    input: Vec<i32>,
    draws: Draws,
    limits: Limits,
    chance: fn() -> f64,
    runs: u32,
    /// Of the input of the last one.
    asked_tokens: usize,
    reuses: bool,
    /// All that was evaluated was told.
    is_measured: bool,
    came: Came,
}

/// What comes after a run that makes tokens.
enum Then {
    Over,
    /// A token is drawn in the place of what may not come.
    Redraw,
}

impl<L: Library> Redraw<L> {
    /// `chance`: from 0 to below 1, evenly.
    pub fn new(
        library: L,
        answer: Answer,
        input: Vec<i32>,
        (draws, limits): (Draws, Limits),
        chance: fn() -> f64,
    ) -> Self {
        Self {
            library,
            answer: SharedAnswer::new(answer),
            input,
            draws,
            limits,
            chance,
            runs: 0,
            asked_tokens: 0,
            reuses: false,
            is_measured: true,
            came: Came {
                result: Ok(()),
                record: RunRecord::default(),
                not_kept: None,
                redraws: Redraws::default(),
                asked_runtime: false,
            },
        }
    }

    /// Blocks until the answer has ended.
    pub fn run(mut self) -> Came {
        let mut answer = self.answer.lock();
        answer.ends_where_it_begins();
        answer.takes_what_is_forced();
        drop(answer);
        while let Then::Redraw = self.makes_tokens() {
            if !self.may_redraw() || !self.redraws() {
                break;
            }
        }
        let mut answer = self.answer.lock();
        self.came.record.ended_by = answer.ended_by();
        self.came.not_kept = answer.take_failure();
        if let Some(perf) = &mut self.came.record.perf {
            // Those behind the first one, as the library counts them; of its own some were dropped.
            let made = answer.progress().tokens().saturating_sub(1);
            perf.generate_tokens = i32::try_from(made).unwrap_or(i32::MAX);
        }
        drop(answer);
        let record = &mut self.came.record;
        // No refusal: it has taken the prompt before.
        let has_taken = self.runs > 1 && record.ended_by.is_none();
        record.reported_error |= has_taken && self.came.result.is_err();
        let evaluated = &mut self.came.redraws.evaluated_tokens;
        *evaluated = evaluated.filter(|_| self.is_measured);
        self.came
    }

    fn makes_tokens(&mut self) -> Then {
        if self.is_aborted() || self.answer.lock().is_over() {
            return Then::Over;
        }
        let left = SharedLeft::default();
        let sink = TokensSink {
            answer: self.answer.clone(),
            left: Left::default(),
            for_caller: left.clone(),
            abort: self.library.abort(),
        };
        let most = self.answer.lock().budget_left().saturating_add(BEYOND);
        self.asks(RunMode::Generate, most, Box::new(sink));
        let left = self.takes_in(&left);
        if self.has_failed() || self.is_aborted() {
            return Then::Over;
        }
        let mut answer = self.answer.lock();
        // What was forced before a run that has made nothing.
        answer.tells();
        match answer.is_over() || (!left.strayed && answer.ends_here()) {
            true => Then::Over,
            false => Then::Redraw,
        }
    }

    fn has_failed(&self) -> bool {
        self.came.result.is_err() || self.came.record.reported_error
    }

    fn may_redraw(&mut self) -> bool {
        let (most, setting) = match self.reuses {
            true => (self.limits.redraws, "max-redraws"),
            false => (self.limits.without_reuse, "max-redraws-without-reuse"),
        };
        if self.came.redraws.redraws >= most {
            self.answer.lock().fails(format!(
                "more than {most} of its tokens would have to be drawn again (`constraints.{setting}`)"
            ));
            return false;
        }
        self.came.redraws.redraws += 1;
        true
    }

    /// Puts a token that may come in the place of one that may not. Returns whether the answer goes on.
    fn redraws(&mut self) -> bool {
        let mut answer = self.answer.lock();
        let before = answer.drawn().len();
        answer.takes_what_is_forced();
        let is_settled = answer.drawn().len() > before || answer.is_over();
        drop(answer);
        if !is_settled {
            let Some(row) = self.row() else { return false };
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
            self.asks(RunMode::Logits, 1 + BEYOND, Box::new(sink));
            let left = self.takes_in(&left);
            if self.has_failed() || self.is_aborted() {
                return None;
            }
            if left.row.is_some() {
                return left.row;
            }
        }
        let mut answer = self.answer.lock();
        answer.fails("the library gives no logits to draw its next token from");
        None
    }

    /// Has the library run behind all that there is.
    fn asks(&mut self, mode: RunMode, most_tokens: u32, sink: Box<dyn ResultSink>) {
        let answer = self.answer.lock();
        let input = [self.input.as_slice(), answer.drawn()].concat();
        if self.runs > 0 {
            answer.goes_back(WaitsFor::Evaluation);
        }
        drop(answer);
        self.runs += 1;
        self.asked_tokens = input.len();
        self.came.asked_runtime = true;
        self.came.result = self.library.run(&input, mode, most_tokens, sink);
    }

    /// Counts what a run has left.
    fn takes_in(&mut self, left: &SharedLeft) -> Left {
        let mut left = left.take();
        // Those of the answer that stood behind the prompt from the first run on.
        let forced = self.asked_tokens.saturating_sub(self.input.len());
        let record = &mut self.came.record;
        record.finished |= left.finished;
        record.after_finish += left.after_finish;
        record.reported_error |= left.reported_error;
        record.dropped_tokens += left.wasted_tokens;
        self.came.redraws.wasted_tokens += left.wasted_tokens;
        let perf = left.perf.take();
        if self.runs == 1 {
            record.perf = perf.map(|perf| of_prompt(perf, forced));
            return left;
        }
        let evaluated = perf.and_then(|perf| u32::try_from(perf.prefill_tokens).ok());
        // None makes a token without evaluating one: nothing was told.
        let evaluated = evaluated.filter(|evaluated| *evaluated > 0);
        self.is_measured &= evaluated.is_some();
        if let Some(evaluated) = evaluated {
            let all = &mut self.came.redraws.evaluated_tokens;
            *all = Some(all.unwrap_or(0).saturating_add(evaluated));
            self.reuses |= (evaluated as usize) < self.asked_tokens;
        }
        if let (Some(all), Some(perf)) = (&mut record.perf, perf) {
            goes_on(all, &perf);
        }
        left
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

/// The first run evaluates forced tokens with the prompt, which are the answer's: so is their part of the time.
fn of_prompt(mut perf: PerfStat, forced: usize) -> PerfStat {
    let forced = i32::try_from(forced).unwrap_or(i32::MAX);
    if forced > 0 && perf.prefill_tokens > 0 {
        let all = perf.prefill_tokens;
        // No library evaluates none.
        perf.prefill_tokens = all.saturating_sub(forced).max(1);
        let of_prompt = perf.prefill_time_ms * perf.prefill_tokens as f32 / all as f32;
        perf.generate_time_ms += perf.prefill_time_ms - of_prompt;
        perf.prefill_time_ms = of_prompt;
    }
    perf
}

/// The prompt is evaluated by the first run; all that comes later is a part of making the answer's tokens.
fn goes_on(all: &mut PerfStat, more: &PerfStat) {
    all.generate_time_ms += more.prefill_time_ms + more.generate_time_ms;
    all.memory_usage_mb = all.memory_usage_mb.max(more.memory_usage_mb);
}
