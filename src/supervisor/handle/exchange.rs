//! One call or one run on one worker, under the daemon's own guard, with what may be asked beside
//! it. Afterwards the worker is ready for the next or of no more use.

mod lost;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(super) use lost::Lost;
use lost::unreadable;

use super::results::callback_result;
use super::{RunEvent, Urgent};
use crate::generation::GenerationError;
use crate::ipc::{AbortMode, Answer, Command, Event, Question};
use crate::library_calls::{
    CallFailure, CallState, CallbackResult, LibraryError, Running, RunningAnswer,
};
use crate::supervisor::connection::ConnectionError;
use crate::supervisor::deadline_name::deadline_name;
use crate::supervisor::exchange::RunDeadlines;
use crate::supervisor::loading::Worker;
use crate::supervisor::run_guard::Guard;
use crate::telemetry::Metrics;

/// What the worker said at the end.
#[derive(Debug)]
pub(super) enum Done {
    Called(Result<Answer, CallFailure>),
    RunEnded(Result<(), CallFailure>),
}

#[derive(Debug)]
pub(super) enum End {
    /// `tainted`: the worker must not be used again.
    Done {
        done: Done,
        tainted: bool,
    },
    Lost(Lost),
}

/// Who reads a run's results.
pub(super) struct Reader<'a> {
    pub run: u64,
    pub events: &'a mpsc::Sender<RunEvent>,
    /// Sent before the first result.
    pub started: &'a mut Option<RunEvent>,
    /// All tensors of a result together.
    pub tensor_limit_bytes: u64,
    /// The run is for a tensor: until that is there the library works on the input.
    pub awaits_tensor: bool,
    /// Whether something was sent, and so that before all else.
    pub is_told: bool,
}

/// Why a run is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The client asked for it.
    Aborted,
    /// Nobody reads.
    Cancelled,
    /// The reader was too slow.
    SlowReader,
}

pub(super) struct Exchange<'a> {
    pub function: &'static str,
    pub deadlines: &'a RunDeadlines,
    pub metrics: &'a Metrics,
    pub urgent: &'a mut mpsc::Receiver<Urgent>,
    /// Set when the handle is being closed.
    pub closing: &'a mut Closing,
    pub reader: Option<Reader<'a>>,
    pub stopped: Option<Stopped>,
    /// Questions beside it that have not been answered.
    asks: Vec<(u64, oneshot::Sender<Result<RunningAnswer, LibraryError>>)>,
    tainted: bool,
}

/// Whether the handle goes on, and what it is doing now.
#[derive(Debug, Default)]
pub(super) struct Closing {
    pub is_closing: bool,
    /// What the handle is doing now was aborted.
    pub is_aborted: bool,
    pub replies: Vec<oneshot::Sender<()>>,
}

/// Questions have ids of their own, far from those of calls.
const FIRST_ASK: u64 = 1 << 63;
/// Never used twice: an answer that comes late is nobody's.
static NEXT_ASK: AtomicU64 = AtomicU64::new(FIRST_ASK);

impl<'a> Exchange<'a> {
    pub fn new(
        function: &'static str,
        (deadlines, metrics): (&'a RunDeadlines, &'a Metrics),
        (urgent, closing): (&'a mut mpsc::Receiver<Urgent>, &'a mut Closing),
        reader: Option<Reader<'a>>,
    ) -> Self {
        Self {
            function,
            deadlines,
            metrics,
            urgent,
            closing,
            reader,
            stopped: None,
            asks: Vec::new(),
            tainted: false,
        }
    }

    /// `deadline`: that of what is asked for, by name.
    pub async fn perform(
        &mut self,
        worker: &mut Worker,
        command: Command,
        deadline: (&'static str, Duration),
    ) -> End {
        // What was printed before belongs to other calls.
        worker.lines.take().await;
        if let Err(error) = self.send(worker, &command).await {
            return self.sending_failed(worker, error).await;
        }
        let mut guard = Guard::new(deadline.0, deadline.1, self.deadlines.heartbeat);
        let end = self.until_end(worker, &mut guard).await;
        // Nobody else will answer them.
        for (_, reply) in self.asks.drain(..) {
            let _ = reply.send(Ok(RunningAnswer {
                running: self.reader.is_some() && !matches!(end, End::Done { .. }),
                answered_by: Running::Daemon,
            }));
        }
        end
    }

    async fn until_end(&mut self, worker: &mut Worker, guard: &mut Guard) -> End {
        loop {
            let reader = self.reader.as_ref().map(|reader| reader.events);
            let gone = async {
                match reader {
                    Some(events) => events.closed().await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                // First, because what has arrived is newer than the clock.
                biased;
                event = worker.connection.next_event() => event,
                urgent = self.urgent.recv(), if !self.closing.is_closing => {
                    if let Err(error) = self.attend(worker, guard, urgent).await {
                        return self.sending_failed(worker, error).await;
                    }
                    continue;
                }
                () = gone, if self.stopped.is_none() => {
                    if let Err(error) = self.stop(worker, guard, Stopped::Cancelled).await {
                        return self.sending_failed(worker, error).await;
                    }
                    continue;
                }
                (name, limit) = guard.expired() => {
                    return End::Lost(self.expired(name, limit));
                }
            };
            guard.heard();
            match event {
                Err(error) => return End::Lost(self.lost(worker, error).await),
                Ok(Event::RawResult {
                    run,
                    state,
                    results,
                }) => {
                    let limit = self.reader.as_ref().map_or(0, |r| r.tensor_limit_bytes);
                    let connection = &mut worker.connection;
                    let result = match callback_result(connection, state, results, limit).await {
                        Ok(result) => result,
                        Err(reason) => return End::Lost(unreadable(reason)),
                    };
                    if let Some(perf) = result.results.first().and_then(|slot| slot.perf.as_ref()) {
                        worker.measured.perf(perf);
                    }
                    let has_moved = self.has_moved(&result);
                    if self.reader.as_ref().is_some_and(|reader| reader.run == run) {
                        if self
                            .stopped
                            .is_none_or(|stopped| stopped == Stopped::Aborted)
                            && let Err(error) = self.deliver(worker, guard, result).await
                        {
                            return self.sending_failed(worker, error).await;
                        }
                        if self.stopped.is_none() && has_moved {
                            guard.progress("inter-token", self.deadlines.worker.inter_token);
                        }
                    }
                }
                Ok(Event::RawEnded {
                    run,
                    result,
                    tainted,
                }) if self.reader.as_ref().is_some_and(|reader| reader.run == run) => {
                    return End::Done {
                        done: Done::RunEnded(result),
                        tainted: self.tainted || tainted,
                    };
                }
                Ok(Event::Called { id, result }) => {
                    if let Some(end) = self.called(id, result) {
                        return end;
                    }
                }
                Ok(Event::Heartbeat) => {}
                Ok(Event::Tainted {
                    deadline,
                    limit,
                    call,
                }) => self.has_hung(worker, &deadline, limit, &call),
                Ok(Event::DeadlinePassed {
                    deadline, limit, ..
                }) => return End::Lost(self.expired(deadline_name(&deadline), limit)),
                Ok(other) => {
                    tracing::warn!(pid = worker.process.pid, ?other, "unexpected event");
                }
            }
        }
    }

    /// Whether the library is past the input. For hidden states it calls back once before they are
    /// there.
    fn has_moved(&mut self, result: &CallbackResult) -> bool {
        let Some(reader) = &mut self.reader else {
            return false;
        };
        let mut slots = result.results.iter();
        let is_empty = result.state == CallState::Normal
            && slots.all(|slot| slot.last_hidden_layer.is_none() && slot.logits.is_none());
        reader.awaits_tensor &= is_empty;
        !reader.awaits_tensor
    }

    /// An answer to a question beside it, or the end of the call.
    fn called(&mut self, id: u64, result: Result<Answer, CallFailure>) -> Option<End> {
        if let Some(at) = self.asks.iter().position(|(asked, _)| *asked == id) {
            let (_, reply) = self.asks.swap_remove(at);
            let _ = reply.send(Ok(running_answer(result, self.reader.is_some())));
            return None;
        }
        if id >= FIRST_ASK || self.reader.is_some() {
            return None;
        }
        Some(End::Done {
            done: Done::Called(result),
            tainted: self.tainted,
        })
    }

    /// A question hangs. What it was asked beside goes on.
    fn has_hung(&mut self, worker: &Worker, deadline: &str, limit: Duration, call: &str) {
        let deadline = deadline_name(deadline);
        self.metrics.deadline_passed(deadline);
        let (pid, limit_ms) = (worker.process.pid, limit.as_millis());
        tracing::error!(
            pid,
            deadline,
            limit_ms,
            call,
            "deadline passed beside a call"
        );
        self.tainted = true;
        for (_, reply) in self.asks.drain(..) {
            let _ = reply.send(Ok(RunningAnswer {
                running: self.reader.is_some(),
                answered_by: Running::Daemon,
            }));
        }
    }

    /// Serves what does not wait. `None`: the handle was dropped.
    async fn attend(
        &mut self,
        worker: &mut Worker,
        guard: &mut Guard,
        urgent: Option<Urgent>,
    ) -> Result<(), ConnectionError> {
        match urgent {
            Some(Urgent::IsRunning { reply }) if self.tainted => {
                let _ = reply.send(Ok(RunningAnswer {
                    running: self.reader.is_some(),
                    answered_by: Running::Daemon,
                }));
            }
            Some(Urgent::IsRunning { reply }) => {
                let id = NEXT_ASK.fetch_add(1, Ordering::Relaxed);
                self.asks.push((id, reply));
                let question = Question::IsRunning;
                self.send(worker, &Command::Ask { id, question }).await?;
            }
            Some(Urgent::Abort { reply }) => {
                self.closing.is_aborted = true;
                if self.reader.is_some() && self.stopped.is_none() {
                    self.stop(worker, guard, Stopped::Aborted).await?;
                }
                let _ = reply.send(Ok(()));
            }
            Some(Urgent::Close { reply }) => {
                self.closing.is_closing = true;
                self.closing.replies.push(reply);
                self.stop(worker, guard, Stopped::Cancelled).await?;
            }
            None => {
                self.closing.is_closing = true;
                self.stop(worker, guard, Stopped::Cancelled).await?;
            }
        }
        Ok(())
    }

    /// Ends a run early; a call is left to end by itself.
    async fn stop(
        &mut self,
        worker: &mut Worker,
        guard: &mut Guard,
        why: Stopped,
    ) -> Result<(), ConnectionError> {
        let Some(run) = self.reader.as_ref().map(|reader| reader.run) else {
            return Ok(());
        };
        if self.stopped.is_none() {
            guard.progress("abort-to-finish", self.deadlines.worker.abort_to_finish);
            let mode = AbortMode::AtOnce;
            self.send(worker, &Command::Abort { run, mode }).await?;
        }
        self.stopped = Some(why);
        Ok(())
    }

    /// Passes a result on; while its reader is slow, what does not wait is served.
    async fn deliver(
        &mut self,
        worker: &mut Worker,
        guard: &mut Guard,
        result: CallbackResult,
    ) -> Result<(), ConnectionError> {
        let Some(reader) = &mut self.reader else {
            return Ok(());
        };
        let started = reader.started.take();
        let events = reader.events.clone();
        let slow = tokio::time::sleep(self.deadlines.slow_reader);
        tokio::pin!(slow);
        for event in started.into_iter().chain([RunEvent::Result(result)]) {
            let event = match events.try_send(event) {
                Ok(()) => {
                    self.reader_has_got_it();
                    continue;
                }
                Err(TrySendError::Closed(_)) => {
                    return self.stop(worker, guard, Stopped::Cancelled).await;
                }
                Err(TrySendError::Full(event)) => event,
            };
            let permit = loop {
                tokio::select! {
                    permit = events.reserve() => break permit.ok(),
                    () = &mut slow => {
                        return self.stop(worker, guard, Stopped::SlowReader).await;
                    }
                    urgent = self.urgent.recv(), if !self.closing.is_closing => {
                        self.attend(worker, guard, urgent).await?;
                        if self.stopped == Some(Stopped::Cancelled) {
                            return Ok(());
                        }
                    }
                }
            };
            match permit {
                Some(permit) => {
                    permit.send(event);
                    self.reader_has_got_it();
                }
                None => return self.stop(worker, guard, Stopped::Cancelled).await,
            }
        }
        Ok(())
    }

    fn reader_has_got_it(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.is_told = true;
        }
    }

    /// A worker reads its commands at once; one that does not is stopped or broken.
    async fn send(&self, worker: &mut Worker, command: &Command) -> Result<(), ConnectionError> {
        let limit = self.deadlines.heartbeat;
        match timeout(limit, worker.connection.send(command)).await {
            Ok(sent) => sent,
            Err(_) => Err(ConnectionError::NotRead { limit }),
        }
    }
}

/// What the library said, or where it failed what is known here.
pub(super) fn running_answer(
    result: Result<Answer, CallFailure>,
    known_running: bool,
) -> RunningAnswer {
    match result {
        Ok(Answer::IsRunning(running)) => RunningAnswer {
            running,
            answered_by: Running::Library,
        },
        other => {
            tracing::warn!(?other, "rkllm_is_running was not answered by the library");
            RunningAnswer {
                running: known_running,
                answered_by: Running::Daemon,
            }
        }
    }
}

pub(super) fn slow_reader(stalled: Duration) -> LibraryError {
    LibraryError::Unavailable(GenerationError::SlowReader { stalled })
}
