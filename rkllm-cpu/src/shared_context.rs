//! Contexts that several handles share. Handles of one model file, context length and choice of CPUs
//! find each other here: the first one loads the model and starts the scheduler, and with the last one
//! both go.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{JoinHandle, Thread};

use parking_lot::FairMutex;

use crate::computing::{Computing, OutputKind};
use crate::generation::{Drawn, Generation, Outcome, Reply, Report};
use crate::mailbox::{self, Letter, Listener};
use crate::model_load::{Likeness, LoadError, Loading};
use crate::run_state::RunState;
use crate::scheduler::{Job, Scheduler};
use crate::weights::Weights;

/// Sequences that llama.cpp can tell apart.
const MOST_SLOTS: u32 = 256;
/// Contexts that the slots share, unless the environment says otherwise.
const DEFAULT_CONTEXTS: u32 = 2;

/// What the environment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    slots: u32,
    pool_tokens: u32,
}

impl Sharing {
    /// `RKLLM_CPU_SLOTS` and `RKLLM_CPU_POOL_TOKENS`. None: each handle has a context of its own.
    pub(crate) fn from_environment(context_length: u32) -> Result<Option<Sharing>, LoadError> {
        let read = |name| std::env::var(name).ok();
        let [slots, pool] = ["RKLLM_CPU_SLOTS", "RKLLM_CPU_POOL_TOKENS"].map(read);
        Sharing::of(slots.as_deref(), pool.as_deref(), context_length)
    }

    fn of(
        slots: Option<&str>,
        pool: Option<&str>,
        context_length: u32,
    ) -> Result<Option<Sharing>, LoadError> {
        let Some(slots) = slots else {
            return Ok(None);
        };
        let count = slots.trim().parse().ok();
        let count = count.filter(|&count| count <= MOST_SLOTS);
        let count = count.ok_or_else(|| LoadError::Slots(slots.to_owned()))?;
        let pool_tokens = match pool {
            None => context_length.saturating_mul(DEFAULT_CONTEXTS),
            // A run may fill its context, and must come to its end if it is the only one.
            Some(text) => (text.trim().parse().ok())
                .filter(|tokens| (context_length..=i32::MAX as u32).contains(tokens))
                .ok_or_else(|| LoadError::Pool {
                    asked: text.to_owned(),
                    context: context_length,
                })?,
        };
        Ok((count >= 2).then_some(Sharing {
            slots: count,
            pool_tokens,
        }))
    }
}

static CONTEXTS: Mutex<Vec<(Likeness, Weak<Shared>)>> = Mutex::new(Vec::new());

struct Shared {
    computing: Arc<FairMutex<Computing>>,
    weights: Arc<Weights>,
    slots: u32,
    /// None while it is being freed: the scheduler ends when there are no more.
    jobs: Option<Sender<Job>>,
    scheduler: Option<JoinHandle<()>>,
    thread: Thread,
}

/// A handle's part in a shared context.
pub(crate) struct Membership(Arc<Shared>);

impl Membership {
    pub(crate) fn join(
        loading: &Loading,
        likeness: Likeness,
        sharing: Sharing,
    ) -> Result<Membership, LoadError> {
        let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.retain(|(_, shared)| shared.strong_count() > 0);
        let alike = contexts.iter().find(|(other, _)| *other == likeness);
        if let Some(shared) = alike.and_then(|(_, shared)| shared.upgrade()) {
            loading.check_against(&shared.weights)?;
            return Ok(Membership(shared));
        }
        let shared = Arc::new(Shared::start(loading, sharing)?);
        contexts.push((likeness, Arc::downgrade(&shared)));
        Ok(Membership(shared))
    }

    pub(crate) fn take_sequence(&self) -> Result<usize, LoadError> {
        let free = self.0.computing.lock().take_sequence();
        free.ok_or(LoadError::NoSlot(self.0.slots))
    }

    pub(crate) fn computing(&self) -> &Arc<FairMutex<Computing>> {
        &self.0.computing
    }

    pub(crate) fn weights(&self) -> &Arc<Weights> {
        &self.0.weights
    }

    pub(crate) fn scheduler(&self) -> Thread {
        self.0.thread.clone()
    }

    /// Has the scheduler run `generation`, and calls back on this thread meanwhile. None: it is lost.
    pub(crate) fn drive(
        &self,
        mut generation: Box<Generation>,
        state: &Arc<RunState>,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> (Option<Box<Generation>>, Outcome) {
        let mut host = Host::default();
        for drawn in generation.take_untold() {
            host.tell(drawn, state, report);
        }
        let run = if host.pauses {
            Some((generation, Outcome::Paused))
        } else if generation.only_hands_over() {
            Some((generation, Outcome::Finished))
        } else {
            self.run(generation, state, &mut host, report)
        };
        let Some((mut generation, outcome)) = run else {
            report(Report::Error);
            return (None, Outcome::Failed);
        };
        // As if the scheduler had waited for the answer. An aborted run does not wait for a step here:
        // a later prompt keeps only what it begins with.
        if host.pauses && !host.untold.is_empty() {
            let told = generation.tokens().len() - host.untold.len();
            let cells = told.saturating_sub(1);
            let mut computing = self.0.computing.lock();
            computing.cells(generation.plan().sequence).truncate(cells);
        }
        let outcome = match outcome {
            Outcome::Failed => outcome,
            _ if host.pauses => {
                generation.keep_untold(host.untold);
                Outcome::Paused
            }
            Outcome::Finished if generation.plan().output == OutputKind::HiddenStates => {
                generation.hand_over_rows(self.0.weights.hidden_width(), state, report)
            }
            _ => {
                generation.forget_draws(host.untold.len());
                outcome
            }
        };
        let outcome = generation.conclude(outcome, report);
        (Some(generation), outcome)
    }

    fn run(
        &self,
        generation: Box<Generation>,
        state: &Arc<RunState>,
        host: &mut Host,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Option<(Box<Generation>, Outcome)> {
        let logprobs = generation.plan().logprobs;
        let listener = self.submit(generation, state)?;
        loop {
            match listener.take()? {
                Letter::OfPrompt(told) => {
                    let is_wanted = !host.pauses && !state.abort_requested();
                    for told in told.iter().filter(|_| is_wanted) {
                        if let Some(logprobs) = &logprobs {
                            logprobs.tell(told, self.0.weights.vocabulary);
                        }
                    }
                }
                Letter::Drawn(drawn) => {
                    if host.tell(drawn, state, report) {
                        listener.ask_for_pause();
                    }
                }
                Letter::Save(prompt) => prompt.write(),
                Letter::Back(generation, outcome) => return Some((generation, outcome)),
            }
        }
    }

    /// None: the scheduler has died.
    fn submit(&self, generation: Box<Generation>, state: &Arc<RunState>) -> Option<Listener> {
        let (teller, listener) = mailbox::open(self.0.thread.clone());
        let job = Job {
            generation,
            state: Arc::clone(state),
            teller,
        };
        self.0.jobs.as_ref()?.send(job).ok()?;
        self.0.thread.unpark();
        Some(listener)
    }
}

/// What the host was told, and answered.
#[derive(Default)]
struct Host {
    pauses: bool,
    /// Drawn while the answer was on its way.
    untold: VecDeque<Drawn>,
}

impl Host {
    /// True: the host's answer is to pause.
    fn tell(
        &mut self,
        drawn: Drawn,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> bool {
        if self.pauses || state.abort_requested() {
            self.untold.push_back(drawn);
            return false;
        }
        let told = state.tell(drawn.held);
        self.pauses = drawn.tell(report) == Reply::Pause;
        drop(told);
        self.pauses
    }
}

impl Shared {
    fn start(loading: &Loading, sharing: Sharing) -> Result<Shared, LoadError> {
        let weights = loading.weights()?;
        let pool = Some(sharing.pool_tokens);
        let computing = loading.context(Arc::clone(&weights), sharing.slots, pool)?;
        let computing = Arc::new(FairMutex::new(computing));
        let (sender, receiver) = channel();
        let scheduler = Scheduler::new(receiver, Arc::clone(&computing));
        let handle = std::thread::Builder::new()
            .name("rkllm-steps".into())
            .spawn(move || scheduler.work())
            .map_err(LoadError::Scheduler)?;
        Ok(Shared {
            computing,
            weights,
            slots: sharing.slots,
            jobs: Some(sender),
            thread: handle.thread().clone(),
            scheduler: Some(handle),
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.jobs = None;
        self.thread.unpark();
        if let Some(scheduler) = self.scheduler.take() {
            // If it has panicked, its runs were told.
            let _ = scheduler.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_share_only_where_it_is_asked_for() {
        for alone in [None, Some("0"), Some("1")] {
            assert!(matches!(Sharing::of(alone, Some("4096"), 4096), Ok(None)));
        }
        let two = |pool| Sharing::of(Some(" 2 "), pool, 4096).ok().flatten();
        let shared = |pool_tokens| {
            Some(Sharing {
                slots: 2,
                pool_tokens,
            })
        };
        assert_eq!(two(None), shared(8192));
        assert_eq!(two(Some("4096")), shared(4096));
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        for slots in ["", "two", "-1", "257"] {
            let refused = Sharing::of(Some(slots), None, 4096);
            assert!(matches!(refused, Err(LoadError::Slots(_))), "{slots}");
        }
        for pool in ["", "many", "4095", "2147483648"] {
            let refused = Sharing::of(Some("2"), Some(pool), 4096);
            assert!(matches!(refused, Err(LoadError::Pool { .. })), "{pool}");
        }
    }
}
