//! One run on a leased worker, from handing over the prompt to the last event.
//!
//! Whatever happens, the reader gets exactly one final event (its place in the channel is reserved
//! before the run starts), and the worker is either idle again or dead.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;
use tokio::time::timeout;

use super::connection::ConnectionError;
use super::lease::Lease;
use super::loading::{GUARD_SLACK, Worker};
use super::run_guard::Guard;
use super::runtime_lines;
use crate::generation::{
    Completion, FinishReason, GenerationError, GenerationRequest, RunStart, StopStrings, TextDelta,
    Timings, TokenEvent, Usage,
};
use crate::ipc::{
    AbortMode, Command, Event, PerfFigures, RunEnd, RunOutcome, RunSpec, WorkerDeadlines,
};

/// How long a lost worker's exit status is waited for.
const EXIT_STATUS_WAIT: Duration = Duration::from_secs(5);

/// A request whose turn has come.
#[derive(Debug)]
pub struct RunJob {
    /// Unique in the daemon's life.
    pub run: u64,
    pub request: GenerationRequest,
    pub events: mpsc::Sender<TokenEvent>,
    pub submitted_at: Instant,
    /// Requests that were to be served before this one when it entered the queue.
    pub queue_position: u32,
    /// Becomes true when the daemon stops waiting for running answers.
    pub cut_off: watch::Receiver<bool>,
}

/// The waits of the daemon's side of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunDeadlines {
    pub worker: WorkerDeadlines,
    pub slow_reader: Duration,
}

/// Why a run is being aborted.
enum Abort {
    /// Nobody reads any more.
    Cancelled,
    StopString,
    Failed(GenerationError),
}

impl Abort {
    /// Whether the counts of what was generated are still wanted.
    fn mode(&self) -> AbortMode {
        match self {
            Self::StopString => AbortMode::BetweenTokens,
            Self::Cancelled | Self::Failed(_) => AbortMode::AtOnce,
        }
    }
}

/// Whether a request was answered to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    Whole,
    /// Refused, lost, failed or cancelled.
    CutShort,
}

/// How the exchange with the worker ended.
enum Exchange {
    /// The prompt was never handed over.
    NotStarted(GenerationError),
    Ended(Box<RunEnd>, Option<Abort>),
    /// The worker is of no more use; the lease kills it.
    Lost(GenerationError),
}

/// Serves `job` and gives the lease back.
pub async fn serve(mut lease: Lease, mut job: RunJob, deadlines: RunDeadlines) -> Served {
    // The last event and, before it, text that was held back: they must not wait for a slow reader,
    // because the worker would wait with them.
    let (Ok(last), Ok(tail)) = (
        job.events.clone().try_reserve_owned(),
        job.events.clone().try_reserve_owned(),
    ) else {
        return Served::CutShort;
    };
    let queue_ms = job.submitted_at.elapsed().as_secs_f32() * 1000.0;
    let Some(worker) = lease.begin_run() else {
        return Served::CutShort;
    };
    let not_applied = job.request.not_applied(worker.facts.per_run_parameters);
    if job.request.strict_parameters && !not_applied.is_empty() {
        lease.run_ended();
        last.send(TokenEvent::Failed(GenerationError::ParametersNotApplied {
            parameters: not_applied,
        }));
        return Served::CutShort;
    }
    if job
        .events
        .try_send(TokenEvent::Started(RunStart { not_applied }))
        .is_err()
    {
        lease.run_ended();
        return Served::CutShort;
    }
    let mut run = Run {
        stops: StopStrings::new(
            job.request
                .stop
                .iter()
                .chain(&worker.model.extra_stop)
                .cloned(),
        ),
        events: &job.events,
        cut_off: &mut job.cut_off,
        id: job.run,
        deadlines,
    };
    let exchange = run.exchange(worker, &job.request).await;
    let held_back = run.stops.finish();
    match exchange {
        Exchange::NotStarted(error) => {
            lease.run_ended();
            drop(lease);
            last.send(TokenEvent::Failed(error));
            Served::CutShort
        }
        Exchange::Lost(error) => {
            tracing::error!(request = %job.request.id, model = &*job.request.model, %error, "run lost");
            // Kills the worker before the reader learns of it.
            drop(lease);
            last.send(TokenEvent::Failed(error));
            Served::CutShort
        }
        Exchange::Ended(end, abort) => {
            let final_event = match outcome(&end, abort, worker, &job.request).await {
                Err(error) => TokenEvent::Failed(error),
                Ok(None) => {
                    release(lease, &end);
                    return Served::CutShort;
                }
                Ok(Some((reason, flush))) => {
                    if flush && !held_back.is_empty() {
                        tail.send(TokenEvent::Text(TextDelta { text: held_back }));
                    }
                    TokenEvent::Finished(Box::new(completion(
                        &end,
                        reason,
                        queue_ms,
                        job.queue_position,
                    )))
                }
            };
            release(lease, &end);
            let served = match &final_event {
                TokenEvent::Finished(_) => Served::Whole,
                _ => Served::CutShort,
            };
            last.send(final_event);
            served
        }
    }
}

/// Gives the worker back before its reader learns of the end, so that the reader's next request
/// finds it; or kills it, when it has said that it must not be used again.
fn release(mut lease: Lease, end: &RunEnd) {
    if !end.tainted {
        lease.run_ended();
    }
}

struct Run<'a> {
    id: u64,
    stops: StopStrings,
    events: &'a mpsc::Sender<TokenEvent>,
    cut_off: &'a mut watch::Receiver<bool>,
    deadlines: RunDeadlines,
}

impl Run<'_> {
    async fn exchange(&mut self, worker: &mut Worker, request: &GenerationRequest) -> Exchange {
        let spec = RunSpec {
            run: self.id,
            prompt: request.prompt.to_string(),
            sampling: request.sampling,
            max_new_tokens: request.max_new_tokens,
            begun: None,
            prefill_per_token: self.deadlines.worker.prefill_per_token,
        };
        let prefill =
            self.deadlines
                .worker
                .prefill(spec.prefill_per_token, spec.prompt.len(), None);
        // What was printed before belongs to other calls.
        worker.lines.take().await;
        match self.send(worker, Command::Run(Box::new(spec))).await {
            Ok(()) => {}
            Err(ConnectionError::Frame(error)) => {
                return Exchange::NotStarted(GenerationError::Internal(error.to_string()));
            }
            Err(error) => return lost(worker, error).await,
        }
        let mut abort: Option<Abort> = None;
        let mut guard = Guard::new("prefill", prefill);
        loop {
            let event = match worker.connection.buffered_event() {
                Ok(Some(event)) => Ok(event),
                Err(error) => Err(error),
                Ok(None) => {
                    let reason = tokio::select! {
                        // First, because what has arrived is newer than the clock.
                        biased;
                        event = worker.connection.next_event() => Ok(event),
                        () = self.events.closed(), if abort.is_none() => Err(Abort::Cancelled),
                        _ = self.cut_off.wait_for(|cut_off| *cut_off), if abort.is_none() => {
                            Err(Abort::Failed(GenerationError::ShuttingDown))
                        }
                        expired = guard.expired() => return Exchange::Lost(expired),
                    };
                    match reason {
                        Ok(event) => event,
                        Err(reason) => {
                            if let Err(error) = self.abort(worker, &reason, &mut guard).await {
                                return lost(worker, error).await;
                            }
                            abort = Some(reason);
                            continue;
                        }
                    }
                }
            };
            match event {
                Err(error) => return lost(worker, error).await,
                Ok(Event::Token { run, text, .. }) if run == self.id => {
                    if abort.is_some() {
                        continue;
                    }
                    abort = self.deliver(&text).await;
                    guard.progress("inter-token", self.deadlines.worker.inter_token);
                    if let Some(reason) = &abort
                        && let Err(error) = self.abort(worker, reason, &mut guard).await
                    {
                        return lost(worker, error).await;
                    }
                }
                Ok(Event::RunEnded(end)) if end.run == self.id => {
                    return Exchange::Ended(end, abort);
                }
                Ok(Event::DeadlinePassed {
                    deadline,
                    limit,
                    call,
                }) => {
                    tracing::error!(
                        pid = worker.process.pid,
                        deadline,
                        call,
                        "deadline passed in a worker"
                    );
                    return Exchange::Lost(GenerationError::DeadlineExceeded {
                        deadline: deadline_name(&deadline),
                        limit,
                    });
                }
                Ok(other) => tracing::warn!(pid = worker.process.pid, ?other, "unexpected event"),
            }
        }
    }

    async fn abort(
        &self,
        worker: &mut Worker,
        reason: &Abort,
        guard: &mut Guard,
    ) -> Result<(), ConnectionError> {
        guard.progress("abort-to-finish", self.deadlines.worker.abort_to_finish);
        let (run, mode) = (self.id, reason.mode());
        self.send(worker, Command::Abort { run, mode }).await
    }

    /// A worker reads its commands at once; one that does not is stopped or broken.
    async fn send(&self, worker: &mut Worker, command: Command) -> Result<(), ConnectionError> {
        let limit = self.deadlines.worker.control_call + GUARD_SLACK;
        match timeout(limit, worker.connection.send(&command)).await {
            Ok(sent) => sent,
            Err(_) => Err(ConnectionError::NotRead { limit }),
        }
    }

    /// Passes text on to the reader. Returns why the run must be aborted, if it must.
    async fn deliver(&mut self, text: &str) -> Option<Abort> {
        let (sendable, stopped) = self.stops.push(text);
        if !sendable.is_empty() {
            let event = TokenEvent::Text(TextDelta { text: sendable });
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => return Some(Abort::Cancelled),
                Err(TrySendError::Full(event)) => {
                    // The worker's own queue fills up behind this and its callback waits.
                    match timeout(self.deadlines.slow_reader, self.events.send(event)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Some(Abort::Cancelled),
                        Err(_) => {
                            return Some(Abort::Failed(GenerationError::SlowReader {
                                stalled: self.deadlines.slow_reader,
                            }));
                        }
                    }
                }
            }
        }
        stopped.then_some(Abort::StopString)
    }
}

/// Explains a connection that failed in the middle of a run.
async fn lost(worker: &mut Worker, error: ConnectionError) -> Exchange {
    let cause = match &error {
        ConnectionError::Closed | ConnectionError::Io(_) => {
            match timeout(EXIT_STATUS_WAIT, worker.process.exited()).await {
                Ok(Some(report)) => report.to_string(),
                _ => error.to_string(),
            }
        }
        _ => error.to_string(),
    };
    Exchange::Lost(GenerationError::WorkerDied { cause })
}

/// What the reader is told: an error, nothing (it has gone), or a reason and whether text that was
/// held back for a stop string belongs to the answer.
async fn outcome(
    end: &RunEnd,
    abort: Option<Abort>,
    worker: &mut Worker,
    request: &GenerationRequest,
) -> Result<Option<(FinishReason, bool)>, GenerationError> {
    match abort {
        Some(Abort::Cancelled) => return Ok(None),
        Some(Abort::Failed(error)) => return Err(error),
        Some(Abort::StopString) => return Ok(Some((FinishReason::Stop, false))),
        None => {}
    }
    match &end.outcome {
        RunOutcome::Finished(reason) => Ok(Some((*reason, true))),
        RunOutcome::ContextLengthExceeded {
            prompt_tokens,
            limit_tokens,
        } => Err(GenerationError::ContextLengthExceeded {
            prompt_tokens: *prompt_tokens,
            limit_tokens: *limit_tokens,
        }),
        RunOutcome::Refused { reason } => {
            let lines = worker.lines.take().await;
            tracing::warn!(request = %request.id, reason, "the runtime refused a run");
            Err(match runtime_lines::prompt_too_long(&lines) {
                Some(long) => GenerationError::ContextLengthExceeded {
                    prompt_tokens: long.prompt_tokens,
                    limit_tokens: long.limit_tokens,
                },
                None => GenerationError::RunRefused {
                    request: request.id.to_string(),
                },
            })
        }
        RunOutcome::Failed { reason } => {
            tracing::error!(request = %request.id, reason, "the runtime failed in a run");
            Err(GenerationError::RunFailed {
                request: request.id.to_string(),
            })
        }
        RunOutcome::Aborted => Err(GenerationError::Internal(
            "the run was aborted although nobody asked for it".to_owned(),
        )),
    }
}

fn completion(
    end: &RunEnd,
    reason: FinishReason,
    queue_ms: f32,
    queue_position: u32,
) -> Completion {
    let perf = end.perf.as_ref();
    let per_second = |perf: &PerfFigures| {
        (perf.generate_ms > 0.0 && perf.generate_tokens > 0)
            .then(|| perf.generate_tokens as f32 * 1000.0 / perf.generate_ms)
    };
    Completion {
        reason,
        usage: end.prompt_tokens.map(|prompt_tokens| Usage {
            prompt_tokens,
            completion_tokens: end.generated_tokens,
            cached_prompt_tokens: end.cached_prompt_tokens,
        }),
        timings: Timings {
            prompt_n: perf.map(|perf| perf.prefill_tokens),
            prompt_ms: perf.map(|perf| perf.prefill_ms),
            predicted_n: Some(end.generated_tokens),
            predicted_ms: perf.map(|perf| perf.generate_ms),
            predicted_per_second: perf.and_then(per_second),
            runtime_memory_mb: perf.map(|perf| perf.memory_mb),
            queue_ms: Some(queue_ms),
            queue_position: Some(queue_position),
            resumptions: 0,
        },
    }
}

fn deadline_name(name: &str) -> &'static str {
    const NAMES: [&str; 6] = [
        "library-open",
        "load",
        "prefill",
        "inter-token",
        "control-call",
        "abort-to-finish",
    ];
    NAMES
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("worker")
}
