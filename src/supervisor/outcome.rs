//! How a run's end is told to its reader.

use std::time::Duration;

use super::drive::Stop;
use super::lease::Running;
use super::runtime_lines;
use crate::generation::{
    Completion, FinishReason, GenerationError, GenerationRequest, Timings, Usage,
};
use crate::ipc::{PerfFigures, RunEnd, RunOutcome};

/// What the reader is told.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing: it has gone.
    Silence,
    /// `flush`: text that was held back for a stop string belongs to the answer.
    Finished {
        reason: FinishReason,
        flush: bool,
    },
    Failed(GenerationError),
}

/// Reads the end of a run.
pub(super) async fn of_end(
    end: &RunEnd,
    stop: Option<Stop>,
    running: &Running,
    request: &GenerationRequest,
) -> Outcome {
    if let Some(stop) = stop {
        return stopped(stop);
    }
    match &end.outcome {
        RunOutcome::Finished(reason) => Outcome::Finished {
            reason: *reason,
            flush: true,
        },
        RunOutcome::ContextLengthExceeded {
            prompt_tokens,
            limit_tokens,
        } => Outcome::Failed(GenerationError::ContextLengthExceeded {
            prompt_tokens: *prompt_tokens,
            limit_tokens: *limit_tokens,
        }),
        RunOutcome::NotKept { reason } => {
            tracing::warn!(request = %request.id, reason, "an answer could not be kept to its format");
            Outcome::Failed(GenerationError::NotKept {
                reason: reason.clone(),
            })
        }
        RunOutcome::Refused { reason } => {
            let lines = running.own_lines().await;
            tracing::warn!(request = %request.id, reason, "the runtime refused a run");
            Outcome::Failed(match runtime_lines::prompt_too_long(&lines) {
                Some(long) => GenerationError::ContextLengthExceeded {
                    prompt_tokens: long.prompt_tokens,
                    limit_tokens: long.limit_tokens,
                },
                // Until the model has shown that it takes others.
                None => GenerationError::RunRefused {
                    request: request.id.to_string(),
                },
            })
        }
        RunOutcome::Failed { reason } => {
            tracing::error!(request = %request.id, reason, "the runtime failed in a run");
            Outcome::Failed(GenerationError::RunFailed {
                request: request.id.to_string(),
            })
        }
        RunOutcome::Aborted => Outcome::Failed(GenerationError::Internal(
            "the run was aborted without being asked to".to_owned(),
        )),
    }
}

/// The end of a run that was ended early, whether or not the worker lived to tell.
pub(super) fn stopped(stop: Stop) -> Outcome {
    match stop {
        Stop::Cancelled | Stop::Aborted => Outcome::Silence,
        Stop::Failed(error) => Outcome::Failed(error),
        // Behind a closed thought the answer goes on, so that its run's end is never the answer's.
        Stop::Complete | Stop::ThoughtUsedUp => Outcome::Finished {
            reason: FinishReason::Stop,
            flush: false,
        },
    }
}

/// What earlier workers have contributed to an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// Tokens of the answer that were handed over to the last worker.
    pub tokens: u32,
    /// With those that no model made; `None`: it is not known how many those are.
    pub in_context: Option<u32>,
    /// How often the answer was resumed.
    pub resumptions: u32,
}

/// The waiting that was done before the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    pub time: Duration,
    pub position: u32,
}

/// Figures of an answer from its last run, the prompt's tokens if they were counted, and what came
/// before that run. The runtime's times are those of one run only, and so are those of the worker's clock, which
/// are told of a sequence of a batch instead: for an answer of several they are not known.
pub(super) fn completion(
    end: Option<&RunEnd>,
    reason: FinishReason,
    counted_prompt: Option<u32>,
    tokens: u32,
    before: Before,
    waited: Waited,
) -> Completion {
    let whole_in_one_run = end.filter(|_| before.tokens == 0);
    let perf = whole_in_one_run.and_then(|end| end.perf.as_ref());
    let clock = whole_in_one_run.and_then(|end| end.clock.as_ref());
    // Tokens after the first in that time.
    let by_clock = clock
        .and_then(|clock| clock.others_ms)
        .filter(|ms| *ms > 0.0);
    let by_clock = by_clock.map(|ms| tokens.saturating_sub(1) as f32 * 1000.0 / ms);
    let per_second = |perf: &PerfFigures| {
        (perf.generate_ms > 0.0 && perf.generate_tokens > 0)
            .then(|| perf.generate_tokens as f32 * 1000.0 / perf.generate_ms)
    };
    // The last run's prompt has the tokens of the answer's beginning in it.
    let from_runtime = end
        .and_then(|end| end.prompt_tokens)
        .zip(before.in_context)
        .and_then(|(prompt, begun)| prompt.checked_sub(begun));
    let prompt_tokens = counted_prompt.or(from_runtime);
    Completion {
        reason,
        stop_text: None,
        usage: prompt_tokens.map(|prompt_tokens| Usage {
            prompt_tokens,
            completion_tokens: tokens,
            cached_prompt_tokens: whole_in_one_run.and_then(|end| end.cached_prompt_tokens),
            reasoning_tokens: None,
        }),
        timings: Timings {
            prompt_n: perf.map(|perf| perf.prefill_tokens),
            prompt_ms: (perf.map(|perf| perf.prefill_ms))
                .or_else(|| clock.map(|clock| clock.first_token_ms)),
            predicted_n: Some(tokens),
            predicted_ms: (perf.map(|perf| perf.generate_ms))
                .or_else(|| clock.and_then(|clock| clock.others_ms)),
            predicted_per_second: perf.and_then(per_second).or(by_clock),
            runtime_memory_mb: end
                .and_then(|end| end.perf.as_ref())
                .map(|perf| perf.memory_mb),
            queue_ms: Some(waited.time.as_secs_f32() * 1000.0),
            queue_position: Some(waited.position),
            resumptions: before.resumptions,
        },
    }
}
