//! The callbacks' side of a library's run for an answer whose tokens are looked at: of one that makes
//! tokens, with their rows of logits or without, and of one that tells the row behind what there is. Each
//! asks the library to end inside a callback, never by what that returns, and takes nothing in that still
//! comes before FINISH.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rkllm_sys::{
    CallError, CallState, Flow, Matrix, PerfStat, ReleaseBuffer, ResultSink, ResultView,
};

use super::answer::SharedAnswer;
use crate::ipc::WaitsFor;
use crate::worker::token_agreement::Spelled;

/// Asks the library to end its run.
pub type Abort = Box<dyn Fn() -> Result<(), CallError> + Send>;

/// In the place of a token's id.
const NO_TOKEN: i32 = -1;

/// What a run of the library left behind.
#[derive(Debug, Default)]
pub struct Left {
    /// It has made a token that may not come.
    pub strayed: bool,
    /// It has made one whose row it did not tell, though that was to be had.
    pub lacks_row: bool,
    /// It has made whole texts without their rows, in a run that was to tell both.
    pub rows_are_missing: bool,
    /// The logits that the token which may not come was drawn from; of a run for a row, those behind its input.
    pub row: Option<Vec<f32>>,
    /// Tokens of it that are part of the answer.
    pub made_tokens: u32,
    /// Those are as many as it may make.
    pub is_full: bool,
    pub pace: Pace,
    /// Tokens that it made and that are not part of the answer.
    pub wasted_tokens: u32,
    pub finished: bool,
    pub after_finish: u32,
    pub reported_error: bool,
    pub perf: Option<PerfStat>,
    /// What it printed for its tokens.
    pub spelled: Spelled,
    abort_failed: bool,
}

/// How fast a run made tokens, whatever became of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    first: Option<Instant>,
    last: Option<Instant>,
    tokens: u32,
}

impl Pace {
    fn token(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.tokens += 1;
    }

    /// How many came behind the first one, and in what time.
    pub fn behind_the_first(&self) -> (u32, Duration) {
        let took = self.first.zip(self.last);
        let took = took.map_or(Duration::ZERO, |(first, last)| last - first);
        (self.tokens.saturating_sub(1), took)
    }
}

/// Where a sink leaves it when the library's call is over.
#[derive(Clone, Debug, Default)]
pub struct SharedLeft(Arc<Mutex<Left>>);

impl SharedLeft {
    pub fn take(&self) -> Left {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut left)
    }

    fn put(&self, what: Left) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

impl Left {
    /// Each token that still comes asks again; what is wrong is told once.
    fn asks_to_end(&mut self, abort: &Abort) {
        if let Err(error) = abort()
            && !self.abort_failed
        {
            self.abort_failed = true;
            eprintln!("W rkllmd-worker: ending a run: {error}");
        }
    }

    /// What both kinds of runs read alike. Returns whether it is a token, or what comes in its place.
    fn reads(&mut self, result: &ResultView<'_>) -> bool {
        if self.finished {
            self.after_finish += 1;
            return false;
        }
        match result.state {
            CallState::Normal | CallState::Waiting => {
                let is_waiting = result.state == CallState::Waiting;
                let text = result.text.unwrap_or_default();
                self.spelled.token(result.token_id, text, is_waiting);
                return true;
            }
            CallState::Finish => {
                self.finished = true;
                self.perf = result.perf;
            }
            CallState::Error => self.reported_error = true,
            CallState::Unknown(state) => {
                eprintln!("W rkllmd-worker: the runtime reported the unknown state {state}");
            }
        }
        false
    }
}

/// What a run that makes tokens is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Tokens,
    /// Each comes with the row that it was drawn from.
    TokensWithRows,
    /// Evaluating the prompt: what it makes is thrown away.
    Evaluation,
}

/// Of a run that makes tokens.
pub struct TokensSink {
    pub answer: SharedAnswer,
    pub left: Left,
    pub for_caller: SharedLeft,
    pub abort: Abort,
    pub release: Option<ReleaseBuffer>,
    pub is_for: For,
    /// It is ended behind so many.
    pub most_tokens: u32,
    /// The first result with a row and without text: a token, or the row of the token that comes next.
    pub untold: Option<(i32, Vec<f32>)>,
}

impl Drop for TokensSink {
    fn drop(&mut self) {
        self.for_caller.put(std::mem::take(&mut self.left));
    }
}

impl ResultSink for TokensSink {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        if self.left.reads(&result) {
            self.result(&result);
        } else if self.left.finished
            && let Some((id, row)) = self.untold.take()
        {
            self.last_untold(id, row);
        }
        flow(self.release, &result)
    }
}

impl TokensSink {
    fn result(&mut self, result: &ResultView<'_>) {
        let id = result.token_id.filter(|&id| id >= 0);
        let has_text = result.text.is_some_and(|text| !text.is_empty());
        let row = result.logits.as_ref().and_then(last_row);
        let is_waiting = result.state == CallState::Waiting;
        if id.is_none() && !has_text && !is_waiting {
            // A sequence that has ended reports a negative id and nothing else; or it is a row alone.
            if let Some(row) = row {
                self.untold = Some((NO_TOKEN, row.to_vec()));
            }
            return;
        }
        let is_first = self.left.pace.tokens == 0 && self.untold.is_none();
        let may_be_row_alone = is_first && self.is_for == For::TokensWithRows && !has_text;
        if let (true, Some(id), Some(row)) = (may_be_row_alone, id, row) {
            self.untold = Some((id, row.to_vec()));
            return;
        }
        match (self.untold.take(), row) {
            (Some((_, untold)), None) => self.token(id, Some(&untold)),
            (Some((before, untold)), Some(row)) => {
                if before != NO_TOKEN {
                    self.token(Some(before), Some(&untold));
                }
                self.token(id, Some(row));
            }
            (None, row) => {
                let wants_row = self.is_for == For::TokensWithRows && !self.left.strayed;
                let is_missing = wants_row && row.is_none() && !is_waiting;
                let is_end = |id| self.answer.lock().is_end_of_model(id);
                self.left.rows_are_missing |= is_missing && !id.is_some_and(is_end);
                self.token(id, row);
            }
        }
    }

    /// Nothing came behind it that would say what it is. An end of the model's is one; in the place of
    /// another a token is drawn from its row.
    fn last_untold(&mut self, id: i32, row: Vec<f32>) {
        let answer = self.answer.lock();
        let (is_over, is_end) = (answer.is_over(), answer.is_end_of_model(id));
        drop(answer);
        if is_end {
            self.token(Some(id), Some(&row));
        } else if !is_over && !self.left.strayed && !self.left.is_full {
            self.left.wasted_tokens += u32::from(id != NO_TOKEN);
            self.left.strayed = true;
            self.left.row = Some(row);
        }
    }

    fn token(&mut self, id: Option<i32>, row: Option<&[f32]>) {
        self.left.pace.token();
        let mut answer = self.answer.lock();
        if self.left.strayed || self.left.is_full || answer.is_over() {
            // The abort has not taken effect yet.
            self.left.wasted_tokens += 1;
            drop(answer);
            return self.asks_to_end();
        }
        answer.progress().goes_on();
        if answer.progress().abort_requested() {
            self.left.wasted_tokens += 1;
            answer.ends_by_abort();
            drop(answer);
            return self.asks_to_end();
        }
        // What stands before it was forced, and was part of the input.
        answer.tells();
        let is_end = id.is_some_and(|id| answer.is_end_of_model(id));
        let lacks_row = answer.wants_scores() && row.is_none();
        let may_come = self.is_for != For::Evaluation && !lacks_row;
        let taken = id.filter(|&id| may_come && !answer.is_over() && answer.may_come(id));
        match taken {
            Some(id) => {
                self.left.made_tokens += 1;
                answer.takes(id, row);
                answer.tells();
                if self.left.made_tokens >= self.most_tokens && !answer.is_over() {
                    self.left.is_full = true;
                    answer.goes_back(WaitsFor::Finish);
                }
            }
            None => {
                self.left.wasted_tokens += 1;
                if !answer.is_over() {
                    self.left.strayed = true;
                    self.left.lacks_row = lacks_row;
                    self.left.row = row.map(<[f32]>::to_vec);
                    answer.goes_back(WaitsFor::Finish);
                    if is_end {
                        // It ends by itself. One that does not is asked to at its next token.
                        return;
                    }
                }
            }
        }
        if self.left.strayed || self.left.is_full || answer.is_over() {
            drop(answer);
            self.asks_to_end();
        }
    }

    /// Not behind FINISH, where it would end the run that comes next.
    fn asks_to_end(&mut self) {
        if !self.left.finished {
            self.left.asks_to_end(&self.abort);
        }
    }
}

/// Of a run for the logits behind its input.
pub struct RowSink {
    pub answer: SharedAnswer,
    pub left: Left,
    pub for_caller: SharedLeft,
    pub abort: Abort,
    pub release: Option<ReleaseBuffer>,
}

impl Drop for RowSink {
    fn drop(&mut self) {
        self.for_caller.put(std::mem::take(&mut self.left));
    }
}

impl ResultSink for RowSink {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        if !self.left.reads(&result) {
            return Flow::Continue;
        }
        let is_token = result.state == CallState::Waiting
            || result.logits.is_some()
            || result.text.is_some_and(|text| !text.is_empty());
        if !is_token {
            // It announces what comes next.
            return Flow::Continue;
        }
        // Those of a later token are behind another input.
        let is_first = self.left.wasted_tokens == 0;
        self.left.wasted_tokens += 1;
        if is_first {
            let row = result.logits.as_ref().and_then(last_row);
            self.left.row = row.map(<[f32]>::to_vec);
        }
        let answer = self.answer.lock();
        if is_first {
            answer.goes_back(WaitsFor::Finish);
        }
        // It ends by itself there. One that does not is asked to at its next token.
        let is_end = (result.token_id).is_some_and(|id| answer.is_end_of_model(id));
        drop(answer);
        if !(is_first && is_end) {
            self.left.asks_to_end(&self.abort);
        }
        flow(self.release, &result)
    }
}

/// Logits are large, and stay allocated unless they are given back.
fn flow(release: Option<ReleaseBuffer>, result: &ResultView<'_>) -> Flow {
    match release {
        Some(release) if result.logits.is_some() => Flow::ReleaseBuffer(release),
        _ => Flow::Continue,
    }
}

/// The library gives rows for what was not in its cache only, which is never less than the last one.
fn last_row<'a>(logits: &Matrix<'a>) -> Option<&'a [f32]> {
    logits
        .values
        .chunks_exact(logits.columns.max(1))
        .next_back()
}
