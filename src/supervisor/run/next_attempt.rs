//! What becomes of a request between two of its runs: whether there is another, and what it begins with.

use super::Serving;
use crate::children::ChildProcess;
use crate::generation::{FinishReason, GenerationError, GenerationRequest};
use crate::supervisor::attempts::GivenUp;
use crate::supervisor::drive::Loss;
use crate::supervisor::outcome::Outcome;
use crate::supervisor::probe::Suspicion;
use crate::supervisor::repeated::{self, Repeated};
use crate::telemetry::Metrics;

const THOUGHT_USED_UP: &str = "its thought has used its budget";

/// Counts an answer that ends because another worker makes another one of it.
pub(super) fn count_made_otherwise(request: &GenerationRequest, metrics: &Metrics) {
    metrics.resume_refused(&request.model, "differs");
    tracing::warn!(request = %request.id, model = &*request.model,
        "another worker makes another answer of it");
}

impl Serving<'_> {
    /// Decides what a lost worker means for the request, and what the next one is given.
    pub(super) fn prepare_next_attempt(
        &mut self,
        loss: Loss,
        process: ChildProcess,
    ) -> Result<(), Outcome> {
        let made = self.answer.tokens().saturating_sub(self.before.tokens);
        self.furthest = self.furthest.max(made);
        match self.attempts.lost(loss.death()) {
            Ok(()) => {}
            Err(given_up) => {
                let cause = loss.cause.to_string();
                if given_up == GivenUp::TooManyLosses {
                    return Err(Outcome::Failed(GenerationError::WorkerDied { cause }));
                }
                self.suspicion = Some(Suspicion::Deaths { cause });
                return Ok(());
            }
        }
        // What is made again is as it was.
        if !self.repeats {
            self.answer.roll_back();
            if let Some(reading) = &mut self.reading {
                reading.roll_back();
            }
        }
        let seen = match self.repeats {
            true => self.answer.tokens_seen(),
            false => self.answer.tokens(),
        };
        if seen > 0 && !self.job.request.resume {
            let reason = "resuming is switched off for it";
            return Err(self.interrupted(loss.cause.to_string(), "switched-off", reason));
        }
        let cause = loss.cause.to_string();
        if self.repeats {
            let repeatable = self.answer.check_repeatable();
            repeatable.map_err(|why| self.interrupted(cause, why.name(), why.reason()))?;
            self.repeated = Repeated::new(self.answer.made_behind(self.before.tokens));
        } else {
            self.hand_over(&cause)?;
        }
        let request = &self.job.request;
        let (model, metrics) = (&request.model, &self.services.metrics);
        match &self.begun {
            _ if self.repeats && self.answer.tokens() > 0 => {
                self.before.resumptions += 1;
                metrics.run_resumed(model);
                tracing::warn!(request = %request.id, model = &**model, tokens = self.answer.tokens(),
                    "making an answer again, as far as it was made");
            }
            Some(begun) if self.before.tokens > 0 => {
                self.before.resumptions += 1;
                metrics.run_resumed(model);
                tracing::warn!(request = %request.id, model = &**model, tokens = self.before.tokens,
                    text_bytes = begun.text.len(), by_tokens = begun.token_ids.is_some(), "resuming an answer");
            }
            _ => {
                metrics.run_repeated(model);
                tracing::warn!(request = %request.id, model = &**model, "running a request again");
            }
        }
        self.lost = Some(process);
        Ok(())
    }

    /// Closes the thought that has used its budget: what comes next goes on behind it.
    pub(super) fn close_thought(&mut self) -> Result<(), Outcome> {
        if let Some(reading) = &mut self.reading {
            reading.close_thought(&mut self.answer);
        }
        self.hand_over(THOUGHT_USED_UP)
    }

    /// Makes ready what the next run begins with. `Err`: there is none. `cause`: why the run before it
    /// has ended.
    fn hand_over(&mut self, cause: &str) -> Result<(), Outcome> {
        self.begun = match self.answer.begun(self.ids_are_trusted) {
            Ok(begun) => begun,
            Err(inexact) => {
                return Err(self.interrupted(cause.to_owned(), inexact.name(), inexact.reason()));
            }
        };
        self.before.tokens = self.answer.tokens();
        self.before.in_context = self.answer.tokens_in_context();
        match self.before.tokens > 0 && self.tokens_left() == Some(0) {
            true => Err(Outcome::Finished {
                reason: FinishReason::Length,
                flush: true,
            }),
            false => Ok(()),
        }
    }

    /// The answer cannot be gone on with; `name` is what it is counted as.
    fn interrupted(&self, cause: String, name: &'static str, reason: &'static str) -> Outcome {
        let metrics = &self.services.metrics;
        metrics.resume_refused(&self.job.request.model, name);
        Outcome::Failed(GenerationError::AnswerInterrupted { cause, reason })
    }

    /// An answer that is to be made once more has not been, as far as its reader has it.
    pub(super) fn not_repeated(&self) -> Outcome {
        count_made_otherwise(&self.job.request, &self.services.metrics);
        Outcome::Failed(repeated::made_otherwise())
    }

    /// A prompt that tokens were made of is not one that the runtime does not take: what it refused is
    /// the prompt with the answer's beginning.
    pub(super) fn at_a_refused_continuation(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed(GenerationError::RunRefused { .. })
                if self.before.tokens > 0 || (self.repeats && self.answer.tokens() > 0) =>
            {
                let cause = match self.before.resumptions {
                    0 => THOUGHT_USED_UP,
                    _ => "its worker was lost",
                };
                let reason = "the runtime does not take the prompt with the answer's beginning";
                self.interrupted(cause.to_owned(), "runtime", reason)
            }
            outcome => outcome,
        }
    }
}
