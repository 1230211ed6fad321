//! The task behind a handle: takes what is asked in order, leases the handle's worker for each of
//! it, and brings a new worker to where the last one was.
//!
//! A worker lost in a call, or in a run before its first result, is made up for by another one, as
//! often as `attempts` grants it, whatever it was lost by: a call that hung on one may end on the next. A
//! run that has given results cannot be continued exactly, so it ends with an error.

mod runs;
mod turn;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::beside::{Beside, CallSink, Closing};
use super::journal::Journal;
use super::state_folder::StateFolder;
use super::{HandleReset, Replied, Request, RunEvent, Urgent};
use crate::apart::{self, Subject};
use crate::children::{EndReason, ExitCause, ExitReport};
use crate::generation::{ClientKey, Deadline, ModelId};
use crate::ipc::{CallReply, CallSpec, SlotCommand};
use crate::library_calls::{Call, CallFailure, LibraryError, Outcome};
use crate::memory::Charge;
use crate::settings::{DeadlineSettings, Settings};
use crate::supervisor::attempts::Attempts;
use crate::supervisor::drive::{Ended, Limits, Loss, Outer, drive, not_sent};
use crate::supervisor::event_loop::QueueEnd;
use crate::supervisor::instance::HandleOrder;
use crate::supervisor::lease::{Lease, Running, WorkerAfter};
use crate::supervisor::loading::load_deadline;
use crate::supervisor::worker::Worker;
use crate::supervisor::{Supervisor, runtime_lines};
use crate::telemetry::Metrics;

/// A disk that takes longer to tell what is on it hangs.
const DISK_LIMIT: Duration = Duration::from_secs(10);
/// Numbers of raw runs begin here, so that none is also that of a request's run.
static NEXT_RUN: AtomicU64 = AtomicU64::new(1 << 48);

/// What every handle needs.
#[derive(Debug)]
pub(in crate::supervisor) struct HandleServices {
    pub metrics: Metrics,
    pub state_dir: PathBuf,
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

    pub(in crate::supervisor) fn load_deadline(&self, size_bytes: u64) -> Duration {
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
    /// Whose turns it takes.
    pub client: ClientKey,
    /// The instance's id.
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
    /// As long as its client waits for its answer.
    Call(&'a mut oneshot::Sender<Result<Replied<Outcome>, LibraryError>>),
    /// As long as its client reads its results, and does not abort it.
    Run(&'a mpsc::Sender<RunEvent>),
}

/// Why something ended without an answer of the library.
enum NoLease {
    Failed(LibraryError),
    /// Its client has stopped waiting for it, or it was aborted before its turn.
    Unwanted,
}

impl From<LibraryError> for NoLease {
    fn from(error: LibraryError) -> Self {
        Self::Failed(error)
    }
}

impl Actor {
    /// Serves until the handle is closed or dropped; then its instance goes.
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

    /// Loads the model for the first time; gives what its context takes.
    pub async fn open(&mut self) -> Result<Option<u32>, LibraryError> {
        let (_keep, mut silent) = mpsc::channel(1);
        std::mem::swap(&mut self.urgent, &mut silent);
        let lease = self.obtain(QueueEnd::Back, Wanted::Always).await;
        std::mem::swap(&mut self.urgent, &mut silent);
        match lease {
            Ok(lease) => {
                self.state.worker = Some(Known::of(lease.worker()));
                Ok(lease.worker().facts.context_length)
            }
            Err(NoLease::Failed(error)) => Err(error),
            Err(NoLease::Unwanted) => Err(LibraryError::Closed),
        }
    }

    async fn serve(&mut self, request: Request) {
        self.state.closing.is_aborted = false;
        match request {
            Request::Call {
                call,
                charge,
                mut reply,
            } => {
                let result = self.call((*call, charge), &mut reply).await;
                let _ = reply.send(result.map(|value| Replied {
                    value,
                    handle_reset: self.state.reset.take(),
                }));
            }
            Request::Run {
                request,
                tensors,
                events,
                end,
            } => {
                let mut started = Some(());
                let result = self
                    .serve_run((*request, tensors), &events, &mut started)
                    .await;
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
        (call, charge): (Call, Option<Charge>),
        reply: &mut oneshot::Sender<Result<Replied<Outcome>, LibraryError>>,
    ) -> Result<Outcome, LibraryError> {
        let call = self.resolve(call).await?;
        let mut attempts = Attempts::default();
        let mut queue_end = QueueEnd::Back;
        loop {
            let lease = match self.obtain(queue_end, Wanted::Call(reply)).await {
                Ok(lease) => lease,
                Err(NoLease::Failed(error)) => return Err(error),
                Err(NoLease::Unwanted) => return Err(LibraryError::Closed),
            };
            let loss = match self.call_on(lease, &call).await {
                Ok(made) => {
                    if made.is_ok() {
                        self.state.journal.record(call, charge);
                    }
                    return made;
                }
                Err(loss) => loss,
            };
            let may_repeat = attempts.lost(loss.death()).is_ok();
            if !may_repeat || self.state.closing.is_closing {
                return Err(loss.into_library_error(call.function()));
            }
            queue_end = QueueEnd::Front;
        }
    }

    /// Makes a call on a worker, after what must be replayed. `Err`: the worker is lost.
    async fn call_on(
        &mut self,
        lease: Lease,
        call: &Call,
    ) -> Result<Result<Outcome, LibraryError>, Loss> {
        Ok(match self.adopt(lease).await? {
            Ok(lease) => self.make(lease, call.clone()).await?.result,
            Err(error) => Err(error),
        })
    }

    /// One call on a worker that is ready for it.
    async fn make(&mut self, lease: Lease, call: Call) -> Result<Made, Loss> {
        self.state.next_id += 1;
        let deadlines = lease.worker().deadlines;
        let (deadline, limit) = self.deadline(&call, deadlines.worker.control_call).await;
        let function = call.function();
        let spec = CallSpec {
            id: self.state.next_id,
            call,
            deadline,
            limit,
        };
        let mut sink = CallSink {
            function,
            beside: Beside::new(&mut self.urgent, &mut self.state.closing, false),
        };
        let limits = Limits {
            first: (deadline, limit),
            outer: Outer::default(),
            request: None,
            metrics: &self.services.metrics,
        };
        let command = SlotCommand::LibraryCall(Box::new(spec));
        let ended = drive(lease, command, &mut sink, limits).await;
        sink.beside.end(matches!(ended, Ended::Over(_)));
        let over = match ended {
            Ended::Over(over) => over,
            Ended::NotSent(running, error) => {
                return Ok(Made {
                    lease: running.ended(WorkerAfter::Unproven),
                    result: Err(not_sent(error, function)),
                });
            }
            Ended::Lost(lost) => return Err(lost.loss),
        };
        let after = over.after(over.end.is_ok());
        let result = match over.end {
            Ok(CallReply::Outcome(outcome)) => Ok(outcome),
            Err(failure) => Err(explained(&over.running, failure).await),
            other => Err(LibraryError::Internal(format!(
                "the worker answered something else: {other:?}"
            ))),
        };
        let lease = over.running.ended(after);
        Ok(Made { lease, result })
    }

    /// Brings a worker that is new to this handle to where the last one was. The inner error: what
    /// was replayed failed, so the worker is not what the client thinks.
    async fn adopt(&mut self, mut lease: Lease) -> Result<Result<Lease, LibraryError>, Loss> {
        let known = self.state.worker.as_ref();
        if known.is_some_and(|known| known.is(lease.worker())) {
            return Ok(Ok(lease));
        }
        let reason = known.map(Known::end);
        if self.state.journal.worker_lost() {
            self.state.reset = reason;
        }
        self.state.worker = None;
        let mut replayed = 0;
        // One at a time is copied: they may be large.
        while let Some(call) = self.state.journal.after(replayed).cloned() {
            replayed += 1;
            let made = self.make(lease, call).await?;
            let Some(next) = made.lease else {
                return Err(Loss::tainted());
            };
            if let Err(error) = made.result {
                tracing::error!(model = &*self.order.model, %error, "a handle's state cannot be replayed");
                next.spoil();
                return Ok(Err(error));
            }
            lease = next;
        }
        self.state.worker = Some(Known::of(lease.worker()));
        Ok(Ok(lease))
    }

    /// Asks the disk, which may not answer.
    async fn in_folder<T: Send + 'static>(
        &self,
        ask: impl FnOnce(StateFolder) -> Result<T, LibraryError> + Send + 'static,
    ) -> Result<T, LibraryError> {
        let dir = self.services.state_dir.clone();
        let subject = Subject::File(dir.clone());
        apart::ask(subject, DISK_LIMIT, move || ask(StateFolder::new(dir)))
            .await
            .ok_or_else(|| LibraryError::Internal("the state folder does not answer".to_owned()))?
    }

    /// A call with real paths.
    async fn resolve(&self, call: Call) -> Result<Call, LibraryError> {
        match call {
            Call::LoadLora(_) | Call::LoadPromptCache { .. } => {}
            call => return Ok(call),
        }
        self.in_folder(|folder| {
            Ok(match call {
                Call::LoadLora(mut adapter) => {
                    adapter.lora_adapter_path = folder.adapter(&adapter.lora_adapter_path)?;
                    Call::LoadLora(adapter)
                }
                Call::LoadPromptCache { prompt_cache_path } => Call::LoadPromptCache {
                    prompt_cache_path: folder.prompt_cache(&prompt_cache_path)?,
                },
                call => call,
            })
        })
        .await
    }

    /// That of a call whose paths are real: files are read like models.
    async fn deadline(&self, call: &Call, control_call: Duration) -> (Deadline, Duration) {
        let path = match call {
            Call::LoadLora(adapter) => &adapter.lora_adapter_path,
            Call::LoadPromptCache { prompt_cache_path } => prompt_cache_path,
            _ => return (Deadline::ControlCall, control_call),
        };
        let bytes = self.file_bytes(path.into()).await;
        (Deadline::Load, self.services.load_deadline(bytes))
    }

    /// 0 where it is not there, or the disk does not answer.
    async fn file_bytes(&self, path: PathBuf) -> u64 {
        let bytes = move |_| Ok(std::fs::metadata(path).map_or(0, |file| file.len()));
        self.in_folder(bytes).await.unwrap_or(0)
    }
}

/// A call that came to its end.
struct Made {
    /// `None`: the worker must not be used again.
    lease: Option<Lease>,
    result: Result<Outcome, LibraryError>,
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
async fn explained(running: &Running, failure: CallFailure) -> LibraryError {
    let lines = running.own_lines().await;
    failure.into_error(runtime_lines::last_error(&lines).map(str::to_owned))
}
