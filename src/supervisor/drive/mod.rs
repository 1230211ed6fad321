//! One command in one slot of a worker, from the moment it is handed over until the slot is ready for the
//! next one or the worker of no more use. Here is the only place that waits for a worker, its
//! deadlines, the client and the daemon's end at once; what is done with the slot's events is the
//! `Sink`'s.
//!
//! What has arrived is newer than the clock, so events come before deadlines. While a client has no
//! room no event of its slot is taken, and the run's deadline rests; the run itself waits when it has
//! used up its credit, and no other run waits with it (`link`). What becomes of the worker meanwhile is
//! learnt when there is room again, at the latest when the patience with a slow reader ends.

mod deadlines;
mod ended;
mod guard;
mod loss;
mod outer;
mod own_call;
mod sink;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::coop::consume_budget;
use tokio::time::sleep_until;

pub use deadlines::{FileDeadline, RunDeadlines};
pub(super) use ended::{Ended, Lost, Over, not_sent};
pub(super) use loss::Loss;
pub use outer::{Outer, Total};
pub(super) use own_call::OwnCall;
pub(super) use sink::{FromClient, Sink, Step, Stop, Took};

use super::lease::Lease;
use super::link::{Arrived, SlotLink};
use super::worker::Worker;
use crate::children::ConnectionError;
use crate::generation::{Deadline, GenerationError};
use crate::ipc::{PassedDeadline, SlotCommand, SlotEvent};
use crate::telemetry::Metrics;
use guard::Guard;

/// What ends a command from outside of worker and client.
pub(super) struct Limits<'a> {
    /// The deadline that the command is under at first.
    pub first: (Deadline, Duration),
    pub outer: Outer<'a>,
    /// Told in the report of the worker's end.
    pub request: Option<String>,
    pub metrics: &'a Metrics,
}

/// Hands `command` over and gives `sink` what comes of it.
pub(super) async fn drive<S: Sink>(
    lease: Lease,
    command: SlotCommand,
    sink: &mut S,
    limits: Limits<'_>,
) -> Ended<S::End> {
    let mut running = lease.begin(sink.call(), limits.request);
    match &command {
        SlotCommand::Run(spec) => running.link().set_adapter(spec.adapter.clone()),
        SlotCommand::RawRun(spec) => {
            let lora = spec.infer.lora_params.as_ref();
            let name = lora.map(|lora| lora.lora_adapter_name.as_str().into());
            running.link().set_adapter(name);
        }
        _ => {}
    }
    let worker = Arc::clone(running.worker());
    // What was printed before belongs to other calls.
    worker.take_lines().await;
    let deadlines = worker.deadlines;
    let (deadline, limit) = limits.first;
    let batch = running.take_batch();
    let mut drive = Drive {
        deadlines: &deadlines,
        metrics: limits.metrics,
        worker: &worker,
        link: running.link(),
        guard: Guard::new(deadline, limit, deadlines.heartbeat),
        sink,
        stop: None,
        tainted: false,
        full_until: None,
    };
    let sent = drive.link.send(command);
    // Behind the command: the batch begins with it.
    drop(batch);
    let result = match sent {
        Ok(()) => drive.until_end(limits.outer).await,
        Err(ConnectionError::Frame(error)) => return Ended::NotSent(running, error),
        Err(error) => Err(Loss::of(&worker, error).await),
    };
    let (stop, tainted) = (drive.stop, drive.tainted);
    match result {
        Ok((end, is_tainted)) => Ended::Over(Over {
            running,
            end,
            tainted: tainted || is_tainted,
            stop,
        }),
        Err(loss) => {
            let (process, co_runners) = running.lost(loss.reason);
            Ended::Lost(Lost {
                loss: loss.beside(co_runners),
                process,
                stop,
            })
        }
    }
}

struct Drive<'a, S> {
    deadlines: &'a RunDeadlines,
    metrics: &'a Metrics,
    worker: &'a Worker,
    link: &'a mut SlotLink,
    guard: Guard,
    sink: &'a mut S,
    stop: Option<Stop>,
    tainted: bool,
    /// How long a client that has no room is waited for.
    full_until: Option<Instant>,
}

/// What happened first.
enum Happened {
    Event(Result<Arrived, ConnectionError>),
    Client(FromClient),
    OutOfTime(GenerationError),
    SlowReader,
    /// A deadline may have passed.
    GuardFires,
}

impl<S: Sink> Drive<'_, S> {
    /// Returns the end that the sink has made of it, and whether the worker is tainted.
    async fn until_end(&mut self, mut outer: Outer<'_>) -> Result<(S::End, bool), Loss> {
        loop {
            if self.sink.is_complete() {
                // Its end has a deadline of its own; the request's as a whole must not cost a worker.
                outer.total = None;
            }
            // Events that are already here must not keep these waiting.
            if self.stop.is_none()
                && let Some(error) = outer.passed()
            {
                self.stop_for(error).await?;
            }
            let happened = match self.full_until {
                None => match self.link.buffered_event() {
                    Ok(Some(event)) => {
                        // However many there are, other tasks have their turn.
                        consume_budget().await;
                        Happened::Event(Ok(event))
                    }
                    Err(error) => Happened::Event(Err(error)),
                    Ok(None) => self.wait(&mut outer).await,
                },
                Some(_) => self.wait(&mut outer).await,
            };
            let arrived = match happened {
                Happened::Event(Ok(arrived)) => arrived,
                Happened::Event(Err(error)) => return Err(Loss::of(self.worker, error).await),
                Happened::Client(said) => {
                    self.heed(said).await?;
                    continue;
                }
                Happened::OutOfTime(error) => {
                    self.stop_for(error).await?;
                    continue;
                }
                Happened::SlowReader => {
                    let stalled = self.deadlines.slow_reader;
                    let error = GenerationError::SlowReader { stalled };
                    self.stop(Stop::Failed(error)).await?;
                    continue;
                }
                // The daemon may have been late, too.
                Happened::GuardFires => match self.passed().await {
                    Ok(None) => continue,
                    Ok(Some(arrived)) => arrived,
                    Err((deadline, limit)) => {
                        return Err(self.expired(deadline, limit, self.sink.call()));
                    }
                },
            };
            match arrived.event {
                SlotEvent::Tainted(PassedDeadline {
                    deadline,
                    limit,
                    call,
                }) => {
                    self.metrics.deadline_passed(deadline);
                    let (pid, limit_ms) = (self.worker.process.pid, limit.as_millis());
                    tracing::error!(
                        pid,
                        deadline = deadline.name(),
                        limit_ms,
                        call,
                        "deadline passed beside a call, which goes on"
                    );
                    self.tainted = true;
                    self.worker.taint();
                    if let Some(end) = self.sink.call_beside_hangs() {
                        return Ok((end, true));
                    }
                }
                SlotEvent::DeadlinePassed(PassedDeadline {
                    deadline,
                    limit,
                    call,
                }) => return Err(self.expired(deadline, limit, &call)),
                _ => match (self.sink)
                    .take(arrived, self.worker, self.stop.as_ref())
                    .await
                {
                    Ok(Took::Step(step)) => self.step(step).await?,
                    Ok(Took::Over { end, tainted }) => return Ok((end, tainted)),
                    Ok(Took::Unexpected(event)) => {
                        tracing::warn!(pid = self.worker.process.pid, ?event, "unexpected event");
                    }
                    Err(reason) => return Err(Loss::unreadable(reason)),
                },
            }
        }
    }

    async fn wait(&mut self, outer: &mut Outer<'_>) -> Happened {
        let (full_until, is_stopped) = (self.full_until, self.stop.is_some());
        let is_full = full_until.is_some();
        let no_room = async {
            match full_until {
                Some(until) => sleep_until(until.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // First, because what has arrived is newer than the clock.
            biased;
            event = self.link.next_event(), if !is_full => Happened::Event(event),
            said = self.sink.client(is_stopped) => Happened::Client(said),
            error = outer.pass(), if !is_stopped => Happened::OutOfTime(error),
            () = no_room => Happened::SlowReader,
            () = self.guard.fires(), if !is_full => Happened::GuardFires,
        }
    }

    /// Looks once more, now that a deadline may have passed. What has arrived comes first.
    async fn passed(&mut self) -> Result<Option<Arrived>, (Deadline, Duration)> {
        self.link.look().await;
        self.guard.heard(self.link.silent_for());
        self.guard.others_moved(self.link.still_for());
        match self.link.buffered_event() {
            Ok(None) => self.guard.passed().map_or(Ok(None), Err),
            Ok(arrived) => Ok(arrived),
            // Told by the next look at it.
            Err(_) => Ok(None),
        }
    }

    async fn step(&mut self, step: Step) -> Result<(), Loss> {
        let deadlines = &self.deadlines.worker;
        let is_stopped = self.stop.is_some();
        match step {
            Step::Same => {}
            Step::Moved if is_stopped => {}
            Step::Moved => self
                .guard
                .progress(Deadline::InterToken, deadlines.inter_token),
            Step::Prefill(_) if is_stopped => {}
            Step::Prefill(limit) => self.guard.set_limit(limit),
            Step::GoesBack { .. } if is_stopped => {}
            Step::GoesBack { deadline, limit } => self.guard.progress(deadline, limit),
            Step::Complete if is_stopped => {}
            Step::Complete => {
                self.guard
                    .progress(Deadline::AbortToFinish, deadlines.abort_to_finish);
            }
            Step::Full { patience } => {
                self.guard.rest();
                self.full_until = Some(Instant::now() + patience);
            }
            Step::Stop(why) => self.stop(why).await?,
        }
        Ok(())
    }

    async fn heed(&mut self, said: FromClient) -> Result<(), Loss> {
        match said {
            FromClient::HasRoom(step) => {
                self.full_until = None;
                self.guard.wake();
                self.step(step).await
            }
            FromClient::Stop(why) => self.stop(why).await,
            FromClient::Asks(command) => self.send_beside(command).await,
            FromClient::Nothing => Ok(()),
        }
    }

    /// Of what is complete only the worker's end is awaited, and not for longer than this.
    async fn stop_for(&mut self, error: GenerationError) -> Result<(), Loss> {
        if self.sink.is_complete() {
            return Err(Loss::overdue());
        }
        self.stop(Stop::Failed(error)).await
    }

    /// Ends a run early; a call is left to end by itself.
    async fn stop(&mut self, why: Stop) -> Result<(), Loss> {
        let Some(run) = self.sink.run() else {
            self.sink.is_stopped();
            return Ok(());
        };
        let is_first = self.stop.is_none();
        let mode = why.mode();
        if let Stop::Failed(GenerationError::DeadlineExceeded { deadline, .. }) = why
            && is_first
        {
            self.metrics.deadline_passed(deadline);
        }
        self.sink.is_stopping(&why);
        // What is not wanted any more waits for no room.
        if !matches!(why, Stop::Aborted) && self.full_until.take().is_some() {
            self.guard.wake();
        }
        self.stop = Some(why);
        if is_first {
            let limit = self.deadlines.worker.abort_to_finish;
            // It rests on where an aborted run's reader has no room.
            self.guard.progress(Deadline::AbortToFinish, limit);
            self.send_beside(SlotCommand::Abort { run, mode }).await?;
        }
        self.sink.is_stopped();
        Ok(())
    }

    /// A deadline that only killing the worker can end.
    fn expired(&self, deadline: Deadline, limit: Duration, call: &str) -> Loss {
        // It is one silence that all slots of a worker notice.
        if deadline != Deadline::Heartbeat || self.worker.falls_silent() {
            self.metrics.deadline_passed(deadline);
        }
        Loss::deadline(deadline, limit, call)
    }

    async fn send_beside(&mut self, command: SlotCommand) -> Result<(), Loss> {
        match self.link.send(command) {
            Ok(()) => Ok(()),
            Err(error) => Err(Loss::of(self.worker, error).await),
        }
    }
}
