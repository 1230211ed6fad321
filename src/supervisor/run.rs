//! One run on a leased worker, from handing over the prompt to the last event.
//!
//! Whatever happens, the reader gets exactly one final event (its place in the channel is reserved
//! before the run starts), and the worker is either idle again or dead.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::timeout;

use super::connection::ConnectionError;
use super::lease::Lease;
use super::loading::Worker;
use super::run_guard::Guard;
use super::runtime_lines;
use crate::generation::{
    Completion, FinishReason, GenerationError, GenerationRequest, RunStart, StopStrings, TextDelta,
    Timings, TokenEvent, Usage,
};
use crate::ipc::{Command, Event, PerfFigures, RunEnd, RunOutcome, RunSpec, WorkerDeadlines};

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

/// How the exchange with the worker ended.
enum Exchange {
    Ended(Box<RunEnd>, Option<Abort>),
    /// The worker is of no more use; the lease kills it.
    Lost(GenerationError),
}

/// Serves `job` and gives the lease back.
pub async fn serve(mut lease: Lease, job: RunJob, deadlines: RunDeadlines) {
    let Ok(last) = job.events.clone().try_reserve_owned() else {
        return;
    };
    let queue_ms = job.submitted_at.elapsed().as_secs_f32() * 1000.0;
    let Some(worker) = lease.begin_run() else {
        return;
    };
    let not_applied = not_applied(&job.request, worker);
    if job.request.strict_parameters && !not_applied.is_empty() {
        lease.run_ended();
        last.send(TokenEvent::Failed(GenerationError::ParametersNotApplied {
            parameters: not_applied,
        }));
        return;
    }
    if job
        .events
        .try_send(TokenEvent::Started(RunStart { not_applied }))
        .is_err()
    {
        lease.run_ended();
        return;
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
        id: job.run,
        deadlines,
    };
    let exchange = run.exchange(worker, &job.request).await;
    let held_back = run.stops.finish();
    match exchange {
        Exchange::Lost(error) => {
            tracing::error!(request = %job.request.id, model = &*job.request.model, %error, "run lost");
            // Kills the worker before the reader learns of it.
            drop(lease);
            last.send(TokenEvent::Failed(error));
        }
        Exchange::Ended(end, abort) => {
            let final_event = match outcome(&end, abort, worker, &job.request).await {
                Err(error) => TokenEvent::Failed(error),
                Ok(None) => {
                    release(lease, &end);
                    return;
                }
                Ok(Some((reason, flush))) => {
                    if flush && !held_back.is_empty() {
                        let text = TokenEvent::Text(TextDelta { text: held_back });
                        // The run is over: waiting for the reader here would keep the worker.
                        let _ = job.events.try_send(text);
                    }
                    TokenEvent::Finished(Box::new(completion(&end, reason, queue_ms)))
                }
            };
            release(lease, &end);
            last.send(final_event);
        }
    }
}

/// Gives the worker back before its reader learns of the end, so that the reader's next request
/// finds it; or kills it, when it has said that it must not be used again.
fn release(mut lease: Lease, end: &RunEnd) {
    if !end.worker_ends {
        lease.run_ended();
    }
}

struct Run<'a> {
    id: u64,
    stops: StopStrings,
    events: &'a mpsc::Sender<TokenEvent>,
    deadlines: RunDeadlines,
}

impl Run<'_> {
    async fn exchange(&mut self, worker: &mut Worker, request: &GenerationRequest) -> Exchange {
        let spec = RunSpec {
            run: self.id,
            prompt: request.prompt.to_string(),
            sampling: request.sampling,
            max_new_tokens: request.max_new_tokens,
        };
        let prefill = self.deadlines.worker.prefill(spec.prompt.len(), None);
        if let Err(error) = worker.connection.send(&Command::Run(Box::new(spec))).await {
            return lost(worker, error).await;
        }
        let mut abort: Option<Abort> = None;
        let mut guard = Guard::new("prefill", prefill);
        loop {
            let event = match worker.connection.buffered_event() {
                Ok(Some(event)) => Ok(event),
                Err(error) => Err(error),
                Ok(None) => tokio::select! {
                    event = worker.connection.next_event() => event,
                    () = self.events.closed(), if abort.is_none() => {
                        if let Err(error) = self.send_abort(worker, &mut guard).await {
                            return lost(worker, error).await;
                        }
                        abort = Some(Abort::Cancelled);
                        continue;
                    }
                    expired = guard.expired() => return Exchange::Lost(expired),
                },
            };
            match event {
                Err(error) => return lost(worker, error).await,
                Ok(Event::Token { run, text, .. }) if run == self.id => {
                    if abort.is_some() {
                        continue;
                    }
                    guard.progress("inter-token", self.deadlines.worker.inter_token);
                    abort = self.deliver(&text).await;
                    if abort.is_some()
                        && let Err(error) = self.send_abort(worker, &mut guard).await
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

    async fn send_abort(
        &self,
        worker: &mut Worker,
        guard: &mut Guard,
    ) -> Result<(), ConnectionError> {
        guard.progress("abort-to-finish", self.deadlines.worker.abort_to_finish);
        worker
            .connection
            .send(&Command::Abort { run: self.id })
            .await
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

fn completion(end: &RunEnd, reason: FinishReason, queue_ms: f32) -> Completion {
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
        },
    }
}

/// Requested values that this worker's family cannot vary. The token budget is not among them: the
/// worker keeps it itself.
fn not_applied(request: &GenerationRequest, worker: &Worker) -> Vec<&'static str> {
    let mut names = Vec::new();
    if worker.facts.per_run_parameters != Some(true) {
        let sampling = &request.sampling;
        let asked = [
            ("temperature", sampling.temperature.is_some()),
            ("top_p", sampling.top_p.is_some()),
            ("top_k", sampling.top_k.is_some()),
            ("repeat_penalty", sampling.repeat_penalty.is_some()),
            ("presence_penalty", sampling.presence_penalty.is_some()),
            ("frequency_penalty", sampling.frequency_penalty.is_some()),
        ];
        names.extend(
            asked
                .into_iter()
                .filter_map(|(name, asked)| asked.then_some(name)),
        );
    }
    if request.seed.is_some() {
        names.push("seed");
    }
    names
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
