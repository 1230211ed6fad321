//! How an answer came back: what each run of the library has left, and all of them counted together.

use rkllm_sys::CallError;

use super::choice::Costs;
use super::library::Library;
use super::sinks::{Left, SharedLeft};
use super::{Redraw, perf};
use crate::ipc::Redraws;
use crate::worker::token_agreement::Spelled;
use crate::worker::token_sink::RunRecord;

/// What was looked at was none of what the library has made.
const OTHER_TOKENS: &str = "the library prints other texts for its tokens than the model's `tokenizer.json` has for \
                            their numbers";

/// How it came back.
pub struct Came {
    pub result: Result<(), CallError>,
    pub record: RunRecord,
    pub not_kept: Option<String>,
    pub redraws: Redraws,
    /// The library was asked to run.
    pub asked_runtime: bool,
    /// So often.
    pub runs: u32,
    pub costs: Costs,
    /// The library's tokens were seen to be others than those that are known.
    pub tokens_are_others: bool,
}

impl<L: Library> Redraw<L> {
    /// Counts what a run has left.
    pub(super) fn takes_in(&mut self, left: &SharedLeft) -> Left {
        let mut left = left.take();
        self.looks_at_texts(std::mem::take(&mut left.spelled));
        // Those of the answer that stood behind the prompt from the first run on.
        let forced = self.asked_tokens.saturating_sub(self.input.len());
        let record = &mut self.came.record;
        record.finished |= left.finished;
        record.after_finish += left.after_finish;
        record.reported_error |= left.reported_error;
        record.dropped_tokens += left.wasted_tokens;
        self.came.redraws.wasted_tokens += left.wasted_tokens;
        let perf = left.perf.take();
        if self.came.runs == 1 {
            record.perf = perf.map(|perf| perf::of_prompt(perf, forced));
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
            perf::goes_on(all, &perf);
        }
        left
    }

    /// Whatever is drawn by numbers that the library has for other texts is no answer of the model's.
    fn looks_at_texts(&mut self, spelled: Spelled) {
        self.spelled.append(spelled);
        let mut answer = self.answer.lock();
        if !answer.is_over() && self.spelled.are_others_than(answer.tokens()) {
            answer.fails(OTHER_TOKENS);
            self.came.tokens_are_others = true;
        }
    }

    /// Once nothing follows any more.
    pub(super) fn counted(mut self) -> Came {
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
        let has_taken = self.came.runs > 1 && record.ended_by.is_none();
        record.reported_error |= has_taken && self.came.result.is_err();
        let redraws = &mut self.came.redraws;
        redraws.restarts = self.came.runs.saturating_sub(1);
        redraws.evaluated_tokens = match redraws.restarts {
            0 => Some(0),
            _ => redraws.evaluated_tokens.filter(|_| self.is_measured),
        };
        self.came
    }
}
