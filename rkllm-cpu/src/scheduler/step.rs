//! Who is in a step, and with how much. A step evaluates the next token of every run that generates
//! text with the same adapter; or a piece of one prompt; or what one run wants rows of. Pieces of
//! prompts are not put beside others' tokens, so that each token is computed as in a run alone. `turns`
//! decides between the two sorts; within each, those that waited longest are next.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::Scheduler;
use super::turns::Brings;
use crate::computing::{Computing, Evaluation, How, OutputKind, PREFILL_BATCH, Part};
use crate::generation::Outcome;
use crate::pace;
use crate::run_state::RunState;

impl Scheduler {
    /// False: no run can take part.
    pub(super) fn step(&mut self, computing: &mut Computing) -> bool {
        let (together, alone) = self.choose(computing);
        let members = match alone {
            Some(alone)
                if together.is_empty() || self.turns.is_alones(self.brings(alone, computing)) =>
            {
                vec![alone]
            }
            _ => together,
        };
        let Some(&first) = members.first() else {
            return false;
        };
        let begun = Instant::now();
        self.steps += 1;
        for &at in &members {
            self.runs[at].served = self.steps;
        }
        let evaluation = if Some(first) == alone {
            let evaluation = self.step_alone(first, computing);
            self.turns.was_alones(begun.elapsed());
            evaluation
        } else {
            self.turns.was_shared();
            self.step_together(&members, computing)
        };
        for at in members {
            let run = &mut self.runs[at];
            run.was_cut = evaluation == Evaluation::Aborted;
            if evaluation == Evaluation::Failed {
                run.over = Some(Outcome::Failed);
            }
        }
        true
    }

    /// The runs that can share the next step, and the one that is next of those that cannot.
    fn choose(&self, computing: &Computing) -> (Vec<usize>, Option<usize>) {
        let ready = (0..self.runs.len()).filter(|&at| self.runs[at].ready);
        let (share, do_not): (Vec<_>, Vec<_>) =
            ready.partition(|&at| self.runs[at].job.generation.can_share_a_step(computing));
        let turn = |&at: &usize| (self.runs[at].served, self.runs[at].age);
        let adapter = |at: usize| self.runs[at].job.generation.plan().adapter;
        let first = share.iter().copied().min_by_key(turn);
        let together = (share.into_iter())
            .filter(|&at| first.is_some_and(|first| adapter(at) == adapter(first)))
            .collect();
        (together, do_not.into_iter().min_by_key(turn))
    }

    /// Tokens that a step of one run has time for.
    fn time_for(&self, computing: &Computing) -> usize {
        if self.runs.len() > 1 {
            self.pace.tokens(pace::BESIDE_OTHERS)
        } else {
            let most = computing.threads.batch_limit(PREFILL_BATCH);
            self.pace.tokens(pace::ALONE).min(most)
        }
    }

    fn brings(&self, at: usize, computing: &Computing) -> Brings {
        let generation = &self.runs[at].job.generation;
        let piece = generation.piece(computing, self.time_for(computing));
        if !generation.has_generated() && generation.is_rest(computing, piece) {
            Brings::FirstToken
        } else {
            Brings::Less
        }
    }

    fn step_alone(&mut self, at: usize, computing: &mut Computing) -> Evaluation {
        let time_for = self.time_for(computing);
        let abort = self.may_abort(&[at], computing);
        let abort: Vec<&RunState> = abort.iter().map(AsRef::as_ref).collect();
        let run = &mut self.runs[at];
        let generation = &mut run.job.generation;
        let piece = generation.piece(computing, time_for);
        let Some(count) = generation.next_count(computing, piece) else {
            run.over = Some(Outcome::Finished);
            return Evaluation::WindowFull;
        };
        let begun = Instant::now();
        let evaluation = generation.step(computing, count, &abort);
        if evaluation == Evaluation::Complete {
            self.pace.measured(count, begun.elapsed());
            run.tell_prompt_logprobs();
            if run.job.generation.is_ready_to_draw(computing) {
                run.is_evaluated(computing, count - 1);
            }
        }
        // The run that was aborted is over, which the next turn sees.
        evaluation
    }

    /// The runs whose abort ends a step of `members` half-way. A run that is to end waits for no other's
    /// tokens: those of the step are evaluated again, unless the model would have to begin from the
    /// start for it, or a run is to be computed in the same pieces each time.
    fn may_abort(&self, members: &[usize], computing: &Computing) -> Vec<Arc<RunState>> {
        let is_spared = computing.weights.has_recurrent_state()
            || (members.iter().map(|&at| &self.runs[at]))
                .any(|run| run.was_cut || run.job.generation.plan().is_deterministic);
        let may = who_may_abort(members, is_spared, self.runs.len());
        (self.runs[may].iter())
            .map(|run| Arc::clone(&run.job.state))
            .collect()
    }

    fn step_together(&mut self, members: &[usize], computing: &mut Computing) -> Evaluation {
        let mut going_on = Vec::with_capacity(members.len());
        for &at in members {
            let run = &mut self.runs[at];
            match run.job.generation.next_count(computing, 1) {
                Some(_) => going_on.push(at),
                None => run.over = Some(Outcome::Finished),
            }
        }
        going_on.sort_unstable_by_key(|&at| computing.number(self.runs[at].sequence()));
        let Some(&first) = going_on.first() else {
            return Evaluation::WindowFull;
        };
        let sequences: Vec<usize> = (going_on.iter())
            .map(|&at| self.runs[at].sequence())
            .collect();
        if !computing.lie_side_by_side(&sequences) {
            self.apart += 1;
        } else if sequences.len() > 1 {
            self.apart = 0;
        }
        let abort = self.may_abort(&going_on, computing);
        let abort: Vec<&RunState> = abort.iter().map(AsRef::as_ref).collect();
        let parts: Vec<Part<'_>> = (going_on.iter())
            .map(|&at| self.runs[at].job.generation.part(computing, 1))
            .collect();
        let plan = self.runs[first].job.generation.plan();
        let how = How {
            kind: OutputKind::Text,
            adapter: plan.adapter,
            by_all_threads: false,
            abort: &abort,
        };
        let evaluation = computing.decode(&parts, &plan.inputs, how);
        if evaluation == Evaluation::Complete {
            for (index, at) in going_on.into_iter().enumerate() {
                self.runs[at].is_evaluated(computing, index);
            }
        }
        evaluation
    }
}

/// `is_spared`: what the step would have to do again is too much, or was cut before. So however often
/// others abort, every second step of a run is whole.
fn who_may_abort(members: &[usize], is_spared: bool, runs: usize) -> Range<usize> {
    match (is_spared, members) {
        (false, _) => 0..runs,
        (true, &[only]) => only..only + 1,
        (true, _) => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_spared_is_ended_by_its_own_run_only() {
        assert_eq!(who_may_abort(&[1], false, 3), 0..3);
        assert_eq!(who_may_abort(&[0, 2], false, 3), 0..3);
        assert_eq!(who_may_abort(&[1], true, 3), 1..2);
        assert_eq!(who_may_abort(&[0, 2], true, 3), 0..0);
    }
}
