//! One request from its first worker to its last event.
//!
//! Whatever happens, the reader gets exactly one final event (its place in the channel is reserved
//! before the run starts), and each worker is afterwards either idle again or dead. A worker's death
//! is not the request's: before the first token it is run again, and after it the next worker goes
//! on where the text ends, until a second death raises the suspicion that the request itself is to
//! blame (`probe`). A thought that has used its budget is closed in the same way: its run is ended, and
//! another goes on behind what closes it.

mod constrained;
mod next_attempt;
mod ready;
mod resumption;

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::watch;

use super::Supervisor;
use super::answer_so_far::AnswerSoFar;
use super::attempts::Attempts;
use super::drive::{Ended, Limits, Loss, Lost, Outer, Stop, Total, drive};
use super::lease::{Lease, WorkerAfter};
use super::link::TOKEN_CREDIT;
use super::outcome::{self, Before, Outcome, Waited};
use super::prefixes::swap::{Loaded, Owed, Swap};
use super::probe::{Probe, Suspicion};
use super::reading::Reading;
use super::text_sink::{Complete, Prefill, TextSink};
use super::worker::Worker;
use crate::children::ChildProcess;
use crate::generation::{
    Deadline, FinishReason, GenerationError, GenerationRequest, ModelId, ReplyEvent, RunStart,
    StopStrings,
};
use crate::ipc::{BegunAnswer, RunConstraint, RunEnd, RunOutcome, RunSpec, SlotCommand};
use crate::reader::Readers;
use crate::telemetry::Metrics;
use resumption::Resumption;

/// A request whose turn has come.
#[derive(Debug)]
pub struct RunJob {
    /// Unique in the daemon's life.
    pub run: u64,
    pub request: GenerationRequest,
    pub events: mpsc::Sender<ReplyEvent>,
    pub submitted_at: Instant,
    /// Requests that were ahead of it when it was queued.
    pub queue_position: u32,
    /// Becomes true when the daemon stops waiting for running answers.
    pub cut_off: watch::Receiver<bool>,
}

/// What every run needs.
#[derive(Clone, Debug)]
pub struct RunServices {
    pub supervisor: Supervisor,
    /// They know the tokens of models.
    pub readers: Readers,
    pub metrics: Metrics,
}

/// What a request came to, and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub extent: Extent,
    /// Tokens that were evaluated and made for it, as far as the runtime told.
    pub tokens: u64,
}

/// Whether a request was answered to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// Refused, lost, failed or cancelled.
    CutShort,
}

/// Serves `job` and gives the lease back.
pub async fn serve(mut lease: Lease, job: RunJob, services: &RunServices) -> Served {
    // The last event and, before it, text that was held back: they must not wait for a slow reader,
    // because the worker would wait with them.
    let (Ok(last), Ok(tail)) = (
        job.events.clone().try_reserve_owned(),
        job.events.clone().try_reserve_owned(),
    ) else {
        let extent = Extent::CutShort;
        return Served { extent, tokens: 0 };
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
    Served { extent, tokens }
}

/// What came of one attempt.
enum Attempt {
    /// The lease is given back by then.
    Over(Outcome, Option<Box<RunEnd>>),
    Lost {
        loss: Loss,
        process: ChildProcess,
    },
    /// There is another run of it: behind a closed thought, or alone. On this worker where there is one.
    GoesOn(Option<Lease>),
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
    reading: Option<Reading>,
    answer: AnswerSoFar,
    prompt_tokens: Option<u32>,
    /// Tokens of prompts that were evaluated for it.
    prefilled: u64,
    /// Handed to the next worker.
    begun: Option<BegunAnswer>,
    before: Before,
    started: bool,
    ids_are_trusted: bool,
    attempts: Attempts,
    /// The most tokens that an attempt was seen to make before its worker was lost.
    furthest: u32,
    /// The next worker has to show first whether the model serves anybody.
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
        Self {
            job,
            services,
            waited,
            total,
            last: Some(last),
            stalled: Duration::ZERO,
            reading: None,
            answer: AnswerSoFar::default(),
            prompt_tokens: None,
            prefilled: 0,
            begun: None,
            before: Before {
                tokens: 0,
                in_context: Some(0),
                resumptions: 0,
            },
            started: false,
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

    /// Runs on this worker until the run has ended or the worker is lost.
    async fn attempt(&mut self, lease: Lease) -> Attempt {
        let granted_at = Instant::now();
        let worker = lease.worker();
        if let Err(outcome) = self.start(worker) {
            return Attempt::Over(outcome, None);
        }
        if self.reading.is_none() {
            let request = &self.job.request;
            let own = worker.model.facts.extra_stop.iter().cloned();
            let stops = StopStrings::new(request.stop.iter().cloned().chain(own));
            let reading = self
                .reading
                .insert(Reading::new(stops, request.reply.as_ref()));
            // The prompt has opened a thought that may have no token.
            if reading.thought_is_used_up()
                && let Err(outcome) = self.close_thought()
            {
                return Attempt::Over(outcome, None);
            }
        }
        let constraint = match self.constraint(worker).await {
            Ok(constraint) => constraint,
            Err(outcome) => return Attempt::Over(outcome, None),
        };
        let spec = self.spec(worker, constraint);
        let (deadlines, prefill) = (worker.deadlines, Prefill::of(&spec, worker.slots()));
        let resumed = Resumption::of(self.lost.take(), worker, granted_at);
        let (metrics, request) = (&self.services.metrics, &self.job.request);
        let on_first_token = || {
            if let Some(resumed) = &resumed {
                resumed.report(request, metrics);
            }
        };
        let Some(reading) = &mut self.reading else {
            unreachable!("it is there before the first run")
        };
        let limits = Limits {
            first: (Deadline::Prefill, prefill.limit(&deadlines, None)),
            outer: Outer {
                total: self.total,
                cut_off: Some(&mut self.job.cut_off),
            },
            request: Some(request.id.to_string()),
            metrics,
        };
        let mut sink = TextSink {
            run: self.job.run,
            wants_text: request.max_new_tokens != Some(0),
            prefill,
            reading,
            answer: &mut self.answer,
            ids_are_trusted: self.ids_are_trusted,
            prompt_tokens: &mut self.prompt_tokens,
            events: &self.job.events,
            last: &mut self.last,
            stalled: &mut self.stalled,
            deadlines,
            complete: None,
            on_first_token: &on_first_token,
            has_token: false,
            waiting: None,
        };
        let command = SlotCommand::Run(Box::new(spec));
        let ended = drive(lease, command, &mut sink, limits).await;
        let complete = sink.complete.take();
        match ended {
            Ended::NotSent(running, error) => {
                running.ended(WorkerAfter::Unproven);
                let error = GenerationError::Internal(error.to_string());
                Attempt::Over(Outcome::Failed(error), None)
            }
            Ended::Over(mut over) => {
                if self.job.request.constraint.is_some() {
                    over.running.worker().is_told_tokens();
                }
                let stop = over.stop.take();
                // A prompt that was not taken may be longer than anything a slot holds.
                if over.end.outcome.has_run() {
                    let texts = [&*self.job.request.prompt, self.answer.text()];
                    over.running.hold(&texts);
                    let is_evaluated = over.end.generated_tokens > 0;
                    over.running.link().set_evaluated(is_evaluated);
                }
                let running = &over.running;
                running.worker().learn(|measured| measured.run(&over.end));
                if let Some(loaded) = self.loaded.take() {
                    loaded.learn(self.services.supervisor.prefixes(), &over.end);
                }
                let evaluated = over.end.evaluated_prompt_tokens();
                self.prefilled += u64::from(evaluated.unwrap_or(0));
                if matches!(stop, Some(Stop::ThoughtUsedUp)) {
                    let counted = over.end.prompt_tokens.zip(self.before.in_context);
                    let counted = counted.and_then(|(all, begun)| all.checked_sub(begun));
                    self.prompt_tokens = self.prompt_tokens.or(counted);
                    let after = over.after(false);
                    let kept = over.running.ended(after);
                    return match self.close_thought() {
                        Ok(()) => Attempt::GoesOn(kept),
                        Err(outcome) => Attempt::Over(outcome, None),
                    };
                }
                let outcome = outcome::of_end(&over.end, stop, running, &self.job.request).await;
                if matches!(outcome, Outcome::Failed(GenerationError::RunRefused { .. }))
                    && !over.running.was_alone()
                    && self.attempts.refused_in_company()
                {
                    tracing::info!(request = %self.job.request.id, "asking once more, alone");
                    let after = over.after(false);
                    over.running.ended(after);
                    return Attempt::GoesOn(None);
                }
                let outcome = self.at_a_refused_continuation(outcome);
                if let Outcome::Failed(GenerationError::RunRefused { request }) = &outcome
                    && !over.tainted
                {
                    let request = request.clone();
                    let Some(lease) = over.running.ended(WorkerAfter::Unproven) else {
                        return Attempt::Over(outcome, None);
                    };
                    let suspicion = Suspicion::Refusal { request };
                    return Attempt::Over(self.put_to_the_proof(lease, suspicion).await, None);
                }
                let outcome = self.at_the_context_limit(outcome, &over.end);
                let answered = matches!(outcome, Outcome::Finished { .. });
                let after = over.after(answered);
                // Given back before its reader learns of the end, so that the reader's next
                // request finds it, unless something is left to be done there.
                let lease = over.running.ended(after);
                self.owed = lease.filter(|_| answered).and_then(|lease| {
                    let owed = self.swap().owed(&lease)?;
                    Some((lease, owed))
                });
                Attempt::Over(outcome, Some(over.end))
            }
            Ended::Lost(Lost {
                loss,
                process,
                stop,
            }) => {
                tracing::error!(request = %self.job.request.id, model = &*self.job.request.model,
                    pid = process.pid, cause = %loss.cause, tokens = self.answer.tokens(), "run lost");
                match (stop, complete) {
                    (Some(Stop::ThoughtUsedUp), _) => {
                        if let Some(reading) = &mut self.reading {
                            reading.close_thought(&mut self.answer);
                        }
                        Attempt::Lost { loss, process }
                    }
                    // Nothing more was wanted of it.
                    (Some(stop), _) => Attempt::Over(outcome::stopped(stop), None),
                    (None, Some(Complete { reason, end })) => {
                        let flush = true;
                        Attempt::Over(Outcome::Finished { reason, flush }, Some(end))
                    }
                    (None, None) => Attempt::Lost { loss, process },
                }
            }
        }
    }

    /// Tells the reader that its turn has come, the first time.
    fn start(&mut self, worker: &Worker) -> Result<(), Outcome> {
        self.ids_are_trusted = self.job.request.prompt_tokens.is_some()
            && worker.measured().tokenizer_agrees == Some(true);
        if self.started {
            return Ok(());
        }
        let request = &self.job.request;
        let runtime = worker.facts.abilities();
        request.check_constraint(runtime).map_err(Outcome::Failed)?;
        let not_applied = request.not_applied(runtime);
        if request.strict_parameters && !not_applied.is_empty() {
            return Err(Outcome::Failed(GenerationError::ParametersNotApplied {
                parameters: not_applied,
            }));
        }
        let started = ReplyEvent::Started(RunStart { not_applied });
        if self.job.events.try_send(started).is_err() {
            return Err(Outcome::Silence);
        }
        self.started = true;
        Ok(())
    }

    fn spec(&self, worker: &Worker, constraint: Option<Box<RunConstraint>>) -> RunSpec {
        let request = &self.job.request;
        RunSpec {
            run: self.job.run,
            prompt: request.prompt.to_string(),
            prompt_tokens: request.prompt_tokens.clone(),
            begun: self.begun.clone(),
            sampling: request.sampling,
            draws: request.draws.clone(),
            constraint,
            max_new_tokens: self.tokens_left(),
            prefill_per_token: worker.prefill_per_token(),
            credit: TOKEN_CREDIT,
            save: None,
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

    /// No token is wanted, only what evaluating the prompt tells.
    fn wants_no_text(&self) -> bool {
        self.job.request.max_new_tokens == Some(0)
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
        let supervisor = self.services.supervisor.clone();
        tokio::select! {
            biased;
            over = self.is_over() => Err(over),
            lease = supervisor.lease(client, model, queue_end) => lease.map_err(Outcome::Failed),
        }
    }

    /// Until its client has left, or its time has passed, or the daemon's.
    async fn is_over(&mut self) -> Outcome {
        let mut outer = Outer {
            total: self.total,
            cut_off: Some(&mut self.job.cut_off),
        };
        tokio::select! {
            biased;
            () = self.job.events.closed() => Outcome::Silence,
            error = outer.pass() => {
                if let GenerationError::DeadlineExceeded { deadline, .. } = &error {
                    self.services.metrics.deadline_passed(*deadline);
                }
                Outcome::Failed(error)
            }
        }
    }

    /// What has been begun and does not fit any more is as long as it can be.
    fn at_the_context_limit(&self, outcome: Outcome, end: &RunEnd) -> Outcome {
        let does_not_fit = matches!(
            (&outcome, &end.outcome),
            (
                Outcome::Failed(GenerationError::ContextLengthExceeded { .. }),
                RunOutcome::ContextLengthExceeded { .. } | RunOutcome::Refused { .. }
            )
        );
        if does_not_fit && self.before.tokens > 0 {
            return Outcome::Finished {
                reason: FinishReason::Length,
                flush: true,
            };
        }
        outcome
    }

    fn finish(
        &mut self,
        reason: FinishReason,
        flush: bool,
        end: Option<&RunEnd>,
        tail: OwnedPermit<ReplyEvent>,
    ) {
        let Some(last) = self.last.take() else {
            return;
        };
        let (reason, flush) = match self.wants_no_text() {
            true => (FinishReason::Length, false),
            false => (reason, flush),
        };
        let reading = self.reading.as_mut().filter(|_| flush);
        if let Some(held_back) = reading.and_then(|reading| reading.finish(reason)) {
            tail.send(held_back);
        }
        let tokens = match end {
            _ if self.wants_no_text() => 0,
            Some(end) => self.before.tokens.saturating_add(end.generated_tokens),
            None => self.answer.tokens(),
        };
        let mut completion = outcome::completion(
            end,
            reason,
            self.prompt_tokens,
            tokens,
            self.before,
            self.waited,
        );
        if let Some(usage) = &mut completion.usage {
            let reading = self.reading.as_ref();
            usage.reasoning_tokens = reading.and_then(Reading::thought_tokens);
        }
        last.send(ReplyEvent::Finished(Box::new(completion)));
    }
}
