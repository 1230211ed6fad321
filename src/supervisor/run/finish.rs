//! The last event of a request that was answered, with its counts.

use tokio::sync::mpsc::OwnedPermit;

use super::Serving;
use crate::generation::{FinishReason, GenerationError, ReplyEvent};
use crate::ipc::{RunEnd, RunOutcome};
use crate::supervisor::outcome::{self, Outcome};
use crate::supervisor::reading::Reading;

impl Serving<'_> {
    /// What has been begun and does not fit any more is as long as it can be.
    pub(super) fn at_the_context_limit(&self, outcome: Outcome, end: &RunEnd) -> Outcome {
        let does_not_fit = matches!(
            (&outcome, &end.outcome),
            (
                Outcome::Failed(GenerationError::ContextLengthExceeded { .. }),
                RunOutcome::ContextLengthExceeded { .. } | RunOutcome::Refused { .. }
            )
        );
        if does_not_fit && self.before.tokens > 0 {
            return Outcome::Finished {
                reason: FinishReason::Length,
                flush: true,
            };
        }
        outcome
    }

    /// One that ends before all has come again of what its reader has is another answer.
    pub(super) fn at_an_end_before_its_time(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Finished { .. } if !self.repeated.is_over() => self.not_repeated(),
            outcome => outcome,
        }
    }

    pub(super) fn finish(
        &mut self,
        reason: FinishReason,
        flush: bool,
        end: Option<&RunEnd>,
        tail: OwnedPermit<ReplyEvent>,
    ) {
        let Some(last) = self.last.take() else {
            return;
        };
        let (reason, flush) = match self.wants_no_text() {
            true => (FinishReason::Length, false),
            false => (reason, flush),
        };
        let wants_text = !self.wants_no_text();
        let reading = self.reading.as_mut().filter(|_| wants_text);
        let held_back = reading.and_then(|reading| match flush {
            true => reading.finish(reason),
            false => reading.finish_content(),
        });
        if let Some(held_back) = held_back {
            tail.send(held_back);
        }
        let tokens = match end {
            _ if self.wants_no_text() => 0,
            Some(end) => self.before.tokens.saturating_add(end.generated_tokens),
            None => self.answer.tokens(),
        };
        let mut completion = outcome::completion(
            end,
            reason,
            self.prompt_tokens,
            tokens,
            self.before,
            self.waited,
        );
        if let Some(usage) = &mut completion.usage {
            let reading = self.reading.as_ref();
            usage.reasoning_tokens = reading.and_then(Reading::thought_tokens);
        }
        // One of the model's own is the end of its turn.
        let reached = self.reading.as_ref().and_then(Reading::stop_text);
        let stops = &self.job.request.stop;
        completion.stop_text = reached
            .filter(|reached| stops.iter().any(|stop| stop == reached))
            .map(str::to_owned);
        last.send(ReplyEvent::Finished(Box::new(completion)));
    }

    /// No token is wanted, only what evaluating the prompt tells.
    fn wants_no_text(&self) -> bool {
        self.job.request.max_new_tokens == Some(0)
    }
}
