//! One request from its first worker to its last event.
//!
//! Whatever happens, the reader gets exactly one final event (its place in the channel is reserved
//! before the run starts), and each worker is afterwards either idle again or dead. A worker's death
//! is not the request's: before the first token it is run again, and after it the next worker goes
//! on where the text ends, until a second death shows that the request itself may be to blame.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::watch;

use super::Supervisor;
use super::answer_so_far::{AnswerSoFar, Inexact};
use super::event_loop::Turn;
use super::exchange::{Complete, Exchange, Loss, Run, RunDeadlines, Total, total_passed};
use super::lease::{Lease, WorkerAfter};
use super::loading::Worker;
use super::outcome::{self, Abort, Before, Verdict, Waited};
use super::process::WorkerProcess;
use crate::generation::{
    FinishReason, GenerationError, GenerationRequest, ModelId, RunStart, StopStrings, TextDelta,
    TokenEvent,
};
use crate::ipc::{BegunAnswer, RunEnd, RunOutcome, RunSpec};
use crate::telemetry::Metrics;

/// Deaths by fault after which a request counts as their cause.
const POISON_FAULTS: u32 = 2;
/// Workers a request may use up in all, also without any fault of its own.
const MOST_LIVES: u32 = 5;

/// A request whose turn has come.
#[derive(Debug)]
pub struct RunJob {
    /// Unique in the daemon's life.
    pub run: u64,
    pub request: GenerationRequest,
    pub events: mpsc::Sender<TokenEvent>,
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
    pub deadlines: RunDeadlines,
    pub metrics: Metrics,
}

/// Whether a request was answered to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
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
        return Served::CutShort;
    };
    let mut serving = Serving::new(job, services, last);
    let (verdict, end) = loop {
        match serving.live(lease).await {
            Life::Over(verdict, end) => break (verdict, end),
            Life::Lost { loss, process } => {
                if let Err(verdict) = serving.prepare_next_life(loss, process) {
                    break (verdict, None);
                }
                lease = match serving.next_worker().await {
                    Ok(lease) => lease,
                    Err(verdict) => break (verdict, None),
                };
            }
        }
    };
    match verdict {
        Verdict::Silence => Served::CutShort,
        Verdict::Failed(error) => {
            if let Some(last) = serving.last.take() {
                last.send(TokenEvent::Failed(error));
            }
            Served::CutShort
        }
        Verdict::Finished { reason, flush } => {
            serving.finish(reason, flush, end.as_deref(), tail);
            Served::Whole
        }
    }
}

/// What came of a request on one worker. The lease is given back by then.
enum Life {
    Over(Verdict, Option<Box<RunEnd>>),
    Lost { loss: Loss, process: WorkerProcess },
}

/// A request on its way, whichever worker has it.
struct Serving<'a> {
    job: RunJob,
    services: &'a RunServices,
    waited: Waited,
    total: Option<Total>,
    /// The place of the last event; `None` once the reader was told of an error.
    last: Option<OwnedPermit<TokenEvent>>,
    /// How long the reader has held the run up.
    stalled: Duration,
    stops: Option<StopStrings>,
    answer: AnswerSoFar,
    prompt_tokens: Option<u32>,
    /// Handed to the next worker.
    begun: Option<BegunAnswer>,
    before: Before,
    started: bool,
    ids_are_trusted: bool,
    lives: u32,
    faults: u32,
    /// The last worker, whose end has not been made up for yet.
    lost: Option<WorkerProcess>,
}

impl<'a> Serving<'a> {
    fn new(job: RunJob, services: &'a RunServices, last: OwnedPermit<TokenEvent>) -> Self {
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
            stops: None,
            answer: AnswerSoFar::default(),
            prompt_tokens: None,
            begun: None,
            before: Before::default(),
            started: false,
            ids_are_trusted: false,
            lives: 0,
            faults: 0,
            lost: None,
        }
    }

    /// Runs on this worker until the run has ended or the worker is lost.
    async fn live(&mut self, mut lease: Lease) -> Life {
        let granted_at = Instant::now();
        let Some(worker) = lease.begin_run() else {
            let error = GenerationError::Internal("a lease without a worker".to_owned());
            return Life::Over(Verdict::Failed(error), None);
        };
        if let Err(verdict) = self.start(worker) {
            lease.run_ended(WorkerAfter::Unproven);
            return Life::Over(verdict, None);
        }
        let request_id = self.job.request.id.to_string();
        worker
            .process
            .set_activity(Some("rkllm_run"), Some(request_id));
        let spec = self.spec(worker);
        let resumed = Resumption::of(self.lost.take(), worker, granted_at);
        let (metrics, request) = (&self.services.metrics, &self.job.request);
        let on_first_token = || {
            if let Some(resumed) = &resumed {
                resumed.report(request, metrics);
            }
        };
        let stops = self.stops.get_or_insert_with(|| {
            let own = worker.model.extra_stop.iter().cloned();
            StopStrings::new(request.stop.iter().cloned().chain(own))
        });
        let mut run = Run {
            id: self.job.run,
            stops,
            answer: &mut self.answer,
            prompt_tokens: &mut self.prompt_tokens,
            events: &self.job.events,
            last: &mut self.last,
            stalled: &mut self.stalled,
            complete: None,
            cut_off: &mut self.job.cut_off,
            total: self.total,
            deadlines: self.services.deadlines,
            metrics,
            on_first_token: &on_first_token,
        };
        let exchange = run.exchange(worker, spec).await;
        let complete = run.complete.take();
        match exchange {
            Exchange::NotStarted(error) => {
                lease.run_ended(WorkerAfter::Unproven);
                Life::Over(Verdict::Failed(error), None)
            }
            Exchange::Ended(end, abort) => {
                learn(worker, &end);
                let verdict = outcome::verdict(&end, abort, worker, &self.job.request).await;
                let verdict = self.at_the_context_limit(verdict, &end);
                let answered = matches!(verdict, Verdict::Finished { .. });
                // Given back before its reader learns of the end, so that the reader's next
                // request finds it.
                lease.run_ended(match (end.tainted, answered) {
                    (true, _) => WorkerAfter::Tainted,
                    (false, true) => WorkerAfter::Answered,
                    (false, false) => WorkerAfter::Unproven,
                });
                Life::Over(verdict, Some(end))
            }
            Exchange::Lost(loss, abort) => {
                let process = worker.process.clone();
                tracing::error!(request = %self.job.request.id, model = &*self.job.request.model,
                    pid = process.pid, cause = loss.cause, tokens = self.answer.tokens(), "run lost");
                lease.blame(loss.reason);
                // Kills the worker, if it lives, before anybody learns of it.
                drop(lease);
                match (abort, complete) {
                    // Nothing more was wanted of it.
                    (Some(abort), _) => Life::Over(outcome::aborted(abort), None),
                    (None, Some(Complete { reason, end })) => {
                        let flush = true;
                        Life::Over(Verdict::Finished { reason, flush }, Some(end))
                    }
                    (None, None) => Life::Lost { loss, process },
                }
            }
        }
    }

    /// Tells the reader that its turn has come, the first time.
    fn start(&mut self, worker: &Worker) -> Result<(), Verdict> {
        self.lives += 1;
        self.ids_are_trusted =
            worker.model.tokenizer_json.is_some() && worker.measured.tokenizer_agrees == Some(true);
        if self.started {
            return Ok(());
        }
        let request = &self.job.request;
        let not_applied = request.not_applied(worker.facts.per_run_parameters);
        if request.strict_parameters && !not_applied.is_empty() {
            return Err(Verdict::Failed(GenerationError::ParametersNotApplied {
                parameters: not_applied,
            }));
        }
        let started = TokenEvent::Started(RunStart { not_applied });
        if self.job.events.try_send(started).is_err() {
            return Err(Verdict::Silence);
        }
        self.started = true;
        Ok(())
    }

    fn spec(&self, worker: &Worker) -> RunSpec {
        let request = &self.job.request;
        let setting = self.services.deadlines.worker.prefill_per_token;
        RunSpec {
            run: self.job.run,
            prompt: request.prompt.to_string(),
            begun: self.begun.clone(),
            sampling: request.sampling,
            max_new_tokens: self.tokens_left(),
            prefill_per_token: worker.measured.prefill_per_token(setting),
        }
    }

    fn tokens_left(&self) -> Option<u32> {
        let budget = self.job.request.max_new_tokens?;
        Some(budget.saturating_sub(self.before.tokens))
    }

    /// Decides what a lost worker means for the request, and what the next one is given.
    fn prepare_next_life(&mut self, loss: Loss, process: WorkerProcess) -> Result<(), Verdict> {
        let request = &self.job.request;
        let (model, metrics) = (&request.model, &self.services.metrics);
        self.faults += u32::from(loss.is_fault);
        if self.faults >= POISON_FAULTS {
            return Err(Verdict::Failed(GenerationError::PoisonRequest {
                cause: loss.cause,
            }));
        }
        if self.lives >= MOST_LIVES {
            return Err(Verdict::Failed(GenerationError::WorkerDied {
                cause: loss.cause,
            }));
        }
        self.answer.roll_back();
        let refused = |name, reason| {
            metrics.resume_refused(model, name);
            Err(Verdict::Failed(GenerationError::AnswerInterrupted {
                cause: loss.cause.clone(),
                reason,
            }))
        };
        let begun = match self.answer.begun(self.ids_are_trusted) {
            Ok(begun) => begun,
            Err(Inexact::ReplacedBytes) => {
                return refused(
                    "not-text",
                    "the runtime gave bytes for it that are not UTF-8",
                );
            }
            Err(Inexact::SwallowedToken) => {
                return refused(
                    "special-token",
                    "the runtime did not print a special token that is part of it",
                );
            }
        };
        if begun.is_some() && !request.resume {
            return refused("switched-off", "resuming is switched off for it");
        }
        self.before.tokens = self.answer.tokens();
        if begun.is_some() && self.tokens_left() == Some(0) {
            return Err(Verdict::Finished {
                reason: FinishReason::Length,
                flush: true,
            });
        }
        match &begun {
            Some(begun) => {
                self.before.resumptions += 1;
                metrics.run_resumed(model);
                tracing::warn!(request = %request.id, model = &**model, tokens = self.before.tokens,
                    text_bytes = begun.text.len(), by_tokens = begun.token_ids.is_some(), "resuming an answer");
            }
            None => {
                metrics.run_repeated(model);
                tracing::warn!(request = %request.id, model = &**model, "running a request again");
            }
        }
        self.begun = begun;
        self.lost = Some(process);
        Ok(())
    }

    /// Waits for another worker, before everybody else who waits for one.
    async fn next_worker(&mut self) -> Result<Lease, Verdict> {
        let model = ModelId::clone(&self.job.request.model);
        tokio::select! {
            biased;
            () = self.job.events.closed() => Err(outcome::aborted(Abort::Cancelled)),
            _ = self.job.cut_off.wait_for(|cut_off| *cut_off) => {
                Err(Verdict::Failed(GenerationError::ShuttingDown))
            }
            limit = total_passed(self.total) => {
                self.services.metrics.deadline_passed("total");
                Err(Verdict::Failed(GenerationError::DeadlineExceeded { deadline: "total", limit }))
            }
            lease = self.services.supervisor.lease(model, Turn::First) => {
                lease.map_err(Verdict::Failed)
            }
        }
    }

    /// What has been begun and does not fit any more is as long as it can be.
    fn at_the_context_limit(&self, verdict: Verdict, end: &RunEnd) -> Verdict {
        let does_not_fit = matches!(
            (&verdict, &end.outcome),
            (
                Verdict::Failed(GenerationError::ContextLengthExceeded { .. }),
                RunOutcome::ContextLengthExceeded { .. } | RunOutcome::Refused { .. }
            )
        );
        if does_not_fit && self.before.tokens > 0 {
            return Verdict::Finished {
                reason: FinishReason::Length,
                flush: true,
            };
        }
        verdict
    }

    fn finish(
        &mut self,
        reason: FinishReason,
        flush: bool,
        end: Option<&RunEnd>,
        tail: OwnedPermit<TokenEvent>,
    ) {
        let Some(last) = self.last.take() else {
            return;
        };
        let held_back = self.stops.as_mut().map(StopStrings::finish);
        if let Some(text) = held_back.filter(|text| flush && !text.is_empty()) {
            tail.send(TokenEvent::Text(TextDelta { text }));
        }
        let tokens = match end {
            Some(end) => self.before.tokens.saturating_add(end.generated_tokens),
            None => self.answer.tokens(),
        };
        let completion = outcome::completion(
            end,
            reason,
            self.prompt_tokens,
            tokens,
            self.before,
            self.waited,
        );
        last.send(TokenEvent::Finished(Box::new(completion)));
    }
}

/// Takes in what a run told about its model.
fn learn(worker: &mut Worker, end: &RunEnd) {
    worker.measured.tokenizer(end.tokenizer_agrees);
    let Some(perf) = &end.perf else { return };
    let duration = |ms: f32| Duration::try_from_secs_f32(ms / 1000.0);
    if let Ok(took) = duration(perf.prefill_ms) {
        worker.measured.prefill(perf.prefill_tokens, took);
    }
    if let Ok(took) = duration(perf.generate_ms) {
        worker.measured.decode(perf.generate_tokens, took);
    }
}

/// How long a reader had to wait because of a lost worker.
struct Resumption {
    exited_at: Instant,
    granted_at: Instant,
    load_time: Duration,
    pid: u32,
}

impl Resumption {
    /// The old worker has ended by now: its successor could not be started before.
    fn of(lost: Option<WorkerProcess>, worker: &Worker, granted_at: Instant) -> Option<Self> {
        Some(Self {
            exited_at: lost?.exit_report()?.at,
            granted_at,
            load_time: worker.load_time,
            pid: worker.process.pid,
        })
    }

    /// Called at the first token that the new worker makes.
    fn report(&self, request: &GenerationRequest, metrics: &Metrics) {
        let waited = self.granted_at.saturating_duration_since(self.exited_at);
        let beyond_load = waited.saturating_sub(self.load_time);
        metrics.resume_gap(&request.model, self.exited_at.elapsed().as_secs_f64());
        metrics.resume_overhead(&request.model, beyond_load.as_secs_f64());
        tracing::info!(request = %request.id, model = &*request.model, pid = self.pid,
            gap_ms = self.exited_at.elapsed().as_millis(), load_ms = self.load_time.as_millis(),
            prefill_ms = self.granted_at.elapsed().as_millis(),
            beyond_us = beyond_load.as_micros(), "the answer goes on");
    }
}
