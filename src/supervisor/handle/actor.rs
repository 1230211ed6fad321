//! The task behind a handle: takes what is asked in order, leases the handle's worker for each of
//! it, and brings a new worker to where the last one was.
//!
//! A worker lost in a call, or in a run before its first result, is made up for by another one, once;
//! a run that has given results cannot be continued exactly, so it ends with an error. A deadline
//! that passes in a call is not tried again: it would pass again.

mod runs;
mod turn;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::exchange::{Closing, Done, End, Exchange, Lost};
use super::journal::Journal;
use super::state_folder::StateFolder;
use super::{HandleReset, Replied, Request, RunEvent, Urgent};
use crate::generation::ModelId;
use crate::ipc::{Answer, CallDeadline, CallSpec, Command};
use crate::library_calls::{Call, CallFailure, LibraryError, Outcome};
use crate::settings::{DeadlineSettings, Settings};
use crate::supervisor::event_loop::Turn;
use crate::supervisor::exit_report::{EndReason, ExitCause, ExitReport};
use crate::supervisor::lease::{Lease, WorkerAfter};
use crate::supervisor::loading::{Worker, load_deadline};
use crate::supervisor::slot::HandleOrder;
use crate::supervisor::{Supervisor, runtime_lines};
use crate::telemetry::Metrics;

/// Workers that one request may lose by a fault of its own.
const POISON_FAULTS: u32 = 2;
/// Workers that one request may use up in all.
const MOST_LIVES: u32 = 5;
/// Numbers of raw runs begin here, so that none is also that of a request's run.
static NEXT_RUN: AtomicU64 = AtomicU64::new(1 << 48);

/// What every handle needs.
#[derive(Debug)]
pub(in crate::supervisor) struct HandleServices {
    pub metrics: Metrics,
    pub state_dir: std::path::PathBuf,
    pub tensor_limit_bytes: u64,
    pub prompt_caches_limit_bytes: u64,
    pub live: Mutex<LiveSettings>,
}

/// What a reload changes for handles that are open. Deadlines of calls and runs are those of the
/// worker that they are on.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct LiveSettings {
    /// The longest time a request waits for its turn.
    pub queue_deadline: Duration,
    /// For files that are read like models.
    pub loading: DeadlineSettings,
}

impl From<&Settings> for LiveSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            queue_deadline: settings.queue.deadline,
            loading: settings.deadlines.clone(),
        }
    }
}

impl HandleServices {
    pub fn reload(&self, settings: &Settings) {
        *self.live() = settings.into();
    }

    pub fn queue_deadline(&self) -> Duration {
        self.live().queue_deadline
    }

    fn load_deadline(&self, size_bytes: u64) -> Duration {
        load_deadline(&self.live().loading, size_bytes)
    }

    fn live(&self) -> MutexGuard<'_, LiveSettings> {
        // Whole after every statement.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn next_run() -> u64 {
    NEXT_RUN.fetch_add(1, Ordering::Relaxed)
}

pub(super) struct Actor {
    pub supervisor: Supervisor,
    pub services: Arc<HandleServices>,
    /// The slot's id.
    pub id: ModelId,
    pub order: Arc<HandleOrder>,
    pub calls: mpsc::Receiver<Request>,
    pub urgent: mpsc::Receiver<Urgent>,
    pub state: State,
}

/// What is known of the handle apart from its channels.
#[derive(Default)]
pub(super) struct State {
    journal: Journal,
    /// The worker that everything in the journal was told to.
    worker: Option<Known>,
    reset: Option<HandleReset>,
    closing: Closing,
    next_id: u64,
}

struct Known {
    pid: u32,
    exit: watch::Receiver<Option<ExitReport>>,
}

/// As long as what is waited for?
pub(super) enum Wanted<'a> {
    Always,
    /// As long as somebody waits for its answer.
    Call(&'a mut oneshot::Sender<Result<Replied<Outcome>, LibraryError>>),
    /// As long as somebody reads its results, and nobody aborts it.
    Run(&'a mpsc::Sender<RunEvent>),
}

/// Why something ended without an answer of the library.
enum Stop {
    Failed(LibraryError),
    /// Nobody waits for it any more, or it was aborted before its turn.
    Unwanted,
}

impl From<LibraryError> for Stop {
    fn from(error: LibraryError) -> Self {
        Self::Failed(error)
    }
}

impl Actor {
    /// Serves until the handle is closed or dropped; then its slot goes.
    pub async fn run(mut self) {
        while !self.state.closing.is_closing {
            tokio::select! {
                // A request first: an abort that came behind its run is for that run, and is seen
                // again while it waits for its turn.
                biased;
                request = self.calls.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => break,
                },
                urgent = self.urgent.recv() => self.attend_idle(urgent).await,
            }
        }
        let closed = self.supervisor.closed(self.id.clone()).await;
        if let Some(closed) = closed {
            let _ = closed.await;
        }
        for reply in self.state.closing.replies {
            let _ = reply.send(());
        }
    }

    /// Loads the model for the first time.
    pub async fn open(&mut self) -> Result<(), LibraryError> {
        let (_keep, mut nobody) = mpsc::channel(1);
        std::mem::swap(&mut self.urgent, &mut nobody);
        let lease = self.obtain(Turn::Last, Wanted::Always).await;
        std::mem::swap(&mut self.urgent, &mut nobody);
        match lease {
            Ok(mut lease) => {
                if let Some(worker) = lease.begin_run() {
                    self.state.worker = Some(Known::of(worker));
                }
                lease.run_ended(WorkerAfter::Unproven);
                Ok(())
            }
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Unwanted) => Err(LibraryError::Closed),
        }
    }

    async fn serve(&mut self, request: Request) {
        self.state.closing.is_aborted = false;
        match request {
            Request::Call { call, mut reply } => {
                let result = self.call(*call, &mut reply).await;
                let _ = reply.send(result.map(|value| Replied {
                    value,
                    handle_reset: self.state.reset.take(),
                }));
            }
            Request::Run {
                request,
                events,
                end,
            } => {
                let mut started = Some(());
                let result = self.serve_run(*request, &events, &mut started).await;
                if result.is_ok() && started.is_some() {
                    let handle_reset = self.state.reset.take();
                    // The first of its events, so there is room.
                    let _ = events.try_send(RunEvent::Started { handle_reset });
                }
                end.send(match result {
                    Ok(()) => RunEvent::Ended { code: 0 },
                    Err(error) => RunEvent::Failed(error),
                });
            }
        }
    }

    async fn call(
        &mut self,
        call: Call,
        reply: &mut oneshot::Sender<Result<Replied<Outcome>, LibraryError>>,
    ) -> Result<Outcome, LibraryError> {
        let call = self.resolve(call)?;
        let (mut lives, mut faults) = (0, 0);
        let mut turn = Turn::Last;
        loop {
            let mut lease = match self.obtain(turn, Wanted::Call(reply)).await {
                Ok(lease) => lease,
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Unwanted) => return Err(LibraryError::Closed),
            };
            let lost = match self.call_on(&mut lease, &call).await {
                Ok(result) => {
                    if result.is_ok() {
                        self.state.journal.record(call);
                    }
                    return result;
                }
                Err(lost) => lost,
            };
            lease.blame(lost.reason);
            // Kills the worker, if it lives, before anybody learns of it.
            drop(lease);
            lives += 1;
            faults += u32::from(lost.is_fault);
            let may_repeat = matches!(lost.error, LibraryError::WorkerDied { .. })
                && faults < POISON_FAULTS
                && lives < MOST_LIVES;
            if !may_repeat || self.state.closing.is_closing {
                return Err(lost.error);
            }
            turn = Turn::First;
        }
    }

    /// Makes a call on a worker, after what must be replayed. `Err`: the worker is lost.
    async fn call_on(
        &mut self,
        lease: &mut Lease,
        call: &Call,
    ) -> Result<Result<Outcome, LibraryError>, Lost> {
        if let Err(error) = self.adopt(lease).await? {
            lease.run_ended(WorkerAfter::Tainted);
            return Ok(Err(error));
        }
        let Some(worker) = lease.begin_run() else {
            return Ok(Err(no_worker()));
        };
        let made = self.make(worker, call).await?;
        lease.run_ended(made.after());
        Ok(made.result)
    }

    /// One call on a worker that is ready for it.
    async fn make(&mut self, worker: &mut Worker, call: &Call) -> Result<Made, Lost> {
        self.state.next_id += 1;
        let deadlines = worker.deadlines;
        let (deadline, limit) = self.deadline(call, deadlines.worker.control_call);
        let function = call.function();
        let spec = CallSpec {
            id: self.state.next_id,
            call: call.clone(),
            deadline,
            limit,
        };
        worker.process.set_activity(Some(function), None);
        let services = &self.services;
        let mut exchange = Exchange::new(
            function,
            (&deadlines, &services.metrics),
            (&mut self.urgent, &mut self.state.closing),
            None,
        );
        let command = Command::Call(Box::new(spec));
        let end = exchange
            .perform(worker, command, (deadline.name(), limit))
            .await;
        match end {
            End::Lost(lost) => Err(lost),
            End::Done { done, tainted } => {
                let result = match done {
                    Done::Called(Ok(Answer::Outcome(outcome))) => Ok(outcome),
                    Done::Called(Err(failure)) => Err(explained(worker, failure).await),
                    other => Err(LibraryError::Internal(format!(
                        "the worker answered something else: {other:?}"
                    ))),
                };
                Ok(Made { result, tainted })
            }
        }
    }

    /// Brings a worker that is new to this handle to where the last one was. The inner error: what
    /// was replayed failed, so the worker is not what the client thinks.
    async fn adopt(&mut self, lease: &mut Lease) -> Result<Result<(), LibraryError>, Lost> {
        let Some(worker) = lease.begin_run() else {
            return Ok(Err(no_worker()));
        };
        let known = self.state.worker.as_ref();
        if known.is_some_and(|known| known.is(worker)) {
            return Ok(Ok(()));
        }
        let reason = known.map(Known::end);
        if self.state.journal.worker_lost() {
            self.state.reset = reason;
        }
        self.state.worker = None;
        for call in self.state.journal.calls().to_vec() {
            let made = self.make(worker, &call).await?;
            if let Err(error) = made.result {
                tracing::error!(model = &*self.order.model, %error, "a handle's state cannot be replayed");
                return Ok(Err(error));
            }
        }
        self.state.worker = Some(Known::of(worker));
        Ok(Ok(()))
    }

    fn folder(&self) -> StateFolder {
        StateFolder::new(self.services.state_dir.clone())
    }

    /// A call with real paths.
    fn resolve(&self, mut call: Call) -> Result<Call, LibraryError> {
        match &mut call {
            Call::LoadLora(adapter) => {
                adapter.lora_adapter_path = self.folder().adapter(&adapter.lora_adapter_path)?;
            }
            Call::LoadPromptCache { prompt_cache_path } => {
                *prompt_cache_path = self.folder().prompt_cache(prompt_cache_path)?;
            }
            _ => {}
        }
        Ok(call)
    }

    /// That of a call whose paths are real: files are read like models.
    fn deadline(&self, call: &Call, control_call: Duration) -> (CallDeadline, Duration) {
        let path = match call {
            Call::LoadLora(adapter) => &adapter.lora_adapter_path,
            Call::LoadPromptCache { prompt_cache_path } => prompt_cache_path,
            _ => return (CallDeadline::ControlCall, control_call),
        };
        let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        (CallDeadline::Load, self.services.load_deadline(bytes))
    }
}

/// A call that came to its end.
struct Made<T = Outcome> {
    result: Result<T, LibraryError>,
    tainted: bool,
}

impl<T> Made<T> {
    fn after(&self) -> WorkerAfter {
        match (self.tainted, &self.result) {
            (true, _) => WorkerAfter::Tainted,
            (false, Ok(_)) => WorkerAfter::Answered,
            (false, Err(_)) => WorkerAfter::Unproven,
        }
    }
}

impl Known {
    fn of(worker: &Worker) -> Self {
        Self {
            pid: worker.process.pid,
            exit: worker.process.exit_watch(),
        }
    }

    /// Whether it is this worker, and not one that has got the number of one that is gone.
    fn is(&self, worker: &Worker) -> bool {
        self.pid == worker.process.pid && self.exit.borrow().is_none()
    }

    /// How the handle's history went.
    fn end(&self) -> HandleReset {
        let report = self.exit.borrow().clone();
        match report {
            Some(report) if report.cause == ExitCause::Wanted(EndReason::Unload) => {
                HandleReset::Evicted
            }
            Some(report) => HandleReset::WorkerDied {
                cause: format!("the worker {report}"),
            },
            None => HandleReset::WorkerDied {
                cause: "the worker ended".to_owned(),
            },
        }
    }
}

/// A failed call with the last error line that the runtime printed in it.
async fn explained(worker: &Worker, failure: CallFailure) -> LibraryError {
    let lines = worker.lines.take().await;
    failure.into_error(runtime_lines::last_error(&lines).map(str::to_owned))
}

fn no_worker() -> LibraryError {
    LibraryError::Internal("a lease without a worker".to_owned())
}
