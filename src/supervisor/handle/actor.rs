//! The task behind a handle: takes what is asked in order, leases the handle's worker for each of
//! it, and brings a new worker to where the last one was.
//!
//! A worker lost in a call, or in a run before its first result, is made up for by another one, as
//! often as `attempts` grants it, whatever it was lost by: a call that hung on one may end on the next. A
//! run that has given results cannot be continued exactly, so it ends with an error.

mod calls;
mod known;
mod runs;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::beside::Closing;
use super::journal::Journal;
use super::services::HandleServices;
use super::{HandleReset, Replied, Request, RunEvent, Urgent};
use crate::generation::{ClientKey, ModelId};
use crate::library_calls::{CallFailure, CallbackThread, LibraryError, Outcome};
use crate::supervisor::event_loop::QueueEnd;
use crate::supervisor::instance::HandleOrder;
use crate::supervisor::lease::Running;
use crate::supervisor::{Supervisor, runtime_lines};
use known::Known;

/// Numbers of raw runs begin here, so that none is also that of a request's run.
static NEXT_RUN: AtomicU64 = AtomicU64::new(1 << 48);

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
    /// Of the run that has ended last.
    called_back: Option<CallbackThread>,
    next_id: u64,
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
                self.state.called_back = None;
                let result = self
                    .serve_run((*request, tensors), &events, &mut started)
                    .await;
                if result.is_ok() && started.is_some() {
                    let handle_reset = self.state.reset.take();
                    // The first of its events, so there is room.
                    let _ = events.try_send(RunEvent::Started { handle_reset });
                }
                end.send(match result {
                    Ok(()) => RunEvent::Ended {
                        code: 0,
                        called_back: self.state.called_back,
                    },
                    Err(error) => RunEvent::Failed(error),
                });
            }
        }
    }
}

/// A failed call with the last error line that the runtime printed in it.
async fn explained(running: &Running, failure: CallFailure) -> LibraryError {
    let lines = running.own_lines().await;
    failure.into_error(runtime_lines::last_error(&lines).map(str::to_owned))
}
