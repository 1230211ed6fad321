//! A client's own worker: a handle of the vendor's API, opened with the client's parameters.
//!
//! A handle outlives its workers. Between two calls its worker is idle like any other, so it counts
//! as a loaded model, and may be evicted for somebody who waits; the next call brings it back,
//! replays template, tools, adapters and caches, and tells once if kept history was lost. Calls of
//! one handle are made one after the other; `abort` and `is_running` go beside a run. Dropping a
//! handle ends its run and destroys its model.

mod actor;
mod beside;
mod journal;
mod prompt_cache_file;
mod result_sink;
mod results;
mod row;
mod saved_prompt;
mod services;
mod state_folder;

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use super::Supervisor;
use super::event_loop::Message;
use super::instance::HandleOrder;
use crate::generation::{ClientKey, GenerationError, ModelId};
use crate::library_calls::{
    Call, CallbackResult, CallbackThread, DefaultParam, InferMode, LibraryError, Outcome, Param,
    RunRequest, RunningAnswer,
};
use crate::memory::{Account, Charge};
use actor::{Actor, State};
pub(super) use prompt_cache_file::check as check_prompt_cache;
pub use row::{LostRow, RowEnd, RowRequest, pooled_row};
pub(crate) use saved_prompt::remove_unfinished as remove_unfinished_prompt_caches;
pub(super) use saved_prompt::{
    SavedPrompt, Unsaved, WholeCache, is_unfinished as is_unfinished_prompt_cache,
};
pub(super) use services::{HandleServices, LiveSettings};
pub(super) use state_folder::{ADAPTERS, PROMPT_CACHES};

/// Calls that may wait for their turn on one handle.
const WAITING_CALLS: usize = 64;
/// Results buffered between a run and its reader.
const RESULT_BUFFER: usize = 256;
/// The same for results that may hold tensors.
const TENSOR_BUFFER: usize = 4;

/// An open handle.
#[derive(Debug)]
pub struct LibraryHandle {
    model: ModelId,
    context_tokens: Option<u32>,
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
    /// The run is on a worker; told right before its first result or its end.
    Started {
        handle_reset: Option<HandleReset>,
    },
    Result(CallbackResult),
    /// `rkllm_run` returned this code; only 0 ends a run here, every other is `Failed`.
    Ended {
        code: i32,
        /// `None`: the library did not call back.
        called_back: Option<CallbackThread>,
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
        /// What is charged for it as long as it is kept.
        charge: Option<Charge>,
        reply: oneshot::Sender<Result<Replied<Outcome>, LibraryError>>,
    },
    Run {
        request: Box<RunRequest>,
        /// Where its tensors' files are charged.
        tensors: Option<Account>,
        events: mpsc::Sender<RunEvent>,
        /// The place of the last event.
        end: mpsc::OwnedPermit<RunEvent>,
    },
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
    /// Ends a run in progress, unloads the model and ends the handle.
    Close { reply: oneshot::Sender<()> },
}

impl LibraryHandle {
    /// The installed model it was opened for.
    pub fn model(&self) -> &ModelId {
        &self.model
    }

    /// What its context takes; `None`: the library tells it nowhere.
    pub fn context_tokens(&self) -> Option<u32> {
        self.context_tokens
    }

    /// Makes a call once those before it have ended. The charge is held as long as the handle keeps the
    /// call for its next worker.
    pub async fn call(
        &self,
        call: Call,
        charge: Option<Charge>,
    ) -> Result<Replied<Outcome>, LibraryError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Call {
            call: Box::new(call),
            charge,
            reply,
        };
        self.ask(request).await?;
        answer.await.map_err(|_| LibraryError::Closed)?
    }

    /// Starts a run once the calls before it have ended. The files of its tensors are charged until
    /// they are read and dropped.
    pub async fn run(
        &self,
        request: RunRequest,
        tensors: Option<Account>,
    ) -> Result<RunStream, LibraryError> {
        let buffer = match request.infer.mode {
            InferMode::Generate => RESULT_BUFFER,
            InferMode::GetLastHiddenLayer | InferMode::GetLogits => TENSOR_BUFFER,
        };
        let (sender, events) = mpsc::channel(buffer + 1);
        // A reader that is too slow is told so all the same, when it reads again.
        let end = sender.clone().try_reserve_owned();
        let end = end.map_err(|error| LibraryError::Internal(error.to_string()))?;
        let request = Box::new(request);
        let run = Request::Run {
            request,
            tensors,
            events: sender,
            end,
        };
        self.ask(run).await?;
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
        self.ask_now(Urgent::Close { reply }).await?;
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
    supervisor: &Supervisor,
    client: ClientKey,
    model: ModelId,
    param: Param,
) -> Result<LibraryHandle, LibraryError> {
    let order = Arc::new(HandleOrder {
        model: model.clone(),
        param,
        failure: Mutex::default(),
    });
    let (reply, id) = oneshot::channel();
    let gone = LibraryError::Unavailable(GenerationError::ShuttingDown);
    let message = Message::OpenHandle {
        order: Arc::clone(&order),
        reply,
    };
    let sent = supervisor.messages.send(message);
    sent.map_err(|_| gone.clone())?;
    let id = id.await.map_err(|_| gone)??;
    let (calls, requests) = mpsc::channel(WAITING_CALLS);
    let (urgent, urgent_requests) = mpsc::channel(WAITING_CALLS);
    // A client that gives up waiting closes the instance.
    let instance = OpenInstance {
        id: id.clone(),
        supervisor: supervisor.clone(),
    };
    let mut actor = Actor {
        supervisor: supervisor.clone(),
        services: Arc::clone(&supervisor.handles),
        client,
        id,
        order,
        calls: requests,
        urgent: urgent_requests,
        state: State::default(),
    };
    let context_tokens = actor.open().await?;
    tokio::spawn(async move {
        // However the task ends, its instance goes.
        let _instance = instance;
        actor.run().await;
    });
    Ok(LibraryHandle {
        model,
        context_tokens,
        calls,
        urgent,
    })
}

/// Closes an instance when it is dropped, unless that was done.
struct OpenInstance {
    id: ModelId,
    supervisor: Supervisor,
}

impl Drop for OpenInstance {
    fn drop(&mut self) {
        let id = self.id.clone();
        let message = Message::CloseHandle { id, done: None };
        let _ = self.supervisor.messages.send(message);
    }
}

pub(super) async fn default_param(
    supervisor: &Supervisor,
    model: Option<ModelId>,
) -> Result<DefaultParam, LibraryError> {
    let (reply, facts) = oneshot::channel();
    let gone = LibraryError::Unavailable(GenerationError::ShuttingDown);
    let sent = supervisor.messages.send(Message::Describe { model, reply });
    sent.map_err(|_| gone.clone())?;
    let facts = facts.await.map_err(|_| gone)??;
    Ok(DefaultParam {
        param: *facts.defaults,
        library_version: facts.version,
        abi_family: facts.family,
    })
}
