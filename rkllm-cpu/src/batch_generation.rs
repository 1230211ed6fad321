//! A run of several sequences (`n_batch`). Each is a `Generation` of its own with its own sampler;
//! here they go in step: prompts are evaluated one after the other, then one token of each that
//! still generates in one decode, and each step is one callback with a result for each.

use crate::engine::{Engine, Evaluation};
use crate::generation::{Generation, Outcome, Reply, Report};
use crate::perf::PerfClock;
use crate::run_state::RunState;
use crate::vocabulary::Token;

/// A sequence's part of a step.
pub(crate) enum SlotStep {
    Text(Token, String),
    /// The token ends inside a character.
    Waiting(Token),
    /// It ended in an earlier step.
    Ended,
}

pub(crate) struct BatchGeneration {
    members: Vec<Generation>,
    clock: PerfClock,
}

impl BatchGeneration {
    pub(crate) fn new(members: Vec<Generation>) -> BatchGeneration {
        BatchGeneration {
            members,
            clock: PerfClock::default(),
        }
    }

    pub(crate) fn members(&self) -> &[Generation] {
        &self.members
    }

    /// As `Generation::drive`.
    pub(crate) fn drive(
        &mut self,
        engine: &mut Engine,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        self.clock.start();
        while !state.abort_requested() && self.members.iter().any(|member| !member.has_ended()) {
            let steps = match self.step(engine, state) {
                Ok(steps) => steps,
                Err(Evaluation::Failed) => {
                    report(Report::Error);
                    return Outcome::Failed;
                }
                Err(_) => break,
            };
            self.clock.token();
            if report(Report::Batch(&steps)) == Reply::Pause {
                self.clock.stop();
                return Outcome::Paused;
            }
        }
        let mut perf = self.clock.finish();
        // The clock counts steps; those who read it want tokens, of all sequences together.
        perf.prefill_tokens = self.members.iter().map(Generation::evaluated).sum();
        perf.generate_tokens = self.members.iter().map(Generation::after_the_first).sum();
        report(Report::Finish(perf));
        Outcome::Finished
    }

    fn step(&mut self, engine: &mut Engine, state: &RunState) -> Result<Vec<SlotStep>, Evaluation> {
        let together: Vec<(usize, Token, usize)> = self
            .members
            .iter()
            .filter_map(Generation::next_alone)
            .collect();
        if !together.is_empty() {
            match engine.evaluate_together(&together, state) {
                Evaluation::Complete => {}
                other => return Err(other),
            }
        }
        let mut index = 0;
        let mut steps = Vec::with_capacity(self.members.len());
        for member in &mut self.members {
            // Samples of the common decode are read before a prompt is evaluated: after the first
            // step no member has a prompt left, and before it none has a token to share.
            steps.push(if member.has_ended() {
                SlotStep::Ended
            } else if member.next_alone().is_some() {
                index += 1;
                member.draw_after_decode(engine, index - 1)
            } else {
                match member.read_prompt(engine, state) {
                    Evaluation::Complete => member.draw(engine, -1),
                    other => return Err(other),
                }
            });
        }
        Ok(steps)
    }
}
