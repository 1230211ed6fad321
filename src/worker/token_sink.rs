//! The callback's side of a run: copy, push, return. Here the run is ended when its budget is used
//! up, when a token is an end-of-sequence id that the runtime ignores (docs/vendor-library.md §8), or when
//! an abort was asked for: inside the callback the library is between two tokens, so the counts
//! after it add up. An answer that is complete is reported at once, because the library may ignore
//! the abort, or die of it, and that is no longer the answer's concern.

use std::sync::{Arc, Mutex, PoisonError};

use rkllm_sys::{
    CallError, CallState, Flow, LogprobView, LogprobsView, PerfStat, ResultSink, ResultView,
};

use super::constrained::Kept;
use super::run_progress::RunProgress;
use super::slot::{SlotNote, SlotNotes};
use super::slot_events::SlotEvents;
use super::token_agreement::Spelled;
use super::utf8_assembly::Utf8Assembly;
use crate::conversation::{TokenLogprob, TokenLogprobs};
use crate::generation::FinishReason;
use crate::ipc::{SlotEvent, TokenKind};

/// Tokens of a prompt whose log probabilities share an event.
const PROMPT_LOGPROBS: usize = 64;

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
    /// FINISH came: what comes after it is not part of the run.
    pub finished: bool,
    /// Tokens that came after our end and are not part of the answer, though the KV cache has
    /// them.
    pub dropped_tokens: u32,
    /// Results that came after FINISH.
    pub after_finish: u32,
    /// How the library prints its tokens.
    pub spelled: Spelled,
}

/// Where the sink leaves its record when the library's call is over, for the thread that made the
/// call.
pub type SharedRecord = Arc<Mutex<RunRecord>>;

pub struct TokenSink {
    pub run: u64,
    pub progress: Arc<RunProgress>,
    pub record: RunRecord,
    pub record_for_caller: SharedRecord,
    pub events: SlotEvents,
    pub notes: SlotNotes,
    /// Asks the library to end the run.
    pub abort: Box<dyn Fn() -> Result<(), CallError> + Send>,
    pub eos_ids: Arc<[i32]>,
    /// The runtime keeps this token budget itself; it is aborted only if it goes past it.
    pub budget_of_runtime: Option<u32>,
    /// What the answer is kept to.
    pub kept: Option<Kept>,
    pub text: Utf8Assembly,
    /// How likely tokens of the prompt were, not told yet.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// How likely the token was whose result comes next.
    pub logprobs: Option<TokenLogprobs>,
}

impl Drop for TokenSink {
    fn drop(&mut self) {
        *self
            .record_for_caller
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut self.record);
    }
}

impl ResultSink for TokenSink {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        if self.record.finished {
            self.record.after_finish += 1;
            return Flow::Continue;
        }
        match result.state {
            CallState::Normal | CallState::Waiting => self.token(&result),
            CallState::Finish => {
                self.tell_of_prompt();
                self.flush_text();
                self.record.finished = true;
                self.record.perf = result.perf;
            }
            CallState::Error => self.record.reported_error = true,
            CallState::Unknown(state) => {
                eprintln!("W rkllmd-worker: the runtime reported the unknown state {state}");
            }
        }
        Flow::Continue
    }

    fn on_logprobs(&mut self, logprobs: LogprobsView<'_>) {
        if self.record.finished || self.record.ended_by.is_some() {
            return;
        }
        let told = TokenLogprobs {
            token: owned(logprobs.token),
            top: logprobs.top().map(owned).collect(),
        };
        if !logprobs.of_prompt {
            self.logprobs = Some(told);
            return;
        }
        self.prompt_logprobs.push(told);
        if self.prompt_logprobs.len() >= PROMPT_LOGPROBS {
            self.tell_of_prompt();
        }
    }
}

fn owned(logprob: LogprobView<'_>) -> TokenLogprob {
    TokenLogprob {
        id: logprob.token,
        bytes: logprob.bytes.to_vec(),
        logprob: logprob.logprob,
    }
}

impl TokenSink {
    fn tell_of_prompt(&mut self) {
        let tokens = std::mem::take(&mut self.prompt_logprobs);
        if !tokens.is_empty() {
            self.deliver(SlotEvent::Logprobs {
                run: self.run,
                of_prompt: true,
                tokens,
            });
        }
    }

    fn token(&mut self, result: &ResultView<'_>) {
        let text = result.text.unwrap_or_default();
        let id = result.token_id.filter(|&id| id >= 0);
        let is_waiting = result.state == CallState::Waiting;
        if id.is_none() && text.is_empty() && !is_waiting {
            // A sequence that has ended reports a negative id and nothing else.
            return;
        }
        self.tell_of_prompt();
        let logprobs = self.logprobs.take();
        if self.record.ended_by.is_some() {
            // The abort has not taken effect yet, or the budget was not kept.
            self.record.dropped_tokens += 1;
            return self.abort();
        }
        if self.progress.abort_requested() {
            self.record.dropped_tokens += 1;
            return self.end(EndedBy::Abort);
        }
        let count = self.progress.count_token();
        if self.progress.is_told(count) {
            self.notes.send(SlotNote::TokenMade { run: self.run });
        }
        if id.is_some_and(|id| self.eos_ids.contains(&id)) {
            self.complete(FinishReason::Stop, count);
            return self.abort();
        }
        if let Some(logprobs) = logprobs {
            self.deliver(SlotEvent::Logprobs {
                run: self.run,
                of_prompt: false,
                tokens: vec![logprobs],
            });
        }
        self.push(id, text, is_waiting);
        let limit = self.progress.limit_tokens();
        if count >= limit {
            let kept = self.kept.as_ref().zip(id);
            let reason = match kept.is_some_and(|(kept, id)| kept.is_complete_behind(id)) {
                true => FinishReason::Stop,
                false => FinishReason::Length,
            };
            self.complete(reason, count);
            if self.budget_of_runtime != Some(limit) {
                self.abort();
            }
        }
    }

    fn complete(&mut self, reason: FinishReason, generated_tokens: u32) {
        self.record.ended_by = Some(EndedBy::Reason(reason));
        self.flush_text();
        self.deliver(SlotEvent::AnswerComplete {
            run: self.run,
            reason,
            generated_tokens,
        });
        self.progress.set_complete();
    }

    fn push(&mut self, id: Option<i32>, bytes: &[u8], is_waiting: bool) {
        self.record.spelled.token(id, bytes, is_waiting);
        let whole = self.text.push(bytes);
        // The runtime holds a character back itself when it says WAITING.
        let kind = if whole.replaced {
            TokenKind::Replaced
        } else if is_waiting || self.text.holds_back() {
            TokenKind::Partial
        } else if whole.text.is_empty() {
            TokenKind::Swallowed
        } else {
            TokenKind::Text
        };
        let text = whole.text.into_owned();
        self.deliver_token(kind, id, text);
    }

    /// Half a character that nothing follows.
    fn flush_text(&mut self) {
        let text = self.text.finish();
        if !text.is_empty() {
            self.deliver_token(TokenKind::Rest, None, text);
        }
    }

    fn deliver_token(&self, kind: TokenKind, id: Option<i32>, text: String) {
        self.deliver(SlotEvent::Token {
            run: self.run,
            kind,
            id,
            text,
        });
    }

    fn deliver(&self, event: SlotEvent) {
        self.events.deliver(&self.progress, event, Vec::new());
    }

    fn end(&mut self, by: EndedBy) {
        self.record.ended_by = Some(by);
        self.abort();
    }

    fn abort(&self) {
        if let Err(error) = (self.abort)() {
            eprintln!("W rkllmd-worker: ending a run: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
