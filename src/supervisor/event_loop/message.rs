//! What the event loop is told: by those who ask, and by the tasks that wait for workers.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::children::memory::ProcessMemory;
use crate::children::{ChildProcess, ProcessEvent};
use crate::generation::{ClientKey, GenerationError, KeepAlive, ModelId};
use crate::ipc::LibraryFacts;
use crate::supervisor::batch_start::BatchStart;
use crate::supervisor::by_request::{UnloadWhen, Unloaded};
use crate::supervisor::client_turns::LeasedSlot;
use crate::supervisor::instance::{HandleOrder, LoadNumber};
use crate::supervisor::lease::{Lease, WorkerAfter};
use crate::supervisor::link::SlotLink;
use crate::supervisor::load_failure::LoadFailure;
use crate::supervisor::reload::Reload;
use crate::supervisor::status::Phase;
use crate::supervisor::waiter::Wish;
use crate::supervisor::worker::{LoadedWorker, Worker};

pub(in crate::supervisor) type LeaseReply = oneshot::Sender<Result<Lease, GenerationError>>;

/// Where a request joins those that wait for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueEnd {
    /// After all others.
    Back,
    /// Before all others: its run was interrupted.
    Front,
    /// Likewise, and with nothing else on its worker: it may be to blame for a worker's death, and the
    /// next one must show that.
    FrontAndAlone,
}

/// What a request asks for that is to begin with others.
pub(in crate::supervisor) struct JoinBatch {
    /// The worker's.
    pub pid: u32,
    pub client: ClientKey,
    pub wish: Wish,
    pub batch: Arc<BatchStart>,
    /// `None`: there is no room, or none any more.
    pub reply: oneshot::Sender<Option<Lease>>,
}

/// What the loop is told.
pub(in crate::supervisor) enum Message {
    Lease {
        model: ModelId,
        /// Whose turn it takes.
        client: ClientKey,
        queue_end: QueueEnd,
        wish: Wish,
        reply: LeaseReply,
    },
    /// One more slot of a batch that has not begun.
    Join {
        model: ModelId,
        join: Box<JoinBatch>,
    },
    Preload {
        model: ModelId,
    },
    /// A use for nothing but to keep it. Answered by whether it is loaded.
    Keep {
        model: ModelId,
        client: ClientKey,
        keep_alive: Option<KeepAlive>,
        reply: oneshot::Sender<bool>,
    },
    /// Answered once its worker has ended.
    Unload {
        model: ModelId,
        when: UnloadWhen,
        reply: oneshot::Sender<Unloaded>,
    },
    /// Answered at once.
    Ping {
        reply: oneshot::Sender<()>,
    },
    /// How many requests wait for a worker.
    CountWaiting {
        reply: oneshot::Sender<usize>,
    },
    /// An instance for a handle; nothing is loaded before its first lease.
    OpenHandle {
        order: Arc<HandleOrder>,
        reply: oneshot::Sender<Result<ModelId, GenerationError>>,
    },
    /// The handle's lease has been given back.
    CloseHandle {
        id: ModelId,
        done: Option<oneshot::Sender<()>>,
    },
    /// The worker, if one is loaded and idle right now.
    LeaseIfIdle {
        model: ModelId,
        reply: oneshot::Sender<Option<Lease>>,
    },
    /// Asked by what brings pinned prompts into the slots of this worker: whether requests come behind them, and
    /// the word that what is being done is to be cut short for one.
    PinnedFirst {
        model: ModelId,
        pid: u32,
        reply: oneshot::Sender<Option<watch::Receiver<bool>>>,
    },
    /// As many of them are there as can be.
    Pinned {
        model: ModelId,
        pid: u32,
        is_all: bool,
    },
    Describe {
        model: Option<ModelId>,
        reply: oneshot::Sender<Result<LibraryFacts, GenerationError>>,
    },
    PhaseReached {
        model: ModelId,
        load: LoadNumber,
        phase: Phase,
        /// Once there is one.
        process: Option<ChildProcess>,
    },
    LoadEnded {
        model: ModelId,
        load: LoadNumber,
        result: Box<Result<LoadedWorker, LoadFailure>>,
    },
    /// Its task has ended, also where it was given up; all that it told comes before.
    LoadStopped {
        model: ModelId,
        load: LoadNumber,
    },
    Returned {
        worker: Arc<Worker>,
        link: SlotLink,
        after: WorkerAfter,
    },
    /// Whose turn a lease is.
    UsedFor {
        model: ModelId,
        lease: LeasedSlot,
        client: ClientKey,
        keep_alive: Option<KeepAlive>,
    },
    /// The holder of a lease gave its worker up; the process is being killed.
    Lost {
        model: ModelId,
        pid: u32,
        slot: u8,
    },
    Process {
        model: ModelId,
        /// What metrics call it: the installed model.
        name: ModelId,
        pid: u32,
        event: ProcessEvent,
    },
    /// What a worker's process holds.
    Measured {
        model: ModelId,
        pid: u32,
        /// `None`: not known.
        memory: Option<ProcessMemory>,
    },
    Reload(Box<Reload>),
    ShutDown {
        done: oneshot::Sender<()>,
    },
}
