//! The callbacks' side of a library's run for an answer that is kept to its grammar: of one that makes
//! tokens, and of one that tells the logits behind what there is. Each asks the library to end inside a
//! callback, never by what that returns, and takes nothing in that still comes before FINISH.

use std::sync::{Arc, Mutex, PoisonError};

use rkllm_sys::{
    CallError, CallState, Flow, Matrix, PerfStat, ReleaseBuffer, ResultSink, ResultView,
};

use super::answer::SharedAnswer;
use crate::ipc::WaitsFor;

/// Asks the library to end its run.
pub type Abort = Box<dyn Fn() -> Result<(), CallError> + Send>;

/// What a run of the library left behind.
#[derive(Debug, Default)]
pub struct Left {
    /// It has made a token that may not come.
    pub strayed: bool,
    /// The logits behind all of its input.
    pub row: Option<Vec<f32>>,
    /// Tokens that it made and that are not part of the answer.
    pub wasted_tokens: u32,
    pub finished: bool,
    pub after_finish: u32,
    pub reported_error: bool,
    pub perf: Option<PerfStat>,
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

fn asks_to_end(abort: &Abort) {
    if let Err(error) = abort() {
        eprintln!("W rkllmd-worker: ending a run: {error}");
    }
}

impl Left {
    /// What both kinds of runs read alike. Returns whether it is a token, or what comes in its place.
    fn reads(&mut self, result: &ResultView<'_>) -> bool {
        if self.finished {
            self.after_finish += 1;
            return false;
        }
        match result.state {
            CallState::Normal | CallState::Waiting => return true,
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

/// Of a run that makes tokens.
pub struct TokensSink {
    pub answer: SharedAnswer,
    pub left: Left,
    pub for_caller: SharedLeft,
    pub abort: Abort,
}

impl Drop for TokensSink {
    fn drop(&mut self) {
        self.for_caller.put(std::mem::take(&mut self.left));
    }
}

impl ResultSink for TokensSink {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        if self.left.reads(&result) {
            self.token(&result);
        }
        Flow::Continue
    }
}

impl TokensSink {
    fn token(&mut self, result: &ResultView<'_>) {
        let id = result.token_id.filter(|&id| id >= 0);
        let has_text = result.text.is_some_and(|text| !text.is_empty());
        if id.is_none() && !has_text && result.state != CallState::Waiting {
            // A sequence that has ended reports a negative id and nothing else.
            return;
        }
        let mut answer = self.answer.lock();
        if self.left.strayed || answer.is_over() {
            // The abort has not taken effect yet.
            self.left.wasted_tokens += 1;
            return asks_to_end(&self.abort);
        }
        answer.progress().goes_on();
        if answer.progress().abort_requested() {
            self.left.wasted_tokens += 1;
            answer.ends_by_abort();
            return asks_to_end(&self.abort);
        }
        // What stands before it was forced, and was part of the input.
        answer.tells();
        match id.filter(|&id| !answer.is_over() && answer.may_come(id)) {
            Some(id) => {
                answer.takes(id);
                answer.tells();
            }
            None => {
                self.left.wasted_tokens += 1;
                if !answer.is_over() {
                    self.left.strayed = true;
                    answer.goes_back(WaitsFor::Finish);
                    if id.is_some_and(|id| answer.is_end_of_model(id)) {
                        // It ends by itself. One that does not is asked to at its next token.
                        return;
                    }
                }
            }
        }
        if self.left.strayed || answer.is_over() {
            asks_to_end(&self.abort);
        }
    }
}

/// Of a run for the logits behind its input.
pub struct RowSink {
    pub answer: SharedAnswer,
    pub left: Left,
    pub for_caller: SharedLeft,
    pub abort: Abort,
    /// Logits are large, and stay allocated unless they are given back.
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
            self.left.row = result.logits.as_ref().and_then(last_row);
        }
        let answer = self.answer.lock();
        if is_first {
            answer.goes_back(WaitsFor::Finish);
        }
        // It ends by itself there. One that does not is asked to at its next token.
        let is_end = (result.token_id).is_some_and(|id| answer.is_end_of_model(id));
        drop(answer);
        if !(is_first && is_end) {
            asks_to_end(&self.abort);
        }
        match self.release {
            Some(release) if result.logits.is_some() => Flow::ReleaseBuffer(release),
            _ => Flow::Continue,
        }
    }
}

/// The library gives rows for what was not in its cache only, which is never less than the last one.
fn last_row(logits: &Matrix<'_>) -> Option<Vec<f32>> {
    let mut rows = logits.values.chunks_exact(logits.columns.max(1));
    rows.next_back().map(<[f32]>::to_vec)
}
