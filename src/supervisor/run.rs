//! One request from its first worker to its last event.
//!
//! Whatever happens, the reader gets exactly one final event (its place in the channel is reserved
//! before the run starts), and each worker is afterwards either idle again or dead. A worker's death
//! is not the request's: before the first token it is run again, and after it the next worker goes
//! on where the text ends (a run that repeats is begun once more, and what was sent is passed over), until
//! a second death raises the suspicion that the request itself is to blame (`probe`). A thought that has used its budget is closed in the same way: its run is ended, and
//! another goes on behind what closes it.

mod attempt;
mod constrained;
mod finish;
mod job;
mod next_attempt;
mod ready;
mod resumption;

use std::time::{Duration, Instant};

use tokio::sync::mpsc::OwnedPermit;

use super::answer_so_far::AnswerSoFar;
use super::attempts::Attempts;
use super::drive::{Outer, Stop, Total};
use super::lease::Lease;
use super::outcome::{Before, Outcome, Waited};
use super::prefixes::swap::{Loaded, Owed, Swap};
use super::probe::{Probe, Suspicion};
use super::reading::Reading;
use super::repeated::Repeated;
use super::unread::Unread;
use super::waiter::Wish;
use crate::children::ChildProcess;
use crate::generation::{Fingerprint, GenerationError, ModelId, ReplyEvent};
use crate::ipc::{BegunAnswer, Redraws};
use crate::memory::Standing;
use attempt::Attempt;
pub use job::{Extent, RunJob, RunServices, Served};

/// Serves `job` and gives the lease back.
pub async fn serve(mut lease: Lease, job: RunJob, services: &RunServices) -> Served {
    let began = Instant::now();
    // The last event and, before it, text that was held back: they must not wait for a slow reader,
    // because the worker would wait with them.
    let (Ok(last), Ok(tail)) = (
        job.events.clone().try_reserve_owned(),
        job.events.clone().try_reserve_owned(),
    ) else {
        let extent = Extent::CutShort;
        return Served {
            extent,
            time: Duration::ZERO,
            tokens: 0,
        };
    };
    let mut serving = Serving::new(job, services, last);
    let (outcome, end) = loop {
        lease = match serving.make_ready(lease).await {
            Ok(lease) => lease,
            Err(outcome) => break (outcome, None),
        };
        let kept = match serving.attempt(lease).await {
            Attempt::Over(outcome, end) => break (outcome, end),
            Attempt::Lost { loss, process } => {
                if let Err(outcome) = serving.prepare_next_attempt(loss, process) {
                    break (outcome, None);
                }
                None
            }
            Attempt::GoesOn(kept) => kept,
        };
        lease = match kept {
            Some(lease) => lease,
            None => match serving.next_worker().await {
                Ok(lease) => lease,
                Err(outcome) => break (outcome, None),
            },
        };
        if let Some(suspicion) = serving.suspicion.take() {
            break (serving.put_to_the_proof(lease, suspicion).await, None);
        }
    };
    if let Some(redrawn) = &serving.redrawn {
        let model = &serving.job.request.model;
        services.metrics.answer_redrawn(model, redrawn);
    }
    let time = began.elapsed();
    let outcome = serving.give_unread(outcome).await;
    let tokens = serving.cost();
    let extent = match outcome {
        Outcome::Silence => Extent::CutShort,
        Outcome::Failed(error) => {
            if let Some(last) = serving.last.take() {
                last.send(ReplyEvent::Failed(error));
            }
            Extent::CutShort
        }
        Outcome::Finished { reason, flush } => {
            serving.finish(reason, flush, end.as_deref(), tail);
            Extent::Whole
        }
    };
    if let Some((lease, owed)) = serving.owed.take() {
        let (services, cut_off) = (services.clone(), serving.job.cut_off.clone());
        tokio::spawn(async move {
            Swap::new(&services, cut_off).settle(lease, owed).await;
        });
    }
    Served {
        extent,
        time,
        tokens,
    }
}

/// A request on its way, whichever worker has it.
struct Serving<'a> {
    job: RunJob,
    services: &'a RunServices,
    waited: Waited,
    total: Option<Total>,
    /// The place of the last event; `None` once the reader was told of an error.
    last: Option<OwnedPermit<ReplyEvent>>,
    /// How long the reader has held the run up.
    stalled: Duration,
    /// What it has not had room for.
    unread: Unread,
    reading: Option<Reading>,
    answer: AnswerSoFar,
    prompt_tokens: Option<u32>,
    /// Tokens of the prompt that the reader was told the log probabilities of.
    prompt_logprobs: usize,
    /// Tokens of prompts that were evaluated for it.
    prefilled: u64,
    /// What drawing tokens again has taken, as far as its workers have told.
    redrawn: Option<Redraws>,
    /// Handed to the next worker.
    begun: Option<BegunAnswer>,
    before: Before,
    started: bool,
    /// A run that is begun again makes the same tokens.
    repeats: bool,
    /// What it was said to be made with.
    fingerprint: Option<Fingerprint>,
    /// Those that the next run makes first, which were made before.
    repeated: Repeated,
    ids_are_trusted: bool,
    attempts: Attempts,
    /// The most tokens that an attempt was seen to make before its worker was lost.
    furthest: u32,
    /// The next worker has to show first whether the model serves any prompt.
    suspicion: Option<Suspicion>,
    /// The last worker, whose end has not been made up for yet.
    lost: Option<ChildProcess>,
    /// Nothing was saved or loaded for it yet.
    may_swap: bool,
    /// What was loaded for the run that comes.
    loaded: Option<Loaded>,
    /// What is done behind the last event, and the slot that it is done in.
    owed: Option<(Lease, Owed)>,
}

impl<'a> Serving<'a> {
    fn new(job: RunJob, services: &'a RunServices, last: OwnedPermit<ReplyEvent>) -> Self {
        let waited = Waited {
            time: job.submitted_at.elapsed(),
            position: job.queue_position,
        };
        let total = job.request.total_deadline.map(|limit| Total {
            at: job.submitted_at + limit,
            limit,
        });
        let client = job.request.client.clone();
        let memory = services.supervisor.requests_memory();
        let unread = Unread::new(&memory.account(client, Standing::Ordinary));
        Self {
            job,
            services,
            waited,
            total,
            last: Some(last),
            stalled: Duration::ZERO,
            unread,
            reading: None,
            answer: AnswerSoFar::default(),
            prompt_tokens: None,
            prompt_logprobs: 0,
            prefilled: 0,
            redrawn: None,
            begun: None,
            before: Before {
                tokens: 0,
                in_context: Some(0),
                resumptions: 0,
            },
            started: false,
            repeats: false,
            fingerprint: None,
            repeated: Repeated::default(),
            ids_are_trusted: false,
            attempts: Attempts::default(),
            furthest: 0,
            suspicion: None,
            lost: None,
            may_swap: true,
            loaded: None,
            owed: None,
        }
    }

    fn cost(&self) -> u64 {
        self.prefilled + u64::from(self.answer.tokens())
    }

    fn tokens_left(&self) -> Option<u32> {
        // No runtime evaluates a prompt without making a token of its own.
        let budget = self.job.request.max_new_tokens?.max(1);
        Some(budget.saturating_sub(self.before.tokens))
    }

    /// Has the worker of `lease` show which is to blame. Kills it, or gives it back for others.
    async fn put_to_the_proof(&mut self, lease: Lease, suspicion: Suspicion) -> Outcome {
        let probe = Probe {
            run: self.job.run,
            tokens: suspicion.tokens_wanted(self.answer.tokens()),
            enough: suspicion.tokens_that_prove(self.furthest),
            events: &self.job.events,
            last: &mut self.last,
            outer: Outer {
                total: self.total,
                cut_off: Some(&mut self.job.cut_off),
            },
            metrics: &self.services.metrics,
        };
        match probe.on(lease).await {
            Ok(proof) => Outcome::Failed(suspicion.blame(proof, &self.job.request.model)),
            Err(outcome) => outcome,
        }
    }

    /// Waits for another worker, before all others that wait for one.
    async fn next_worker(&mut self) -> Result<Lease, Outcome> {
        let model = ModelId::clone(&self.job.request.model);
        let client = self.job.request.client.clone();
        let queue_end = self.attempts.queue_end();
        let begun = self.begun.as_ref().map_or(0, |begun| begun.text.len());
        let wish = Wish {
            keep_alive: self.job.request.keep_alive,
            batch_bytes: self.job.request.prompt.len() + begun,
            ..Wish::default()
        };
        let supervisor = self.services.supervisor.clone();
        tokio::select! {
            biased;
            over = self.is_over() => Err(over),
            lease = supervisor.lease_with(client, model, queue_end, wish) => lease.map_err(Outcome::Failed),
        }
    }

    /// Tells the reader what it had no room for while its answer was made. Its slot is another's by now.
    async fn give_unread(&mut self, outcome: Outcome) -> Outcome {
        if matches!(outcome, Outcome::Silence) || self.last.is_none() {
            return outcome;
        }
        while !self.unread.is_empty() {
            if let Some(over) = self.over_or_given().await {
                return over;
            }
        }
        outcome
    }

    /// Until its client has left, or its time has passed, or the daemon's.
    async fn is_over(&mut self) -> Outcome {
        loop {
            if let Some(over) = self.over_or_given().await {
                return over;
            }
        }
    }

    /// `None`: the reader was told one more of what it had no room for.
    async fn over_or_given(&mut self) -> Option<Outcome> {
        let has_unread = !self.unread.is_empty();
        let mut outer = Outer {
            total: self.total,
            cut_off: Some(&mut self.job.cut_off),
        };
        let error = tokio::select! {
            biased;
            () = self.job.events.closed() => return Some(Outcome::Silence),
            error = outer.pass() => error,
            given = self.unread.give(&self.job.events), if has_unread => match given {
                Ok(()) => return None,
                Err(Stop::Failed(error)) => error,
                Err(_) => return Some(Outcome::Silence),
            },
        };
        // A reader that gets an error gets it now.
        self.unread.clear();
        if let GenerationError::DeadlineExceeded { deadline, .. } = &error {
            self.services.metrics.deadline_passed(*deadline);
        }
        Some(Outcome::Failed(error))
    }
}
