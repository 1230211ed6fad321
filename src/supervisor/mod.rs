//! Owns the workers: their processes, their state, their deadlines.
//!
//! Read it in this order: `start` puts it together, `lifecycle` says what states a worker goes through,
//! `event_loop` is the only place where one changes, `placement` decides whose turn it is, `loading` brings
//! a worker up, `drive` is what happens on one, `run` serves a request on as many as `attempts` grants it,
//! `unloading` ends it, `exit_report` explains its end.

mod adapters;
mod answer_so_far;
mod attempts;
mod backoff;
mod batch_start;
mod by_request;
mod client_turns;
mod content_tokens;
mod cpu_runtime;
mod drive;
mod event_loop;
mod from_settings;
mod handle;
mod instance;
mod keepers;
mod lease;
mod lifecycle;
mod link;
mod load_failure;
mod load_guard;
mod loading;
mod measured;
mod memory_limits;
mod outcome;
mod placement;
mod prefixes;
mod probe;
mod pulse;
mod reading;
mod reload;
mod repeated;
mod routing;
mod run;
mod runtime_lines;
mod start;
mod status;
mod text_sink;
mod unloading;
mod unread;
mod waiter;
mod walls;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use attempts::{Attempts, Death, GivenUp};
pub use by_request::Unloaded;
pub use cpu_runtime::search as installed_cpu_runtime;
pub use drive::{Outer, RunDeadlines, Total};
pub use event_loop::QueueEnd;
pub(crate) use handle::remove_unfinished_prompt_caches;
pub use handle::{
    HandleReset, LibraryHandle, LostRow, Replied, RowEnd, RowRequest, RunEvent, RunStream,
    pooled_row,
};
pub use keepers::Kept;
pub use lease::Lease;
pub use prefixes::Prefixes;
pub use probe::{PROMPT as PROBE_PROMPT, Proof, Suspicion};
pub use pulse::Pulse;
pub use run::{Extent, RunJob, RunServices, Served, serve};
pub use status::{LoadProgress, ModelStatus, Phase, RuntimeFacts, StatusBoard, StatusSnapshot};

use crate::children::ChildKind;
use crate::generation::{ClientKey, GenerationError, ModelId};
use crate::ipc;
use crate::library_calls::{DefaultParam, LibraryError, Param};
use crate::memory::{Accountant, machine};
use crate::models::{Catalog, SlotLimits};
use crate::settings::Settings;
use event_loop::{JoinBatch, Message, Rules};
use handle::HandleServices;
use memory_limits::Beside;
use reload::Reload;
pub use waiter::Wish;
use walls::Walls;
pub use walls::for_self_test as worker_self_test;

/// The children that load a runtime library.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkerKind {}

impl ChildKind for WorkerKind {
    const COMMAND: &'static str = "worker";
    const NAME: &'static str = "worker";
    type Command = ipc::Command;
    type Event = ipc::Event;

    fn protocol(event: &ipc::Event) -> Option<u32> {
        match event {
            ipc::Event::Hello { protocol } => Some(*protocol),
            _ => None,
        }
    }
}

/// The daemon's end of a worker's link.
type Connection = crate::children::Connection<WorkerKind>;

/// Handle to the supervisor's event loop.
#[derive(Clone, Debug)]
pub struct Supervisor {
    messages: mpsc::UnboundedSender<Message>,
    handles: Arc<HandleServices>,
    /// As the kernel told at start.
    machine_bytes: Option<u64>,
    tensors: Accountant,
    requests: Accountant,
    /// What is not left for workers.
    beside: Beside,
    prefixes: Prefixes,
}

impl Supervisor {
    /// What is kept of conversations on disk.
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// What a worker may have before it is replaced; `None`: no limit.
    fn worker_memory_limit(&self) -> Option<u64> {
        let left = self
            .machine_bytes
            .map(|all| all.saturating_sub(self.beside.bytes()));
        let limits = memory_limits::effective(&self.handles.memory(), left);
        limits.soft_bytes.or(limits.hard_bytes)
    }

    /// Where files of tensors are charged that wait for their readers.
    pub(crate) fn tensors(&self) -> &Accountant {
        &self.tensors
    }

    /// Where requests are charged, and what is made of them.
    pub(crate) fn requests_memory(&self) -> &Accountant {
        &self.requests
    }

    /// Waits until a worker with this model is free, loading it if need be, in the turn of a client: see
    /// `client_turns`. Dropping the future withdraws the request.
    pub async fn lease(
        &self,
        client: ClientKey,
        model: ModelId,
        queue_end: QueueEnd,
    ) -> Result<Lease, GenerationError> {
        self.lease_with(client, model, queue_end, Wish::default())
            .await
    }

    /// As `lease`, by preference in a slot that a wish is for.
    pub async fn lease_with(
        &self,
        client: ClientKey,
        model: ModelId,
        queue_end: QueueEnd,
        wish: Wish,
    ) -> Result<Lease, GenerationError> {
        let (reply, lease) = oneshot::channel();
        let gone = |_| GenerationError::ShuttingDown;
        self.messages
            .send(Message::Lease {
                model,
                client,
                queue_end,
                wish,
                reply,
            })
            .map_err(|_| GenerationError::ShuttingDown)?;
        lease.await.map_err(gone)?
    }

    /// One more slot for a request that is to begin with the lease's, where that is a sequence of a batch that has
    /// not begun. `None`: there is no room.
    pub async fn join(
        &self,
        lease: &Lease,
        model: &ModelId,
        (client, wish): (ClientKey, Wish),
    ) -> Option<Lease> {
        let (reply, joined) = oneshot::channel();
        let join = Box::new(JoinBatch {
            pid: lease.worker().process.pid,
            client,
            wish,
            batch: Arc::clone(lease.batch()?),
            reply,
        });
        let model = model.clone();
        self.messages.send(Message::Join { model, join }).ok()?;
        joined.await.ok().flatten()
    }

    /// Goes on with other settings and models. What is running is not disturbed: a worker whose
    /// model has changed or gone ends when it is free. Returns once the loop has done so.
    pub async fn reload(&self, settings: &Settings, catalog: Arc<Catalog>) {
        self.handles.reload(settings);
        let machine_bytes = machine::ask().await.unwrap_or(self.machine_bytes);
        let (done, reloaded) = oneshot::channel();
        let message = Message::Reload(Box::new(Reload {
            catalog,
            rules: Rules::of(settings, machine_bytes),
            deadlines: settings.deadlines.clone(),
            run_deadlines: RunDeadlines::from(settings),
            parallel: settings.models.parallel,
            pool_contexts: settings.models.pool_contexts,
            walls: Walls::of(settings, &self.prefixes),
            done,
        }));
        if self.messages.send(message).is_ok() {
            let _ = reloaded.await;
        }
    }

    /// Returns once the loop has answered: it runs.
    pub async fn answers(&self) {
        let (reply, answered) = oneshot::channel();
        if self.messages.send(Message::Ping { reply }).is_ok() {
            let _ = answered.await;
        }
    }

    /// How many requests wait for a worker by now.
    pub async fn waiting(&self) -> usize {
        let (reply, answered) = oneshot::channel();
        match self.messages.send(Message::CountWaiting { reply }) {
            Ok(()) => answered.await.unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// Opens a handle: loads `model` into a worker of its own with `param`. Waits for a place like
    /// every request, at most as long as the queue's deadline. All handles and other requests of a client
    /// share its turn.
    pub async fn open_handle(
        &self,
        client: ClientKey,
        model: ModelId,
        param: Param,
    ) -> Result<LibraryHandle, LibraryError> {
        handle::open(self, client, model, param).await
    }

    /// What `rkllm_createDefaultParam` of the library for `model` says; `None`: of the NPU's
    /// library. A worker opens the library for it and ends; no model is loaded.
    pub async fn default_param(
        &self,
        model: Option<ModelId>,
    ) -> Result<DefaultParam, LibraryError> {
        handle::default_param(self, model).await
    }

    /// A request's wish has changed: what it waits for is looked at again.
    pub fn look_again(&self) {
        let (reply, _) = oneshot::channel();
        let _ = self.messages.send(Message::Ping { reply });
    }

    /// Loads a model before anybody asks for it.
    pub fn preload(&self, model: ModelId) {
        let _ = self.messages.send(Message::Preload { model });
    }

    /// Ends all workers: idle ones at once, leased ones when they come back. `false` if that took
    /// longer than `limit`; what is left then dies with the daemon.
    pub async fn shut_down(&self, limit: Duration) -> bool {
        self.prefixes.end();
        let (done, ended) = oneshot::channel();
        if self.messages.send(Message::ShutDown { done }).is_err() {
            return true;
        }
        tokio::time::timeout(limit, ended).await.is_ok()
    }
}

/// What a model's slots may have on this machine while nothing else holds its memory.
pub fn slot_limits(settings: &Settings) -> SlotLimits {
    let limits = memory_limits::effective(&settings.memory, machine::machine_bytes());
    SlotLimits {
        parallel: settings.models.parallel,
        pool_contexts: settings.models.pool_contexts,
        memory_bytes: limits.soft_bytes,
    }
}
