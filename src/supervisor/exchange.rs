//! One run on one worker: the prompt goes over, tokens come back, until the run has ended or the
//! worker is of no more use.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer_so_far::AnswerSoFar;
use super::connection::ConnectionError;
use super::deadline_name::deadline_name;
use super::exit_report::EndReason;
use super::loading::Worker;
use super::outcome::Abort;
use super::run_guard::Guard;
use crate::generation::{FinishReason, GenerationError, StopStrings, TextDelta, TokenEvent};
use crate::ipc::{
    AbortMode, Command, Event, RunEnd, RunOutcome, RunSpec, TokenKind, WorkerDeadlines,
};
use crate::telemetry::Metrics;

/// How long a lost worker's exit status is waited for.
const EXIT_STATUS_WAIT: Duration = Duration::from_secs(5);

/// The waits of the daemon's side of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunDeadlines {
    pub worker: WorkerDeadlines,
    /// A worker that is not heard of for this long is not even scheduled.
    pub heartbeat: Duration,
    /// How long a reader may hold its run up in all.
    pub slow_reader: Duration,
}

/// How the exchange ended.
pub(super) enum Exchange {
    /// The prompt was never handed over.
    NotStarted(GenerationError),
    Ended(Box<RunEnd>, Option<Abort>),
    /// The worker is of no more use. `Abort`: the run was being ended anyway. See also
    /// `Run::complete`.
    Lost(Loss, Option<Abort>),
}

/// A worker lost in the middle of a run.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// For the client and the log.
    pub cause: String,
    /// Whether the request may be to blame.
    pub is_fault: bool,
    /// Why we end the process, if it has not ended by itself.
    pub reason: EndReason,
}

/// The abort that was asked for while a run goes on.
impl Abort {
    /// Whether the counts of what was generated are still wanted.
    fn mode(&self) -> AbortMode {
        match self {
            Self::StopString => AbortMode::BetweenTokens,
            Self::Cancelled | Self::Failed(_) => AbortMode::AtOnce,
        }
    }

    fn total(limit: Duration) -> Self {
        Self::Failed(GenerationError::DeadlineExceeded {
            deadline: "total",
            limit,
        })
    }
}

/// What one run works on.
pub(super) struct Run<'a> {
    pub id: u64,
    pub stops: &'a mut StopStrings,
    pub answer: &'a mut AnswerSoFar,
    /// The prompt's tokens, once a tokenizer has counted them.
    pub prompt_tokens: &'a mut Option<u32>,
    pub events: &'a mpsc::Sender<TokenEvent>,
    /// The place of the reader's last event, until it is told of an error.
    pub last: &'a mut Option<OwnedPermit<TokenEvent>>,
    /// How long the reader has held the run up.
    pub stalled: &'a mut Duration,
    /// What is known of an answer that had all its tokens before its run ended.
    pub complete: Option<Complete>,
    pub cut_off: &'a mut watch::Receiver<bool>,
    pub total: Option<Total>,
    pub deadlines: RunDeadlines,
    pub metrics: &'a Metrics,
    /// Called at the first token.
    pub on_first_token: &'a (dyn Fn() + Sync),
}

/// An answer that had all its tokens before its run ended.
pub(super) struct Complete {
    pub reason: FinishReason,
    /// Without any figure of the runtime.
    pub end: Box<RunEnd>,
}

/// A request's deadline as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    pub at: Instant,
    pub limit: Duration,
}

/// Waits for it; for ever where there is none.
pub(super) async fn total_passed(total: Option<Total>) -> Duration {
    match total {
        Some(total) => {
            tokio::time::sleep_until(total.at.into()).await;
            total.limit
        }
        None => std::future::pending().await,
    }
}

impl Run<'_> {
    pub async fn exchange(&mut self, worker: &mut Worker, spec: RunSpec) -> Exchange {
        let begun_bytes = spec.begun.as_ref().map_or(0, |begun| begun.text.len());
        let (per_token, bytes) = (spec.prefill_per_token, spec.prompt.len() + begun_bytes);
        let prefill = self.deadlines.worker.prefill(per_token, bytes, None);
        // What was printed before belongs to other calls.
        worker.lines.take().await;
        match self.send(worker, Command::Run(Box::new(spec))).await {
            Ok(()) => {}
            Err(ConnectionError::Frame(error)) => {
                return Exchange::NotStarted(GenerationError::Internal(error.to_string()));
            }
            Err(error) => return Exchange::Lost(lost(worker, error).await, None),
        }
        let mut abort: Option<Abort> = None;
        let mut guard = Guard::new("prefill", prefill, self.deadlines.heartbeat);
        let mut has_token = false;
        loop {
            // Events that are already here must not keep these waiting.
            if abort.is_none()
                && let Some(reason) = self.cut_short()
            {
                if self.complete.is_some() {
                    return Exchange::Lost(overdue(), None);
                }
                if let Err(error) = self.abort(worker, &reason, &mut guard).await {
                    return Exchange::Lost(lost(worker, error).await, Some(reason));
                }
                abort = Some(reason);
            }
            let event = match worker.connection.buffered_event() {
                Ok(Some(event)) => Ok(event),
                Err(error) => Err(error),
                Ok(None) => match self.wait(worker, &mut guard, abort.is_some()).await {
                    Waited::Event(event) => event,
                    Waited::Expired(name, limit) => {
                        return Exchange::Lost(self.expired(name, limit, "rkllm_run"), abort);
                    }
                    Waited::Abort(Abort::Failed(_)) if self.complete.is_some() => {
                        return Exchange::Lost(overdue(), None);
                    }
                    Waited::Abort(reason) => {
                        if let Err(error) = self.abort(worker, &reason, &mut guard).await {
                            return Exchange::Lost(lost(worker, error).await, Some(reason));
                        }
                        abort = Some(reason);
                        continue;
                    }
                },
            };
            guard.heard();
            match event {
                Err(error) => return Exchange::Lost(lost(worker, error).await, abort),
                Ok(Event::Token {
                    run,
                    kind,
                    id,
                    text,
                }) if run == self.id => {
                    if abort.is_some() {
                        continue;
                    }
                    if !has_token {
                        has_token = true;
                        (self.on_first_token)();
                    }
                    abort = self.deliver(kind, id, &text).await;
                    guard.progress("inter-token", self.deadlines.worker.inter_token);
                    if let Some(reason) = &abort
                        && let Err(error) = self.abort(worker, reason, &mut guard).await
                    {
                        return Exchange::Lost(lost(worker, error).await, abort);
                    }
                }
                Ok(Event::AnswerComplete {
                    run,
                    reason,
                    generated_tokens,
                }) if run == self.id => {
                    self.complete = Some(Complete {
                        reason,
                        end: Box::new(end_of_complete(run, reason, generated_tokens)),
                    });
                    if abort.is_none() {
                        let limit = self.deadlines.worker.abort_to_finish;
                        guard.progress("abort-to-finish", limit);
                    }
                }
                Ok(Event::RunEnded(end)) if end.run == self.id => {
                    return Exchange::Ended(end, abort);
                }
                Ok(Event::PromptCounted { run, tokens }) if run == self.id => {
                    *self.prompt_tokens = Some(tokens);
                    if !has_token && abort.is_none() {
                        let in_all = tokens.saturating_add(self.answer.tokens());
                        let worker_deadlines = &self.deadlines.worker;
                        guard.set_limit(worker_deadlines.prefill(per_token, bytes, Some(in_all)));
                    }
                }
                Ok(Event::Heartbeat) => {}
                Ok(Event::Tainted {
                    deadline,
                    limit,
                    call,
                }) => {
                    let name = deadline_name(&deadline);
                    self.metrics.deadline_passed(name);
                    let (pid, limit_ms) = (worker.process.pid, limit.as_millis());
                    tracing::error!(
                        pid,
                        deadline = name,
                        limit_ms,
                        call,
                        "deadline passed beside a run, which goes on"
                    );
                }
                Ok(Event::DeadlinePassed {
                    deadline,
                    limit,
                    call,
                }) => {
                    return Exchange::Lost(
                        self.expired(deadline_name(&deadline), limit, &call),
                        abort,
                    );
                }
                Ok(other) => {
                    tracing::warn!(pid = worker.process.pid, ?other, "unexpected event");
                }
            }
        }
    }

    async fn wait(&mut self, worker: &mut Worker, guard: &mut Guard, aborting: bool) -> Waited {
        tokio::select! {
            // First, because what has arrived is newer than the clock.
            biased;
            event = worker.connection.next_event() => Waited::Event(event),
            () = self.events.closed(), if !aborting => Waited::Abort(Abort::Cancelled),
            _ = self.cut_off.wait_for(|cut_off| *cut_off), if !aborting => {
                Waited::Abort(Abort::Failed(GenerationError::ShuttingDown))
            }
            limit = total_passed(self.total), if !aborting => Waited::Abort(Abort::total(limit)),
            (name, limit) = guard.expired() => Waited::Expired(name, limit),
        }
    }

    /// A deadline that only killing the worker can end.
    fn expired(&self, name: &'static str, limit: Duration, call: &str) -> Loss {
        self.metrics.deadline_passed(name);
        let reason = EndReason::Deadline(name);
        Loss {
            cause: format!(
                "the `{name}` deadline of {} ms passed in {call}",
                limit.as_millis()
            ),
            is_fault: reason.is_fault(),
            reason,
        }
    }

    /// Why the run must be ended now, whatever the worker does.
    fn cut_short(&self) -> Option<Abort> {
        if *self.cut_off.borrow() {
            return Some(Abort::Failed(GenerationError::ShuttingDown));
        }
        let total = self.total.filter(|total| total.at <= Instant::now())?;
        Some(Abort::total(total.limit))
    }

    /// Asks the worker to end the run. A reader that gets an error gets it now: the library may
    /// take its time.
    async fn abort(
        &mut self,
        worker: &mut Worker,
        reason: &Abort,
        guard: &mut Guard,
    ) -> Result<(), ConnectionError> {
        if let Abort::Failed(error) = reason
            && let Some(last) = self.last.take()
        {
            if let GenerationError::DeadlineExceeded { deadline, .. } = error {
                self.metrics.deadline_passed(deadline);
            }
            last.send(TokenEvent::Failed(error.clone()));
        }
        guard.progress("abort-to-finish", self.deadlines.worker.abort_to_finish);
        let (run, mode) = (self.id, reason.mode());
        self.send(worker, Command::Abort { run, mode }).await
    }

    /// A worker reads its commands at once; one that does not is stopped or broken.
    async fn send(&self, worker: &mut Worker, command: Command) -> Result<(), ConnectionError> {
        let limit = self.deadlines.heartbeat;
        match timeout(limit, worker.connection.send(&command)).await {
            Ok(sent) => sent,
            Err(_) => Err(ConnectionError::NotRead { limit }),
        }
    }

    /// Passes text on to the reader. Returns why the run must be aborted, if it must.
    async fn deliver(&mut self, kind: TokenKind, id: Option<i32>, text: &str) -> Option<Abort> {
        self.answer.push(kind, id, text);
        let (sendable, stopped) = self.stops.push(text);
        if !sendable.is_empty() {
            let event = TokenEvent::Text(TextDelta { text: sendable });
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => return Some(Abort::Cancelled),
                Err(TrySendError::Full(event)) => {
                    if let Err(abort) = self.deliver_slowly(event).await {
                        return Some(abort);
                    }
                }
            }
        }
        stopped.then_some(Abort::StopString)
    }

    /// The worker's own queue fills up behind this and its callback waits.
    async fn deliver_slowly(&mut self, event: TokenEvent) -> Result<(), Abort> {
        let since = Instant::now();
        let patience = self.deadlines.slow_reader.saturating_sub(*self.stalled);
        let result = tokio::select! {
            sent = timeout(patience, self.events.send(event)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Abort::Cancelled),
                Err(_) => Err(Abort::Failed(GenerationError::SlowReader {
                    stalled: self.deadlines.slow_reader,
                })),
            },
            limit = total_passed(self.total) => Err(Abort::total(limit)),
            _ = self.cut_off.wait_for(|cut_off| *cut_off) => {
                Err(Abort::Failed(GenerationError::ShuttingDown))
            }
        };
        *self.stalled += since.elapsed();
        result
    }
}

fn end_of_complete(run: u64, reason: FinishReason, generated_tokens: u32) -> RunEnd {
    RunEnd {
        run,
        outcome: RunOutcome::Finished(reason),
        generated_tokens,
        prompt_tokens: None,
        cached_prompt_tokens: None,
        perf: None,
        tokenizer_agrees: None,
        tainted: true,
    }
}

/// A worker that did not end its run before the answer, which it had completed, was due.
fn overdue() -> Loss {
    Loss {
        cause: "the runtime did not end a complete answer's run in time".to_owned(),
        is_fault: false,
        reason: EndReason::Cancelled,
    }
}

enum Waited {
    Event(Result<Event, ConnectionError>),
    Abort(Abort),
    Expired(&'static str, Duration),
}

/// Explains a connection that failed in the middle of a run.
async fn lost(worker: &Worker, error: ConnectionError) -> Loss {
    let ended = match &error {
        ConnectionError::Closed | ConnectionError::Io(_) => {
            timeout(EXIT_STATUS_WAIT, worker.process.exited())
                .await
                .ok()
                .flatten()
        }
        ConnectionError::NotRead { .. } => {
            return Loss {
                cause: error.to_string(),
                is_fault: false,
                reason: EndReason::Deadline("heartbeat"),
            };
        }
        _ => None,
    };
    match ended {
        Some(report) => Loss {
            cause: format!("the worker {report}"),
            is_fault: report.cause.is_fault(),
            reason: EndReason::Cancelled,
        },
        None => Loss {
            cause: error.to_string(),
            is_fault: true,
            reason: EndReason::Tainted,
        },
    }
}
