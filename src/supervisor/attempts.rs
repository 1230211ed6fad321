//! What a lost worker means for what ran on it. Pure: no clock, no lock, no task.
//!
//! A death alone can be blamed on the one run that was there. A death in company makes each run a
//! suspect and blames none: suspects run again one at a time, without company, so that the next death
//! is one alone. So what kills its worker is refused after two deaths alone, whatever ran beside it,
//! and what does not kill its worker always finishes. What ends its workers by the memory they take is a
//! suspect in the same way; alone it is not poison, but used up after some workers.

use super::event_loop::QueueEnd;

/// Deaths alone and by a fault after which a run counts as their cause.
const POISON_FAULTS: u32 = 2;
/// Workers a run may use up without company, also without any fault of its own.
const MOST_LOSSES: u32 = 5;
/// Workers that it may lose in company: what others do there is not its own.
const MOST_SHARED_LOSSES: u32 = 8;

/// A worker that was lost in the middle of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Whether something that ran may be to blame: not, for example, where another process has killed
    /// the worker.
    pub is_fault: bool,
    /// Whether something that ran may be behind it: a fault, or want of memory.
    pub is_suspicious: bool,
    /// Runs that were on the worker beside this one.
    pub co_runners: usize,
}

/// Why a run is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// It has killed its workers, unless its model does it at every prompt.
    Poison,
    /// It has lost too many, whatever is to blame.
    TooManyLosses,
}

/// The attempts of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    faults_alone: u32,
    losses: u32,
    shared_losses: u32,
    is_suspect: bool,
}

impl Attempts {
    /// Takes in that an attempt has lost its worker. `Ok`: it may be tried again, alone where it
    /// `must_be_alone`.
    pub fn lost(&mut self, death: Death) -> Result<(), GivenUp> {
        if death.co_runners > 0 {
            self.is_suspect |= death.is_suspicious;
            self.shared_losses += 1;
            return match self.shared_losses >= MOST_SHARED_LOSSES {
                true => Err(GivenUp::TooManyLosses),
                false => Ok(()),
            };
        }
        self.losses += 1;
        if death.is_fault {
            self.is_suspect = true;
            self.faults_alone += 1;
        }
        if self.faults_alone >= POISON_FAULTS {
            return Err(GivenUp::Poison);
        }
        if self.losses >= MOST_LOSSES {
            return Err(GivenUp::TooManyLosses);
        }
        Ok(())
    }

    /// The runtime has refused it beside others, and what it printed may be theirs. `true`: it is to be run
    /// again, alone.
    pub fn refused_in_company(&mut self) -> bool {
        !std::mem::replace(&mut self.is_suspect, true)
    }

    /// A part of what is run is done, and what comes next has killed nothing yet.
    pub fn part_done(&mut self) {
        self.faults_alone = 0;
        self.shared_losses = 0;
        self.is_suspect = false;
    }

    /// Whether nothing else may run on its worker: a death must be one alone.
    pub fn must_be_alone(&self) -> bool {
        self.is_suspect
    }

    /// How the next worker is waited for.
    pub fn queue_end(&self) -> QueueEnd {
        match self.must_be_alone() {
            true => QueueEnd::FrontAndAlone,
            false => QueueEnd::Front,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const ALONE: Death = Death {
        is_fault: true,
        is_suspicious: true,
        co_runners: 0,
    };
    const IN_COMPANY: Death = Death {
        is_fault: true,
        is_suspicious: true,
        co_runners: 3,
    };
    const FROM_OUTSIDE: Death = Death {
        is_fault: false,
        is_suspicious: false,
        co_runners: 0,
    };

    #[test]
    fn two_deaths_alone_are_poison() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.lost(ALONE), Ok(()));
        assert_eq!(attempts.lost(ALONE), Err(GivenUp::Poison));
    }

    #[test]
    fn deaths_in_company_blame_no_run() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.lost(IN_COMPANY), Ok(()));
        assert!(attempts.must_be_alone());
        assert_eq!(attempts.lost(ALONE), Ok(()));
        assert_eq!(attempts.lost(ALONE), Err(GivenUp::Poison));
    }

    #[test]
    fn a_suspect_that_is_not_run_alone_is_not_repeated_without_end() {
        let mut attempts = Attempts::default();
        for _ in 1..MOST_SHARED_LOSSES {
            assert_eq!(attempts.lost(IN_COMPANY), Ok(()));
        }
        assert_eq!(attempts.lost(IN_COMPANY), Err(GivenUp::TooManyLosses));
    }

    #[test]
    fn workers_that_others_kill_are_not_used_up_without_end() {
        let mut attempts = Attempts::default();
        for _ in 1..MOST_LOSSES {
            assert_eq!(attempts.lost(FROM_OUTSIDE), Ok(()));
            assert!(!attempts.must_be_alone());
        }
        assert_eq!(attempts.lost(FROM_OUTSIDE), Err(GivenUp::TooManyLosses));
    }

    #[test]
    fn a_part_that_is_done_was_not_the_cause() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.lost(ALONE), Ok(()));
        attempts.part_done();
        assert!(!attempts.must_be_alone());
        assert_eq!(attempts.lost(ALONE), Ok(()));
        assert_eq!(attempts.lost(ALONE), Err(GivenUp::Poison));
    }

    #[test]
    fn what_is_refused_in_company_is_run_once_more_alone() {
        let mut attempts = Attempts::default();
        assert!(attempts.refused_in_company());
        assert!(attempts.must_be_alone());
        assert!(!attempts.refused_in_company());
    }

    /// A run of a model whose worker takes several at a time.
    #[derive(Clone, Debug)]
    struct Run {
        attempts: Attempts,
        /// How many tokens its whole answer has.
        length: u32,
        /// Tokens of its answer, in the order in which they were made.
        answer: Vec<u32>,
        /// The token that kills the worker each time that it is made.
        kills_at: Option<u32>,
        /// It does so by the memory it takes.
        by_memory: bool,
    }

    /// What became of all runs that were given to one model.
    #[derive(Debug, Default)]
    struct Round {
        finished: Vec<Run>,
        refused: Vec<(Run, GivenUp)>,
        deaths: usize,
    }

    /// Serves all runs on workers with so many places. `next` says which of the runs on the worker
    /// makes the next token.
    fn serve(runs: Vec<Run>, places: usize, mut next: impl FnMut(usize) -> usize) -> Round {
        let mut round = Round::default();
        let mut waiting = VecDeque::from(runs);
        let mut running: Vec<Run> = Vec::new();
        loop {
            let has_suspect = |runs: &[Run]| runs.iter().any(|run| run.attempts.must_be_alone());
            while running.len() < places
                && !has_suspect(&running)
                && let Some(first) = waiting.front()
                && (running.is_empty() || !first.attempts.must_be_alone())
            {
                running.extend(waiting.pop_front());
            }
            if running.is_empty() {
                return round;
            }
            let at = next(running.len());
            let token = u32::try_from(running[at].answer.len()).unwrap();
            if running[at].kills_at == Some(token) {
                round.deaths += 1;
                let death = Death {
                    is_fault: !running[at].by_memory,
                    is_suspicious: true,
                    co_runners: running.len() - 1,
                };
                // Those that were interrupted come before all others.
                for mut run in running.drain(..).rev() {
                    match run.attempts.lost(death) {
                        Ok(()) => waiting.push_front(run),
                        Err(why) => round.refused.push((run, why)),
                    }
                }
                continue;
            }
            running[at].answer.push(token);
            if running[at].answer.len() == running[at].length as usize {
                round.finished.push(running.swap_remove(at));
            }
        }
    }

    fn run(length: u32, kills_at: Option<u32>) -> Run {
        Run {
            attempts: Attempts::default(),
            length,
            answer: Vec::new(),
            kills_at,
            by_memory: false,
        }
    }

    const ROUNDS: usize = 20;
    const INNOCENTS: usize = 7;

    proptest! {
        #[test]
        fn innocents_beside_a_poison_always_finish(
            places in 1usize..=8,
            lengths in prop::collection::vec(1u32..30, INNOCENTS * ROUNDS),
            poison_comes_at in 0usize..=INNOCENTS,
            kills_at in 0u32..29,
            order in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ) {
            let mut answered = 0;
            for lengths in lengths.chunks(INNOCENTS) {
                let mut runs: Vec<Run> = lengths.iter().map(|length| run(*length, None)).collect();
                runs.insert(poison_comes_at, run(30, Some(kills_at)));
                let mut turns = order.iter().cycle();
                let round = serve(runs, places, |runs| turns.next().unwrap().index(runs));
                for run in &round.finished {
                    prop_assert_eq!(run.kills_at, None);
                    prop_assert!(run.answer.iter().copied().eq(0..run.length));
                    answered += 1;
                }
                prop_assert_eq!(round.refused.len(), 1);
                prop_assert_eq!(round.refused[0].0.kills_at, Some(kills_at));
                prop_assert_eq!(round.refused[0].1, GivenUp::Poison);
                prop_assert!(round.deaths <= 3, "one in company at the most, and two alone");
            }
            prop_assert_eq!(answered, INNOCENTS * ROUNDS);
        }

        #[test]
        fn innocents_beside_one_that_takes_all_memory_always_finish(
            places in 2usize..=8,
            lengths in prop::collection::vec(1u32..30, INNOCENTS),
            comes_at in 0usize..=INNOCENTS,
            kills_at in 0u32..29,
            order in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ) {
            let mut runs: Vec<Run> = lengths.iter().map(|length| run(*length, None)).collect();
            let hungry = Run { by_memory: true, ..run(30, Some(kills_at)) };
            runs.insert(comes_at, hungry);
            let mut turns = order.iter().cycle();
            let round = serve(runs, places, |runs| turns.next().unwrap().index(runs));
            prop_assert_eq!(round.finished.len(), INNOCENTS);
            prop_assert_eq!(round.refused.len(), 1);
            prop_assert_eq!(round.refused[0].0.kills_at, Some(kills_at));
            prop_assert_eq!(round.refused[0].1, GivenUp::TooManyLosses);
        }

        #[test]
        fn any_number_of_poisons_is_found(
            places in 1usize..=8,
            kinds in prop::collection::vec((1u32..20, prop::option::of(0u32..20)), 1..24),
            order in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ) {
            let runs: Vec<Run> = kinds
                .iter()
                .map(|(length, kills_at)| run(*length, kills_at.filter(|at| at < length)))
                .collect();
            let poisons = runs.iter().filter(|run| run.kills_at.is_some()).count();
            let innocents = runs.len() - poisons;
            let mut turns = order.iter().cycle();
            let round = serve(runs, places, |runs| turns.next().unwrap().index(runs));
            prop_assert_eq!(round.refused.len(), poisons);
            prop_assert!(round.refused.iter().all(|(run, _)| run.kills_at.is_some()));
            prop_assert_eq!(round.finished.len(), innocents);
        }
    }
}
