//! The thread that computes for all handles of a shared context. Between two steps it takes in new
//! runs, ends those that are over, and decides who has cells; `step` decides who is in the next one. It
//! waits for no host: what is drawn goes to a run's mailbox, and a run whose mailbox is full is left
//! out.
//!
//! ```text
//!   new ──► waiting for cells ──► in the steps ──► over (ended, aborted, paused, failed)
//!                   ▲                  │
//!                   └── lost its cells ┘
//! ```
//!
//! A run may be over in each of these. Of two runs that wait, the older one is first.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use parking_lot::FairMutex;

mod host_pace;
mod step;
mod turns;

use turns::Turns;

use crate::computing::{Computing, OutputKind};
use crate::generation::{Generation, Outcome};
use crate::log::{Verbosity, info};
use crate::mailbox::{Letter, Teller};
use crate::pace::Pace;
use crate::pool::{AHEAD, Need, Standing};
use crate::run_state::RunState;
use host_pace::HostPace;

/// A generation on its way to the scheduler, which gives it back when it is over.
pub(crate) struct Job {
    pub(crate) generation: Box<Generation>,
    pub(crate) state: Arc<RunState>,
    pub(crate) teller: Teller,
}

struct Run {
    job: Job,
    /// A higher number came later.
    age: u64,
    /// It has cells, and takes part.
    admitted: bool,
    /// It can take part in the next step. Decided once in a turn: its host may take a token at any time,
    /// and all decisions of one turn must be about the same runs.
    ready: bool,
    host: HostPace,
    /// It lost its cells while its host did not keep up, and waits until that has been told all.
    waits_for_its_host: bool,
    /// Another run's abort has cut a step of it, after which none was whole.
    was_cut: bool,
    /// The last step that it was in.
    served: u64,
    /// It is over for another reason than can be seen from outside.
    over: Option<Outcome>,
}

pub(crate) struct Scheduler {
    jobs: Receiver<Job>,
    computing: Arc<FairMutex<Computing>>,
    /// In order of age.
    runs: Vec<Run>,
    next_age: u64,
    steps: u64,
    turns: Turns,
    pace: Pace,
    /// Shared steps in a row whose sequences did not lie side by side.
    apart: u32,
}

/// Steps that are computed in parts, because of how streams lie, until as much has been lost as copying costs.
const STEPS_APART: u32 = 8;
/// What part of the pool's cells is copied at most then, and when a run begins, which holds little.
const COPIED_LATER: usize = 16;
const COPIED_AT_ONCE: usize = 128;

impl Scheduler {
    pub(crate) fn new(jobs: Receiver<Job>, computing: Arc<FairMutex<Computing>>) -> Scheduler {
        Scheduler {
            jobs,
            computing,
            runs: Vec::new(),
            next_age: 0,
            steps: 0,
            turns: Turns::default(),
            pace: Pace::default(),
            apart: 0,
        }
    }

    /// Until no handle is left. A handle that changes something unparks this thread.
    pub(crate) fn work(mut self) {
        let computing = Arc::clone(&self.computing);
        let _held = computing.lock().threads.hold();
        while self.take_in() {
            let stepped = self.turn(&mut computing.lock());
            if !stepped {
                match self.stalls_in() {
                    Some(time) => std::thread::park_timeout(time),
                    None => std::thread::park(),
                }
            }
        }
    }

    /// False: no handle is left.
    fn take_in(&mut self) -> bool {
        loop {
            match self.jobs.try_recv() {
                Ok(job) => {
                    self.runs.push(Run {
                        job,
                        age: self.next_age,
                        admitted: false,
                        ready: false,
                        host: HostPace::default(),
                        waits_for_its_host: false,
                        was_cut: false,
                        served: 0,
                        over: None,
                    });
                    self.next_age += 1;
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// False: there is nothing to do until something changes.
    fn turn(&mut self, computing: &mut Computing) -> bool {
        self.end_runs(computing);
        self.set_standings(computing);
        self.admit(computing);
        self.let_grow(computing);
        if self.apart >= STEPS_APART {
            self.apart = 0;
            self.gather(computing, COPIED_LATER);
        }
        self.step(computing)
    }

    /// The sequences of all runs that have cells.
    fn gather(&self, computing: &mut Computing, share: usize) {
        let admitted = self.runs.iter().filter(|run| run.admitted);
        let members: Vec<usize> = admitted.clone().map(Run::sequence).collect();
        let copied = computing.gather(&members, share);
        if copied > 0
            && admitted
                .map(Run::verbosity)
                .any(|it| it >= Verbosity::DETAILS)
        {
            info!("{copied} cells are copied so that runs lie side by side");
        }
    }

    fn end_runs(&mut self, computing: &mut Computing) {
        let mut at = 0;
        while let Some(run) = self.runs.get(at) {
            match run.outcome() {
                None => at += 1,
                Some(outcome) => {
                    let run = self.runs.remove(at);
                    computing.leave(run.sequence());
                    run.give_back(outcome);
                }
            }
        }
    }

    fn set_standings(&mut self, computing: &mut Computing) {
        let now = Instant::now();
        for run in &mut self.runs {
            run.host.seen(run.job.teller.has_room(), now);
            run.ready = run.admitted && run.host.keeps_up();
            if run.admitted {
                let age = run.age;
                computing.sequences[run.sequence()].standing = match run.host.has_stalled(now) {
                    true => Standing::Stalled { age },
                    false => Standing::Running { age },
                };
            }
        }
    }

    /// How long until a run's host has stalled, which gives its cells to one that waits for some.
    fn stalls_in(&self) -> Option<Duration> {
        let now = Instant::now();
        let hosts = self.runs.iter().filter(|run| run.admitted);
        let next = hosts.filter_map(|run| run.host.stalls_in(now)).min();
        next.filter(|_| self.runs.iter().any(Run::can_be_admitted))
    }

    /// Gives cells to runs that wait for some, the oldest first. One that could not take part with them is
    /// passed over.
    fn admit(&mut self, computing: &mut Computing) {
        for at in 0..self.runs.len() {
            let run = &self.runs[at];
            if !run.can_be_admitted() {
                continue;
            }
            let sequence = run.sequence();
            let wanted = run.job.generation.cells_soon(AHEAD);
            let wanted = wanted.min(computing.max_context);
            let Some(losing) = computing.make_room(sequence, wanted, Need::Admission) else {
                return;
            };
            self.park(&losing);
            let run = &mut self.runs[at];
            run.admitted = true;
            run.ready = true;
            run.waits_for_its_host = false;
            run.job.generation.begin_evaluating();
            let held = &mut computing.sequences[sequence];
            held.promised = wanted;
            held.standing = Standing::Running { age: run.age };
            self.gather(computing, COPIED_AT_ONCE);
        }
    }

    /// Sees to it that each run in the steps may hold one cell more, the oldest first.
    fn let_grow(&mut self, computing: &mut Computing) {
        for at in 0..self.runs.len() {
            let run = &self.runs[at];
            let sequence = run.sequence();
            let wanted = (computing.held(sequence) + 1).min(computing.max_context);
            if !run.ready || wanted <= computing.sequences[sequence].promised {
                continue;
            }
            match computing.make_room(sequence, wanted, Need::Growth) {
                Some(losing) => {
                    computing.sequences[sequence].promised = wanted;
                    self.park(&losing);
                }
                // It is the youngest itself.
                None => {
                    computing.empty(sequence);
                    self.park(&[sequence]);
                }
            }
        }
    }

    /// The runs of these sequences have lost their cells, and wait for others.
    fn park(&mut self, sequences: &[usize]) {
        for run in &mut self.runs {
            if run.admitted && sequences.contains(&run.sequence()) {
                if run.verbosity() >= Verbosity::DETAILS {
                    info!(
                        "run {} waits for cells, and will be evaluated again",
                        run.age
                    );
                }
                run.admitted = false;
                run.ready = false;
                run.waits_for_its_host = !run.host.keeps_up();
                run.job.generation.lost_its_cells();
            }
        }
    }
}

impl Run {
    fn sequence(&self) -> usize {
        self.job.generation.plan().sequence
    }

    fn verbosity(&self) -> Verbosity {
        self.job.generation.plan().spelling.verbosity
    }

    /// It waits for cells, and could use some.
    fn can_be_admitted(&self) -> bool {
        let has_room = match self.waits_for_its_host {
            true => self.job.teller.is_empty(),
            false => self.host.keeps_up(),
        };
        !self.admitted && has_room
    }

    /// None: it is not over.
    fn outcome(&self) -> Option<Outcome> {
        if self.over.is_some() {
            self.over
        } else if self.job.state.abort_requested() || self.job.generation.has_ended() {
            Some(Outcome::Finished)
        } else if self.job.teller.pause_requested() {
            Some(Outcome::Paused)
        } else {
            None
        }
    }

    fn give_back(self, outcome: Outcome) {
        let Job {
            mut generation,
            teller,
            ..
        } = self.job;
        generation.stop_clock();
        teller.put(Letter::Back(generation, outcome));
    }

    fn tell_prompt_logprobs(&mut self) {
        let told = self.job.generation.take_prompt_logprobs();
        if !told.is_empty() {
            self.job.teller.put(Letter::OfPrompt(told));
        }
    }

    /// The next token can be drawn, or the rows be handed over. `index`: the last token of its part of
    /// the decode.
    fn is_evaluated(&mut self, computing: &Computing, index: usize) {
        let Job {
            generation, teller, ..
        } = &mut self.job;
        if let Some(prompt) = generation.prompt_to_save(computing) {
            teller.put(Letter::Save(prompt));
        }
        if generation.plan().output == OutputKind::HiddenStates {
            generation.is_evaluated();
            self.over = Some(Outcome::Finished);
        } else if let Some(drawn) = generation.draw(computing, index as i32) {
            teller.put(Letter::Drawn(drawn));
        }
    }
}
