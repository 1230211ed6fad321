//! The loop over tokens. A token looks at a flag and at two numbers, writes two fields and calls
//! back; it allocates nothing and reads no scenario, so that a scenario without delays measures
//! its host.

use crate::answer::{Event, Sequence};
use crate::continuation::Start;
use crate::faults_of_a_run::FaultsOfARun;
use crate::generation::{End, Generation, Tally};
use crate::output::Output;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub struct TokenLoop<'r, 'o> {
    pub generation: &'r Generation<'r>,
    pub output: &'r mut Output<'o>,
    pub tally: &'r mut Tally,
    pub faults: &'r mut FaultsOfARun<'o>,
    limit: u64,
    delay: Duration,
    /// What the schedule of tokens begins at.
    schedule_from: Instant,
    /// Tokens that an abort comes too late for.
    late: u64,
}

impl<'r, 'o> TokenLoop<'r, 'o> {
    pub fn new(
        generation: &'r Generation<'r>,
        output: &'r mut Output<'o>,
        tally: &'r mut Tally,
        faults: &'r mut FaultsOfARun<'o>,
    ) -> Self {
        let model = generation.model;
        let of_run = generation.params.max_new_tokens.filter(|limit| *limit > 0);
        let limit = of_run.unwrap_or(model.params.max_new_tokens);
        let delay = Duration::from_micros(model.scenario.token_delay_us);
        let schedule_from = if model.scenario.tokens_in_step {
            step_before(tally.started, delay)
        } else {
            tally.started
        };
        TokenLoop {
            generation,
            output,
            tally,
            faults,
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
            delay,
            schedule_from,
            late: model.scenario.abort_late_tokens,
        }
    }

    pub fn run(mut self, sequence: &Sequence, start: &Start) -> End {
        let cycles = if sequence.end_ignored {
            u64::MAX
        } else {
            sequence.times
        };
        if let Some(end) = start.head.as_ref().and_then(|head| self.hand_over(head)) {
            return end;
        }
        let mut index = 0;
        for cycle in 0..cycles {
            let end = (cycle + 1 >= sequence.times)
                .then_some(sequence.end.as_ref())
                .flatten();
            if sequence.events.is_empty() && end.is_none() {
                break;
            }
            for event in sequence.events.iter().chain(end) {
                index += 1;
                if index <= start.skip {
                    continue;
                }
                if let Some(end) = self.hand_over(event) {
                    return end;
                }
            }
        }
        self.faults
            .happen(self.output, self.tally)
            .unwrap_or(End::Finished)
    }

    /// An end of the run, if it comes before the token or is the host's answer to it.
    #[inline(always)]
    pub fn hand_over(&mut self, event: &Event) -> Option<End> {
        if let Some(end) = self.before_token() {
            return Some(end);
        }
        let paused = self.output.token(event) == 1 && self.generation.layout.callback_returns_int;
        paused.then_some(End::Paused)
    }

    /// As `hand_over`; the text is NULL.
    pub fn hand_over_without_text(&mut self, event: &Event) -> Option<End> {
        if let Some(end) = self.before_token() {
            return Some(end);
        }
        let paused = self.output.is_paused_by_normal(None, event.id);
        paused.then_some(End::Paused)
    }

    /// A fault is due before the next token, or the run has ended.
    pub fn has_faults_now(&self) -> bool {
        self.tally.produced >= self.faults.next_at || self.generation.model.is_aborted()
    }

    #[inline(always)]
    fn before_token(&mut self) -> Option<End> {
        if self.tally.produced >= self.faults.next_at
            && let Some(end) = self.faults.happen(self.output, self.tally)
        {
            return Some(end);
        }
        if self.tally.produced >= self.limit {
            return Some(End::Finished);
        }
        let model = self.generation.model;
        if !self.delay.is_zero() {
            let n = u32::try_from(self.tally.produced + 1).unwrap_or(u32::MAX);
            model.sleep_until(self.schedule_from + self.delay * n);
        }
        if model.is_aborted() {
            if self.late == 0 {
                return Some(End::Aborted);
            }
            self.late -= 1;
        }
        self.tally.produced += 1;
        if model.scenario.cache_size_in_runs {
            model.tokens_in_run.fetch_add(1, Ordering::Relaxed);
        }
        None
    }
}

/// The last step before `now`, of the steps that all runs of the process have in common. The tokens of its
/// slots come together then, as from a runtime that evaluates them in one batch.
fn step_before(now: Instant, step: Duration) -> Instant {
    static FIRST_STEP: OnceLock<Instant> = OnceLock::new();
    let first = *FIRST_STEP.get_or_init(|| now);
    let since = now.saturating_duration_since(first).as_nanos();
    let into_step = since.checked_rem(step.as_nanos()).unwrap_or(0);
    now - Duration::from_nanos(u64::try_from(into_step).unwrap_or(0))
}
