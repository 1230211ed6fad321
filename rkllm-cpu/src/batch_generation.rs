//! A run of several sequences (`n_batch`). Each is a `Generation` of its own with its own sampler;
//! here they go in step: prompts are evaluated one after the other, then one token of each that
//! still generates in one decode, and each step is one callback with a result for each. One that was given
//! nothing has ended from the beginning, and no decode has a row of it.

use crate::computing::{Computing, Evaluation, How, OutputKind};
use crate::generation::{Drawn, Generation, Outcome, Reply, Report};
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

    pub(crate) fn members_mut(&mut self) -> &mut [Generation] {
        &mut self.members
    }

    /// As `Generation::drive`.
    pub(crate) fn drive(
        &mut self,
        computing: &mut Computing,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        self.clock.start();
        while !state.abort_requested() && self.members.iter().any(|member| !member.has_ended()) {
            let steps = match self.step(computing, state) {
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

    fn step(
        &mut self,
        computing: &mut Computing,
        state: &RunState,
    ) -> Result<Vec<SlotStep>, Evaluation> {
        let in_step: Vec<bool> = (self.members.iter())
            .map(|member| member.is_in_step(computing))
            .collect();
        self.evaluate_together(&in_step, computing, state)?;
        let mut index = 0;
        let mut steps = Vec::with_capacity(self.members.len());
        for (at, in_step) in in_step.into_iter().enumerate() {
            let member = &mut self.members[at];
            // Samples of the common decode are read before a prompt is evaluated: after the first
            // step no member has a prompt left, and before it none has a token to share.
            steps.push(if member.has_ended() {
                SlotStep::Ended
            } else if in_step {
                index += 1;
                slot_step(member.draw(computing, index - 1))
            } else {
                match member.evaluate(computing, state) {
                    Evaluation::Complete => slot_step(member.draw(computing, -1)),
                    other => {
                        // The host is not told of what the others drew.
                        for drawn in &mut self.members[..at] {
                            drawn.forget_draws(1);
                        }
                        return Err(other);
                    }
                }
            });
        }
        Ok(steps)
    }

    /// One token of each member that is in step.
    fn evaluate_together(
        &mut self,
        in_step: &[bool],
        computing: &mut Computing,
        state: &RunState,
    ) -> Result<(), Evaluation> {
        let mut counts = Vec::with_capacity(self.members.len());
        for (member, &in_step) in self.members.iter_mut().zip(in_step) {
            counts.push(match in_step {
                true => member
                    .next_count(computing, 1)
                    .ok_or(Evaluation::WindowFull)?,
                false => 0,
            });
        }
        let parts: Vec<_> = (self.members.iter().zip(counts))
            .filter(|&(_, count)| count > 0)
            .map(|(member, count)| member.part(computing, count))
            .collect();
        let Some(first) = self.members.first().filter(|_| !parts.is_empty()) else {
            return Ok(());
        };
        let how = How {
            kind: OutputKind::Text,
            adapter: first.plan().adapter,
            by_all_threads: false,
            abort: &[state],
        };
        match computing.decode(&parts, &first.plan().inputs, how) {
            Evaluation::Complete => Ok(()),
            other => Err(other),
        }
    }
}

fn slot_step(drawn: Option<Drawn>) -> SlotStep {
    drawn.map_or(SlotStep::Ended, Drawn::into_slot_step)
}
