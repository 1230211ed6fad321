//! The callback's side of a run: copy, push, return. Here the run is ended when its budget is used
//! up, when a token is an end-of-sequence id that the runtime ignores (rknn-llm issue 534), or when
//! an abort was asked for: inside the callback the library is between two tokens, so the counts
//! after it add up.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use rkllm_sys::{CallState, ControlHandle, Flow, PerfStat, ResultSink, ResultView};

use super::event_writer::EventWriter;
use super::run_progress::RunProgress;
use super::session::Note;
use super::utf8_assembly::Utf8Assembly;
use crate::generation::FinishReason;
use crate::ipc::{Event, TokenKind};

/// Why our side ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    Reason(FinishReason),
    Abort,
}

/// What the callbacks of a run left behind.
#[derive(Debug, Default)]
pub struct RunRecord {
    pub ended_by: Option<EndedBy>,
    pub perf: Option<PerfStat>,
    pub reported_error: bool,
    /// Tokens that came after the end and are not part of the answer, though the KV cache has
    /// them.
    pub dropped_tokens: u32,
}

/// Shared between the sink, which the library's call owns, and the thread that waits for the call.
pub type SharedRecord = Arc<Mutex<RunRecord>>;

pub struct TokenSink {
    pub run: u64,
    pub progress: Arc<RunProgress>,
    pub record: SharedRecord,
    pub events: EventWriter,
    pub notes: Sender<Note>,
    pub control: ControlHandle,
    pub eos_ids: Arc<[i32]>,
    /// The runtime keeps this token budget itself; it is aborted only if it goes past it.
    pub budget_of_runtime: Option<u32>,
    pub text: Utf8Assembly,
}

impl ResultSink for TokenSink {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        match result.state {
            CallState::Normal | CallState::Waiting => self.token(&result),
            CallState::Finish => {
                self.flush_text();
                self.note(|record| record.perf = record.perf.or(result.perf));
            }
            CallState::Error => self.note(|record| record.reported_error = true),
            CallState::Unknown(state) => {
                eprintln!("W rkllmd-worker: the runtime reported the unknown state {state}");
            }
        }
        Flow::Continue
    }
}

impl TokenSink {
    fn token(&mut self, result: &ResultView<'_>) {
        if self.has_ended() {
            // The abort has not taken effect yet, or the budget was not kept.
            self.note(|record| record.dropped_tokens += 1);
            return self.abort();
        }
        if self.progress.abort_requested() {
            self.note(|record| record.dropped_tokens += 1);
            return self.end(EndedBy::Abort);
        }
        let count = self.progress.count_token();
        if count == 1 {
            let _ = self.notes.send(Note::FirstToken { run: self.run });
        }
        if result.token_id.is_some_and(|id| self.eos_ids.contains(&id)) {
            return self.end(EndedBy::Reason(FinishReason::Stop));
        }
        self.push(result.token_id, result.text.unwrap_or_default());
        let limit = self.progress.limit_tokens();
        if count >= limit {
            if self.budget_of_runtime == Some(limit) {
                self.note(|record| record.ended_by = Some(EndedBy::Reason(FinishReason::Length)));
            } else {
                self.end(EndedBy::Reason(FinishReason::Length));
            }
        }
    }

    fn push(&mut self, id: Option<i32>, bytes: &[u8]) {
        let text = self.text.push(bytes);
        let kind = if text.is_empty() {
            TokenKind::Swallowed
        } else {
            TokenKind::Text
        };
        let event = Event::Token {
            run: self.run,
            kind,
            id,
            text: text.into_owned(),
        };
        if let Err(event) = self.events.try_send(event) {
            // The daemon's reader is slow. That is not the library's fault: its deadlines rest.
            self.progress.set_waiting_for_reader(true);
            self.events.send(event);
            self.progress.set_waiting_for_reader(false);
        }
    }

    fn flush_text(&mut self) {
        let text = self.text.finish();
        if !text.is_empty() {
            let (run, kind) = (self.run, TokenKind::Text);
            let id = None;
            self.events.send(Event::Token {
                run,
                kind,
                id,
                text,
            });
        }
    }

    fn end(&mut self, by: EndedBy) {
        self.note(|record| record.ended_by = Some(by));
        self.abort();
    }

    fn abort(&self) {
        if let Err(error) = self.control.abort() {
            eprintln!("W rkllmd-worker: ending a run: {error}");
        }
    }

    fn has_ended(&self) -> bool {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended_by
            .is_some()
    }

    fn note(&self, change: impl FnOnce(&mut RunRecord)) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
