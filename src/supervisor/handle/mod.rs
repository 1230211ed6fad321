//! A client's own worker: a handle of the vendor's API, opened with the client's parameters.
//!
//! A handle outlives its workers. Between two calls its worker is idle like any other, so it counts
//! as a loaded model, and may be evicted for somebody who waits; the next call brings it back,
//! replays template, tools, adapters and caches, and tells once if kept history was lost. Calls of
//! one handle are made one after the other; `abort` and `is_running` go beside a run. Dropping a
//! handle ends its run and destroys its model.

use tokio::sync::{mpsc, oneshot};

use super::Supervisor;
use crate::generation::ModelId;
use crate::library_calls::{
    Call, CallbackResult, DefaultParam, Input, LibraryError, Outcome, Param, PooledRows, Pooling,
    RunRequest, RunningAnswer,
};

/// Calls that may wait for their turn on one handle.
const WAITING_CALLS: usize = 64;
/// Results buffered between a run and its reader.
const RESULT_BUFFER: usize = 256;

/// An open handle.
#[derive(Debug)]
pub struct LibraryHandle {
    model: ModelId,
    calls: mpsc::Sender<Request>,
    urgent: mpsc::Sender<Urgent>,
}

/// An answer, and whether the handle had lost its history before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Replied<T> {
    pub value: T,
    /// Told once, with the first answer after it happened.
    pub handle_reset: Option<HandleReset>,
}

/// Why kept history is gone. What can be replayed (template, tools, adapters, caches) was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandleReset {
    /// The handle's worker ended; the text says how.
    WorkerDied { cause: String },
    /// Another model needed its place.
    Evicted,
}

/// What a run tells, in order: `Started`, any number of `Result`, then exactly one of `Ended` and
/// `Failed`. `Failed` may also come alone.
#[derive(Debug)]
pub enum RunEvent {
    /// The run was handed to a worker.
    Started {
        handle_reset: Option<HandleReset>,
    },
    Result(CallbackResult),
    /// `rkllm_run` returned this code; only 0 ends a run here, every other is `Failed`.
    Ended {
        code: i32,
    },
    Failed(LibraryError),
}

/// The events of one run. Dropping it aborts the run.
#[derive(Debug)]
pub struct RunStream {
    events: mpsc::Receiver<RunEvent>,
}

impl RunStream {
    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<RunEvent> {
        self.events.recv().await
    }
}

/// What waits for its turn on a handle.
#[derive(Debug)]
enum Request {
    Call {
        call: Box<Call>,
        reply: oneshot::Sender<Result<Replied<Outcome>, LibraryError>>,
    },
    Run {
        request: Box<RunRequest>,
        events: mpsc::Sender<RunEvent>,
    },
    /// Unloads the model and ends the handle.
    Close { reply: oneshot::Sender<()> },
}

/// What does not wait for a run to end.
#[derive(Debug)]
enum Urgent {
    Abort {
        reply: oneshot::Sender<Result<(), LibraryError>>,
    },
    IsRunning {
        reply: oneshot::Sender<Result<RunningAnswer, LibraryError>>,
    },
}

impl LibraryHandle {
    /// The installed model it was opened for.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// Makes a call once those before it have ended.
    pub async fn call(&self, call: Call) -> Result<Replied<Outcome>, LibraryError> {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(call);
        self.ask(Request::Call { call, reply }).await?;
        answer.await.map_err(|_| LibraryError::Closed)?
    }

    /// Starts a run once the calls before it have ended.
    pub async fn run(&self, request: RunRequest) -> Result<RunStream, LibraryError> {
        let (sender, events) = mpsc::channel(RESULT_BUFFER);
        let request = Box::new(request);
        let events_of = sender;
        self.ask(Request::Run {
            request,
            events: events_of,
        })
        .await?;
        Ok(RunStream { events })
    }

    /// Aborts the run in progress and waits until the library was told. Without one it is no
    /// error, as with the library.
    pub async fn abort(&self) -> Result<(), LibraryError> {
        let (reply, answer) = oneshot::channel();
        self.ask_now(Urgent::Abort { reply }).await?;
        answer.await.map_err(|_| LibraryError::Closed)?
    }

    /// Asks the library, during a run too. Where it does not answer in time, or no model is loaded,
    /// the daemon answers from what it knows and says so.
    pub async fn is_running(&self) -> Result<RunningAnswer, LibraryError> {
        let (reply, answer) = oneshot::channel();
        self.ask_now(Urgent::IsRunning { reply }).await?;
        answer.await.map_err(|_| LibraryError::Closed)?
    }

    /// Ends a run in progress, unloads the model and waits until its place is free.
    pub async fn close(&self) -> Result<(), LibraryError> {
        let (reply, answer) = oneshot::channel();
        self.abort().await?;
        self.ask(Request::Close { reply }).await?;
        answer.await.map_err(|_| LibraryError::Closed)
    }

    async fn ask(&self, request: Request) -> Result<(), LibraryError> {
        let sent = self.calls.send(request).await;
        sent.map_err(|_| LibraryError::Closed)
    }

    async fn ask_now(&self, urgent: Urgent) -> Result<(), LibraryError> {
        let sent = self.urgent.send(urgent).await;
        sent.map_err(|_| LibraryError::Closed)
    }
}

pub(super) async fn open(
    _supervisor: &Supervisor,
    _model: ModelId,
    _param: Param,
) -> Result<LibraryHandle, LibraryError> {
    Err(LibraryError::Internal("not built yet".to_owned()))
}

pub(super) async fn default_param(
    _supervisor: &Supervisor,
    _model: Option<ModelId>,
) -> Result<DefaultParam, LibraryError> {
    Err(LibraryError::Internal("not built yet".to_owned()))
}

pub(super) async fn pooled_hidden_states(
    _supervisor: &Supervisor,
    _model: ModelId,
    _inputs: Vec<Input>,
    _pooling: Pooling,
) -> Result<PooledRows, LibraryError> {
    Err(LibraryError::Internal("not built yet".to_owned()))
}
