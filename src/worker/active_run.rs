//! The run that is in progress: what it waits for, and how its end is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::npu_thread::RunReturned;
use super::run_progress::RunProgress;
use super::token_sink::EndedBy;
use crate::generation::FinishReason;
use crate::ipc::{RunOutcome, WorkerDeadlines};

pub struct ActiveRun {
    pub run: u64,
    pub prompt_bytes: usize,
    pub prefill_per_token: Duration,
    pub prompt_tokens: Option<u32>,
    pub progress: Arc<RunProgress>,
    pub abort: Option<AbortRequest>,
    /// Set once the library has returned; from then on only the KV cache size is waited for.
    pub returned: Option<Box<RunReturned>>,
}

pub struct AbortRequest {
    pub at: Instant,
    /// The library was told outside the callback, so it may have stopped between two counts.
    pub from_outside: bool,
    /// When the library is told outside the callback next. Before that the callback has the
    /// chance to end the run itself, so that the counts add up.
    pub next_outside: Instant,
}

/// A wait that ends at `at`.
pub struct Expiry {
    pub at: Instant,
    pub what: Expired,
}

pub enum Expired {
    Deadline {
        name: &'static str,
        limit: Duration,
        call: &'static str,
    },
    AbortFromOutside,
}

impl ActiveRun {
    /// Whether the KV cache size, asked now, would tell the prompt's tokens.
    pub fn is_countable(&self) -> bool {
        let Some(returned) = &self.returned else {
            return false;
        };
        let cut_off = self.abort.as_ref().is_some_and(|abort| abort.from_outside);
        returned.result.is_ok()
            && returned.prompt_tokens.is_none()
            && self.progress.tokens() > 0
            && !cut_off
    }

    /// What the run waits for next, and until when.
    pub fn next_expiry(&self, deadlines: &WorkerDeadlines) -> Option<Expiry> {
        if self.returned.is_some() {
            return None;
        }
        let deadline = |name, since: Instant, limit| Expiry {
            at: since + limit,
            what: Expired::Deadline {
                name,
                limit,
                call: "rkllm_run",
            },
        };
        match &self.abort {
            Some(abort) => {
                let finish = deadline("abort-to-finish", abort.at, deadlines.abort_to_finish);
                let outside = Expiry {
                    at: abort.next_outside,
                    what: Expired::AbortFromOutside,
                };
                Some(if outside.at < finish.at {
                    outside
                } else {
                    finish
                })
            }
            None if self.progress.waiting_for_reader() => Some(deadline(
                "inter-token",
                Instant::now(),
                deadlines.inter_token,
            )),
            None => Some(match self.progress.last_token() {
                Some(last) => deadline("inter-token", last, deadlines.inter_token),
                None => deadline(
                    "prefill",
                    self.progress.started(),
                    deadlines.prefill(
                        self.prefill_per_token,
                        self.prompt_bytes,
                        self.prompt_tokens,
                    ),
                ),
            }),
        }
    }
}

/// Why a run ended, from what the library and our side say.
pub fn outcome(returned: &RunReturned, abort_requested: bool, generated: u32) -> RunOutcome {
    if let (Some(limit_tokens), Some(prompt_tokens)) =
        (returned.over_limit_tokens, returned.prompt_tokens)
    {
        return RunOutcome::ContextLengthExceeded {
            prompt_tokens,
            limit_tokens,
        };
    }
    match (returned.record.ended_by, &returned.result) {
        (Some(EndedBy::Reason(reason)), _) => RunOutcome::Finished(reason),
        (Some(EndedBy::Abort), _) => RunOutcome::Aborted,
        (None, _) if abort_requested => RunOutcome::Aborted,
        (None, Err(error)) if generated == 0 => RunOutcome::Refused {
            reason: error.to_string(),
        },
        (None, Err(error)) => RunOutcome::Failed {
            reason: error.to_string(),
        },
        (None, Ok(())) if returned.record.reported_error => RunOutcome::Failed {
            reason: "the runtime reported the state ERROR".to_owned(),
        },
        (None, Ok(())) => RunOutcome::Finished(FinishReason::Stop),
    }
}
