//! The run that is in progress: what it waits for, and how its end is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::company::{Company, InCompany, Share, Wait};
use super::npu_thread::RunReturned;
use super::prepared_input::input_bytes;
use super::prompt_count::{PromptCounter, RunCounts, tokenizer_agrees};
use super::run_progress::RunProgress;
use super::seat::Seat;
use super::timing::{AbortTimes, CallTimes, RunTimes};
use super::token_sink::EndedBy;
use crate::generation::FinishReason;
use crate::ipc::{
    AbortMode, ClockFigures, LONGEST_PREFILL, PerfFigures, RawRunSpec, RunEnd, RunOutcome, RunSpec,
    WorkerDeadlines,
};
use crate::library_calls::weight_bytes;

/// The CPU runtime keeps no more cells for a run's next tokens.
const MOST_KEPT_CELLS: u32 = 256;

pub struct ActiveRun {
    pub run: u64,
    pub input_bytes: usize,
    pub prefill_per_token: Duration,
    /// Its tokens are computed with no other, also those that are evaluated again.
    pub one_by_one: bool,
    /// How much longer it may take than others: it writes a file.
    pub writing: Duration,
    /// What the tokenizer counted.
    pub input_tokens: Option<u32>,
    /// How often the library was asked what its tokens take of the context.
    pub context_questions: u32,
    pub progress: Arc<RunProgress>,
    pub abort: Option<AbortRequest>,
    /// `None`: it is a run of the library by itself.
    pub batch: Option<InBatch>,
    /// Of the time that it shares with other runs.
    pub share: Share,
    /// Until when it may have waited for another one.
    pub was_behind: Option<Instant>,
    /// Set once the library has returned; from then on only the KV cache size is waited for.
    pub returned: Option<Box<RunReturned>>,
}

/// A sequence of a batch.
pub struct InBatch {
    pub seat: Arc<Seat>,
    /// Of all inputs together: no sequence has a token before all are evaluated.
    pub bytes: usize,
}

pub struct AbortRequest {
    pub at: Instant,
    /// How long the run had been held up by its reader by then.
    held_up_before: Duration,
    /// The library was told outside the callback, so it may have stopped between two counts.
    pub from_outside: bool,
    /// When the library is told outside the callback next. Before that the callback has the
    /// chance to end the run itself, so that the counts add up.
    pub next_outside: Instant,
}

impl ActiveRun {
    pub fn begin(spec: &RunSpec, progress: Arc<RunProgress>) -> Self {
        Self {
            run: spec.run,
            input_bytes: input_bytes(spec),
            prefill_per_token: spec.prefill_per_token,
            one_by_one: spec.draws.deterministic,
            writing: spec.save.as_ref().map_or(Duration::ZERO, |save| save.limit),
            input_tokens: None,
            context_questions: 0,
            progress,
            abort: None,
            batch: None,
            share: Share::begin(Instant::now()),
            was_behind: None,
            returned: None,
        }
    }

    /// A run of the vendor's API: timed like another, and not counted.
    pub fn begin_raw(spec: &RawRunSpec, progress: Arc<RunProgress>) -> Self {
        Self {
            run: spec.run,
            input_bytes: weight_bytes(&spec.inputs),
            prefill_per_token: spec.prefill_per_token,
            one_by_one: false,
            writing: Duration::ZERO,
            input_tokens: None,
            context_questions: 0,
            progress,
            abort: None,
            batch: None,
            share: Share::begin(Instant::now()),
            was_behind: None,
            returned: None,
        }
    }

    /// The first request sets the deadline; a later one can only be more urgent.
    pub fn request_abort(&mut self, mode: AbortMode) {
        self.progress.request_abort();
        let now = Instant::now();
        let patience = match mode {
            AbortMode::AtOnce => Duration::ZERO,
            AbortMode::BetweenTokens => self.progress.two_intervals(),
        };
        let abort = self.abort.get_or_insert(AbortRequest {
            at: now,
            held_up_before: self.progress.held_up(),
            from_outside: false,
            next_outside: now + patience,
        });
        abort.next_outside = abort.next_outside.min(now + patience);
    }

    /// Whether the KV cache size, asked now, would tell the prompt's tokens.
    pub fn is_countable(&self) -> bool {
        let Some(returned) = &self.returned else {
            return false;
        };
        let cut_off = self.abort.as_ref().is_some_and(|abort| abort.from_outside);
        returned.result.is_ok()
            && self.batch.is_none()
            && returned.input_tokens.is_none()
            && returned.record.perf.is_some()
            && returned.record.after_finish == 0
            && self.progress.tokens() > 0
            && !cut_off
    }

    /// How long evaluating all that it has may take, once more if need be.
    pub fn prefill(&self, deadlines: &WorkerDeadlines) -> Duration {
        // One at a time takes as long as making it took, however fast a prompt is.
        let interval = self.progress.interval().filter(|_| self.one_by_one);
        let again = interval.map_or(Duration::ZERO, |interval| interval.saturating_mul(2));
        let per_token = self.prefill_per_token.max(again);
        let made = per_token.saturating_mul(self.progress.tokens());
        let (bytes, tokens) = match &self.batch {
            Some(batch) => (batch.bytes, None),
            None => (self.input_bytes, self.input_tokens),
        };
        let prompt = deadlines.prefill(self.prefill_per_token, bytes, tokens);
        prompt.saturating_add(made).min(LONGEST_PREFILL)
    }

    /// Cells that it may take in a pool by now: those of its tokens, and those that are kept for the next ones.
    pub fn most_cells(&self) -> u64 {
        // No token is of less than a byte.
        let prompt = self.input_tokens.map_or(self.input_bytes as u64, u64::from);
        let kept = self.progress.limit_tokens().min(MOST_KEPT_CELLS);
        prompt + u64::from(self.progress.tokens()) + u64::from(kept)
    }

    /// Its company is about to be another one: so many runs have gone on until now.
    pub fn company_changes(&mut self, deadlines: &WorkerDeadlines, company: Company, now: Instant) {
        let moved = self.progress.moved();
        let evaluates_since = match (self.progress.going_back(), self.progress.last_token()) {
            (Some((_, since)), _) => Some(since),
            (None, None) => Some(self.progress.started()),
            (None, Some(_)) => None,
        };
        let wait = match evaluates_since {
            Some(since) => Wait::for_first(since, self.prefill(deadlines)),
            None => Wait::for_next(moved, deadlines.inter_token),
        };
        if self.in_company(deadlines, company).is_behind(wait) {
            self.was_behind = Some(now);
        }
        self.share.count(moved, company.runs, now);
    }

    fn in_company(&self, deadlines: &WorkerDeadlines, company: Company) -> InCompany {
        InCompany {
            company,
            share: self.share,
            again: self.prefill(deadlines),
            was_behind: self.was_behind,
        }
    }

    /// `can_abort_outside`: the library can still be told outside the callback.
    pub fn times(
        &self,
        deadlines: &WorkerDeadlines,
        company: Company,
        can_abort_outside: bool,
    ) -> CallTimes {
        let started = self.progress.started();
        let last_token = self.progress.last_token();
        if self.returned.is_some() {
            let since = last_token.unwrap_or(started);
            return CallTimes::Counting { since };
        }
        CallTimes::Running(RunTimes {
            started,
            last_token,
            waiting_for_reader: self.progress.waiting_for_reader(),
            complete: self.progress.is_complete(),
            going_back: self.progress.going_back(),
            prefill: self.prefill(deadlines),
            writing: self.writing,
            company: self.in_company(deadlines, company),
            abort: self.abort.as_ref().map(|abort| AbortTimes {
                // What its reader does not read is not the library's to end.
                since: abort.at + self.progress.held_up().saturating_sub(abort.held_up_before),
                next_outside: can_abort_outside.then_some(abort.next_outside),
            }),
        })
    }

    /// What our clock says of a sequence of a batch.
    fn clock_figures(&self) -> Option<ClockFigures> {
        let (first, others) = self.progress.took().filter(|_| self.batch.is_some())?;
        let ms = |time: Duration| time.as_secs_f32() * 1000.0;
        Some(ClockFigures {
            first_token_ms: ms(first),
            others_ms: others.map(ms),
        })
    }

    /// Reads the end of a run that has returned. `kv_cache` are the tokens in the cache after it,
    /// where that was asked and answered.
    pub fn end(
        &self,
        returned: &RunReturned,
        kv_cache: Option<u32>,
        counter: &mut PromptCounter,
    ) -> RunEnd {
        let generated = self.progress.tokens();
        let perf = perf_figures(returned);
        let prefilled = perf.map(|perf| perf.prefill_tokens);
        let cache_was_empty = returned.asked_runtime && counter.cache_used();
        let (prompt_tokens, cached_prompt_tokens) = match returned.input_tokens {
            Some(total) => {
                let cached = prefilled.and_then(|prefilled| counter.cached(total, prefilled));
                (Some(total), cached)
            }
            None => {
                let counts = kv_cache
                    .zip(prefilled)
                    .map(|(kv_cache, prefilled)| RunCounts {
                        kv_cache,
                        generated: generated + returned.record.dropped_tokens,
                        prefilled,
                    });
                let prompt = counter.count(counts);
                (
                    prompt.map(|prompt| prompt.total),
                    prompt.and_then(|prompt| prompt.cached),
                )
            }
        };
        let outcome = outcome(returned, self.abort.is_some(), generated);
        RunEnd {
            run: self.run,
            tainted: matches!(outcome, RunOutcome::Failed { .. }) || returned.record.reported_error,
            outcome,
            generated_tokens: generated,
            prompt_tokens,
            cached_prompt_tokens,
            perf,
            clock: self.clock_figures().filter(|_| perf.is_none()),
            redraws: returned.redraws,
            tokens_agree: returned.tokens_agree,
            // A run that made no token may have been ended in the middle of its prefill.
            tokenizer_agrees: returned
                .input_tokens
                .filter(|_| returned.input_was_text && generated > 0)
                .zip(prefilled)
                .and_then(|(counted, prefilled)| {
                    tokenizer_agrees(counted, prefilled, cache_was_empty)
                }),
        }
    }
}

fn perf_figures(returned: &RunReturned) -> Option<PerfFigures> {
    let perf = returned.record.perf?;
    Some(PerfFigures {
        prefill_ms: perf.prefill_time_ms,
        prefill_tokens: u32::try_from(perf.prefill_tokens).ok()?,
        generate_ms: perf.generate_time_ms,
        generate_tokens: u32::try_from(perf.generate_tokens).ok()?,
        memory_mb: perf.memory_usage_mb,
    })
}

/// Why a run ended, from what the library and our side say.
fn outcome(returned: &RunReturned, abort_requested: bool, generated: u32) -> RunOutcome {
    if let (Some(limit_tokens), Some(prompt_tokens)) =
        (returned.over_limit_tokens, returned.input_tokens)
    {
        return RunOutcome::ContextLengthExceeded {
            prompt_tokens,
            limit_tokens,
        };
    }
    let record = &returned.record;
    let has_ended_itself = record.ended_by.is_none() && returned.result.is_ok() && !abort_requested;
    if let Some(reason) = returned.not_kept.as_ref().filter(|_| has_ended_itself) {
        let reason = reason.clone();
        return RunOutcome::NotKept { reason };
    }
    match (record.ended_by, &returned.result) {
        (Some(EndedBy::Reason(reason)), _) => RunOutcome::Finished(reason),
        (Some(EndedBy::Abort), _) => RunOutcome::Aborted,
        (None, _) if abort_requested => RunOutcome::Aborted,
        (None, Err(error)) if generated == 0 && !record.reported_error => RunOutcome::Refused {
            reason: error.to_string(),
        },
        (None, Err(error)) => RunOutcome::Failed {
            reason: error.to_string(),
        },
        (None, Ok(())) if record.reported_error => RunOutcome::Failed {
            reason: "the runtime reported the state ERROR".to_owned(),
        },
        (None, Ok(())) => RunOutcome::Finished(FinishReason::Stop),
    }
}

#[cfg(test)]
mod tests;
