//! One run of a request on one worker, from the lease to what it came to.

use std::sync::Arc;
use std::time::Instant;

use super::Serving;
use super::constrained::Followed;
use super::next_attempt::count_made_otherwise;
use super::resumption::Resumption;
use crate::children::ChildProcess;
use crate::generation::{
    Abilities, Deadline, DrawRequest, Fingerprint, GenerationError, ReplyEvent, RunStart,
    StopStrings,
};
use crate::ipc::{BegunAnswer, RunEnd, RunOutcome, RunSpec, SlotCommand};
use crate::supervisor::adapters;
use crate::supervisor::drive::{Ended, Limits, Loss, Lost, Outer, Stop, drive};
use crate::supervisor::lease::{Lease, WorkerAfter};
use crate::supervisor::link::TOKEN_CREDIT;
use crate::supervisor::outcome::{self, Outcome};
use crate::supervisor::probe::Suspicion;
use crate::supervisor::reading::Reading;
use crate::supervisor::text_sink::{Complete, Prefill, PromptLogprobs, TextSink};
use crate::supervisor::worker::Worker;

/// What came of one attempt.
pub(super) enum Attempt {
    /// The lease is given back by then.
    Over(Outcome, Option<Box<RunEnd>>),
    Lost {
        loss: Loss,
        process: ChildProcess,
    },
    /// There is another run of it: behind a closed thought, or alone. On this worker where there is one.
    GoesOn(Option<Lease>),
}

impl Serving<'_> {
    /// Runs on this worker until the run has ended or the worker is lost.
    pub(super) async fn attempt(&mut self, lease: Lease) -> Attempt {
        let granted_at = Instant::now();
        let worker = lease.worker();
        let runtime = worker.abilities();
        if let Err(outcome) = self.start(worker, runtime) {
            return Attempt::Over(outcome, None);
        }
        if self.reading.is_none() {
            let request = &self.job.request;
            let own = worker.model.facts.extra_stop.iter().cloned();
            let stops = StopStrings::new(request.stop.iter().cloned().chain(own));
            let reading = self.reading.insert(Reading::new(
                stops,
                request.reply.as_ref(),
                request.draws.logprobs.is_some(),
            ));
            // The prompt has opened a thought that may have no token.
            if reading.thought_is_used_up()
                && let Err(outcome) = self.close_thought()
            {
                return Attempt::Over(outcome, None);
            }
        }
        let followed = match self.followed(worker, runtime).await {
            Ok(followed) => followed,
            Err(outcome) => return Attempt::Over(outcome, None),
        };
        let is_followed = !followed.is_nothing();
        let spec = self.spec(worker, followed);
        let is_in_batch = worker.facts.is_batch;
        let (deadlines, prefill) = (worker.deadlines, Prefill::of(&spec, worker.slots()));
        let prefill = prefill.in_batch(lease.batch_bytes());
        let resumed = Resumption::of(self.lost.take(), worker, granted_at);
        let (metrics, request) = (&self.services.metrics, &self.job.request);
        let on_first_token = || {
            if let Some(resumed) = &resumed {
                resumed.report(request, metrics);
            }
        };
        let on_difference = || count_made_otherwise(request, metrics);
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
        // What waits already comes before what is made now.
        let waits_for_none = is_in_batch || !self.unread.is_empty();
        let unread = self.unread.waits_for(deadlines.slow_reader);
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
            on_difference: &on_difference,
            has_token: false,
            has_new: false,
            repeated: &mut self.repeated,
            waiting: None,
            unread: waits_for_none.then_some(unread),
            prompt_logprobs: PromptLogprobs {
                told: &mut self.prompt_logprobs,
                in_attempt: 0,
            },
            logprobs: None,
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
                if is_followed {
                    over.running.worker().is_told_tokens();
                }
                let stop = over.stop.take();
                // A prompt that was not taken may be longer than anything a slot holds.
                let is_kept = !over.running.worker().facts.is_batch;
                if over.end.outcome.has_run() && is_kept {
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
                if let Some(redraws) = &over.end.redraws {
                    let (metrics, model) = (&self.services.metrics, &self.job.request.model);
                    metrics.redrawn(model, redraws);
                    let before = self.redrawn.take();
                    self.redrawn = Some(before.map_or(*redraws, |before| before.and(*redraws)));
                    self.prefilled += u64::from(redraws.evaluated_tokens.unwrap_or(0));
                }
                if matches!(stop, Some(Stop::ThoughtUsedUp)) {
                    let counted = over.end.prompt_tokens.zip(self.before.in_context);
                    let counted = counted.and_then(|(all, begun)| all.checked_sub(begun));
                    self.prompt_tokens = self.prompt_tokens.or(counted);
                    let after = over.after(false);
                    // Beside others of a batch it would be timed while it waits until these have ended.
                    let begins = !over.running.worker().facts.is_batch || over.running.was_alone();
                    let kept = over.running.ended(after).filter(|_| begins);
                    return match self.close_thought() {
                        Ok(()) => Attempt::GoesOn(kept),
                        Err(outcome) => Attempt::Over(outcome, None),
                    };
                }
                if let RunOutcome::Failed { reason } = &over.end.outcome
                    && stop.is_none()
                    && running.worker().facts.is_batch
                    && !running.was_alone()
                {
                    tracing::warn!(request = %self.job.request.id, reason, "its batch has failed");
                    let loss = Loss::of_batch(reason);
                    let process = running.worker().process.clone();
                    over.running.ended(WorkerAfter::Tainted);
                    return Attempt::Lost { loss, process };
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
                let outcome = self.at_an_end_before_its_time(outcome);
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
                        let outcome = Outcome::Finished { reason, flush };
                        Attempt::Over(self.at_an_end_before_its_time(outcome), Some(end))
                    }
                    (None, None) => Attempt::Lost { loss, process },
                }
            }
        }
    }

    /// Tells the reader that its turn has come, the first time.
    fn start(&mut self, worker: &Worker, runtime: Abilities) -> Result<(), Outcome> {
        let request = &self.job.request;
        let goes_by_tokens = request.goes_by_tokens || request.is_redrawn(runtime);
        self.ids_are_trusted = request.prompt_tokens.is_some()
            && (goes_by_tokens || worker.measured().tokenizer_agrees == Some(true));
        if self.started {
            return self.check_repeats_with(worker);
        }
        let request = &self.job.request;
        request.check_runtime(runtime).map_err(Outcome::Failed)?;
        let not_applied = request.not_applied(runtime);
        if request.strict_parameters && !not_applied.is_empty() {
            return Err(Outcome::Failed(GenerationError::ParametersNotApplied {
                parameters: not_applied,
            }));
        }
        self.repeats = request.repeats(&not_applied);
        self.fingerprint = self.fingerprint_of(worker, self.repeats);
        let started = ReplyEvent::Started(RunStart {
            not_applied,
            fingerprint: self.fingerprint.clone(),
            reads_logits: request.reads_logits(runtime),
            has_loaded_penalties: request.has_loaded_penalties(runtime),
        });
        if self.job.events.try_send(started).is_err() {
            return Err(Outcome::Silence);
        }
        self.started = true;
        Ok(())
    }

    /// What was begun with one model and library is not made once more with others.
    fn check_repeats_with(&self, worker: &Worker) -> Result<(), Outcome> {
        if !self.repeats || self.answer.tokens() == 0 {
            return Ok(());
        }
        let not_applied = self.job.request.not_applied(worker.abilities());
        let repeats = self.job.request.repeats(&not_applied);
        match self.fingerprint_of(worker, repeats) == self.fingerprint {
            true => Ok(()),
            false => Err(self.not_repeated()),
        }
    }

    fn fingerprint_of(&self, worker: &Worker, repeats: bool) -> Option<Fingerprint> {
        let adapter = self.job.request.adapter.as_ref();
        let stamp = adapter.and_then(|adapter| adapters::stamp(worker, &adapter.name));
        worker.facts.fingerprint(repeats, stamp.as_deref())
    }

    fn spec(&self, worker: &Worker, followed: Followed) -> RunSpec {
        let request = &self.job.request;
        RunSpec {
            run: self.job.run,
            prompt: request.prompt.to_string(),
            adapter: request.adapter.as_ref().map(|it| Arc::clone(&it.name)),
            prompt_tokens: request.prompt_tokens.clone(),
            begun: self.begun.clone().or_else(|| self.nothing_begun()),
            sampling: request.sampling,
            draws: self.draws(),
            constraint: followed.constraint,
            redraws: followed.redraws,
            vocabulary: followed.vocabulary,
            max_new_tokens: self.tokens_left(),
            prefill_per_token: worker.prefill_per_token(),
            credit: match worker.facts.is_batch {
                // Its callback cannot wait for one of its runs: there is room for a whole answer.
                true => TOKEN_CREDIT.saturating_add(worker.facts.context_length.unwrap_or(0)),
                false => TOKEN_CREDIT,
            },
            save: None,
        }
    }

    /// Behind an answer of no tokens, whose tokens are known, a prompt goes by its tokens.
    fn nothing_begun(&self) -> Option<BegunAnswer> {
        let goes_by_tokens = self.job.request.goes_by_tokens;
        goes_by_tokens.then(|| BegunAnswer {
            text: String::new(),
            token_ids: Some(Vec::new()),
            tokens: Some(0),
        })
    }

    /// What is gone on with has been told of its prompt.
    fn draws(&self) -> DrawRequest {
        let mut draws = self.job.request.draws.clone();
        if let Some(logprobs) = &mut draws.logprobs {
            logprobs.of_prompt &= self.begun.is_none();
        }
        draws
    }
}
