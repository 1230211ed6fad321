//! A loaded worker: what its slots share, and what runs on it at the same time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::link::SlotLink;
use super::measured::Measured;
use super::prefixes::Hatch;
use super::{RunDeadlines, RuntimeFacts};
use crate::children::{ChildProcess, PrintedLines};
use crate::generation::{Abilities, Adapter, ClientKey};
use crate::models::InstalledModel;

/// What the slots of a worker share.
#[derive(Debug)]
pub struct Worker {
    pub model: Arc<InstalledModel>,
    pub process: ChildProcess,
    pub facts: Arc<RuntimeFacts>,
    /// From starting the process to the loaded model.
    pub load_time: Duration,
    /// What its runs keep to.
    pub deadlines: RunDeadlines,
    pub company: Company,
    /// Its folders among the prefixes; `None`: it is not confined, or there are no prefixes.
    pub hatch: Option<Arc<Hatch>>,
    /// Of a model that nothing was measured of.
    prefill_per_token: Duration,
    slots: u8,
    tainted: AtomicBool,
    /// It was missed by its heartbeat.
    is_silent: AtomicBool,
    /// It was told its model's tokens.
    knows_tokens: AtomicBool,
    lines: PrintedLines,
    measured: Mutex<Measured>,
}

impl Worker {
    pub fn new(
        model: Arc<InstalledModel>,
        process: ChildProcess,
        lines: PrintedLines,
        facts: Arc<RuntimeFacts>,
        deadlines: RunDeadlines,
        slots: u8,
    ) -> Self {
        Self {
            model,
            load_time: process.started_at.elapsed(),
            prefill_per_token: deadlines.worker.prefill_per_token,
            process,
            deadlines: RunDeadlines {
                worker: deadlines.worker.shared_by(slots, facts.pool_tokens),
                ..deadlines
            },
            facts,
            slots,
            company: Company::default(),
            hatch: None,
            tainted: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            knows_tokens: AtomicBool::new(false),
            lines,
            measured: Mutex::default(),
        }
    }

    /// How many there are.
    pub fn slots(&self) -> u8 {
        self.slots
    }

    /// A call hangs or a run failed: what goes on may end, and nothing new begins.
    pub fn taint(&self) {
        self.tainted.store(true, Ordering::Relaxed);
    }

    pub fn is_tainted(&self) -> bool {
        self.tainted.load(Ordering::Relaxed)
    }

    /// It is missed by its heartbeat. Returns whether that is noticed for the first time.
    pub fn falls_silent(&self) -> bool {
        !self.is_silent.swap(true, Ordering::Relaxed)
    }

    pub fn knows_tokens(&self) -> bool {
        self.knows_tokens.load(Ordering::Relaxed)
    }

    /// A run that tells it the model's tokens has ended; until then each one tells them.
    pub fn is_told_tokens(&self) {
        self.knows_tokens.store(true, Ordering::Relaxed);
    }

    /// What the library has printed since it was last asked.
    pub async fn take_lines(&self) -> Vec<String> {
        self.lines.take().await
    }

    /// What was measured of its model so far.
    pub fn measured(&self) -> Measured {
        *self.lock()
    }

    /// What it can do for one run, by what it has told and shown.
    pub fn abilities(&self) -> Abilities {
        Abilities {
            tokens_agree: self.measured().tokens_agree,
            ..self.facts.abilities()
        }
    }

    /// How long a token of a prompt may take where no other run goes on; the worker grants more where
    /// some do.
    pub fn prefill_per_token(&self) -> Duration {
        let measured = self.measured().prefill_per_token();
        measured.unwrap_or(self.prefill_per_token)
    }

    /// Takes in what a run has shown.
    pub fn learn(&self, learn: impl FnOnce(&mut Measured)) {
        learn(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        // Whole after every statement.
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker and the slots that nothing goes on in.
#[derive(Debug)]
pub struct LoadedWorker {
    pub worker: Arc<Worker>,
    pub free: Vec<SlotLink>,
    /// By slot: what runs there.
    pub lent: BTreeMap<u8, Lent>,
}

/// A slot that a request has.
#[derive(Debug)]
pub struct Lent {
    pub prompt: Arc<str>,
    pub adapter: Option<Arc<Adapter>>,
    pub client: ClientKey,
    pub since: Instant,
}

impl LoadedWorker {
    pub fn new(worker: Worker, free: Vec<SlotLink>) -> Self {
        let worker = Arc::new(worker);
        Self {
            worker,
            free,
            lent: BTreeMap::new(),
        }
    }
}

/// The runs and calls that are on a worker at the same time.
#[derive(Debug, Default)]
pub struct Company(Mutex<Counts>);

/// Read and changed together: who comes to an empty worker is the only one that does.
#[derive(Debug, Default)]
struct Counts {
    here: usize,
    came: u64,
    /// How many were there when it was first noticed that the worker is lost.
    at_loss: Option<usize>,
}

/// A run's or call's part in it.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    /// How many had come with it, if it came to an empty worker.
    alone_since: Option<u64>,
    /// It came to a worker that was lost.
    is_late: bool,
}

impl Company {
    pub fn enter(&self) -> Presence {
        let mut counts = self.lock();
        counts.here += 1;
        counts.came += 1;
        Presence {
            alone_since: (counts.here == 1).then_some(counts.came),
            is_late: counts.at_loss.is_some(),
        }
    }

    /// Whether nothing runs there.
    pub fn is_empty(&self) -> bool {
        self.lock().here == 0
    }

    pub fn leave(&self) {
        let mut counts = self.lock();
        counts.here = counts.here.saturating_sub(1);
    }

    /// The worker is lost. Returns how many others were there when that was first noticed: a run
    /// that notices it later has been there with them. To be asked before leaving.
    pub fn others_at_loss(&self, presence: Presence) -> usize {
        let mut counts = self.lock();
        let here = counts.here;
        let itself = usize::from(!presence.is_late);
        counts.at_loss.get_or_insert(here).saturating_sub(itself)
    }

    /// Likewise, where the library goes on with what has left: that may have killed the worker, too.
    pub fn batch_at_loss(&self, presence: Presence) -> usize {
        let others = self.others_at_loss(presence);
        match self.was_alone(presence) {
            true => others,
            false => others.max(1),
        }
    }

    /// Whether no other has been there in all its time.
    pub fn was_alone(&self, presence: Presence) -> bool {
        presence.alone_since == Some(self.lock().came)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn all_that_are_lost_together_know_of_each_other() {
        let company = Company::default();
        company.enter();
        company.leave();
        for there in [(); 3].map(|()| company.enter()) {
            let others = company.others_at_loss(there);
            assert_eq!(others, 2, "in whichever order they notice");
            company.leave();
        }
        let late = company.enter();
        assert_eq!(company.others_at_loss(late), 3, "it has killed nothing");
    }

    #[test]
    fn alone_is_who_had_no_other_beside_it_at_any_time() {
        let company = Company::default();
        assert!(company.is_empty());
        let first = company.enter();
        assert!(company.was_alone(first) && !company.is_empty());
        let second = company.enter();
        company.leave();
        assert!(!company.was_alone(first), "one had come");
        assert!(!company.was_alone(second), "one was there");
        company.leave();
        assert!(company.was_alone(company.enter()));
    }

    #[test]
    fn who_has_left_a_batch_is_still_a_suspect() {
        let company = Company::default();
        let alone = company.enter();
        assert_eq!(company.batch_at_loss(alone), 0);
        let company = Company::default();
        let stays = company.enter();
        company.enter();
        company.leave();
        assert_eq!(company.others_at_loss(stays), 0, "of slots it is gone");
        assert_eq!(company.batch_at_loss(stays), 1);
    }

    #[test]
    fn of_two_that_come_at_the_same_time_neither_is_alone() {
        for _ in 0..20_000 {
            let (company, barrier) = (Company::default(), Barrier::new(2));
            let enter = || {
                barrier.wait();
                company.enter()
            };
            let presences = thread::scope(|scope| {
                let other = scope.spawn(enter);
                [enter(), other.join().unwrap()]
            });
            assert!(!presences.iter().any(|it| company.was_alone(*it)));
        }
    }
}
