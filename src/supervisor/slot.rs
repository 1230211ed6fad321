//! One model's place in the supervisor: its worker's life, what belongs to it, and who waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::RuntimeFacts;
use super::event_loop::LeaseReply;
use super::exit_report::EndReason;
use super::lifecycle::{Lifecycle, RestartPolicy, Stage};
use super::loading::Worker;
use super::measured::Measured;
use super::placement::{Candidate, Occupancy};
use super::process::WorkerProcess;
use super::status::{ModelStatus, Phase};
use super::worker_memory::WorkerMemory;
use crate::generation::{GenerationError, ModelId};
use crate::library_calls::{CallFailure, Param};
use crate::models::{InstalledModel, ModelKind};

pub(super) struct Waiter {
    pub sequence: u64,
    /// `None`: a preload, content with the model being loaded where there is room.
    pub reply: Option<LeaseReply>,
}

/// Tells one load of a model from its other ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadNumber(u64);

/// The load that is going on. Dropping it ends its task, so that it starts nothing any more.
struct Load {
    number: LoadNumber,
    phase: Phase,
    task: AbortHandle,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client's own worker: opened, used and closed by one handle.
#[derive(Debug)]
pub(super) struct HandleOrder {
    /// The installed model; the slot's own id names the handle.
    pub model: ModelId,
    pub param: Param,
    /// Why it could not be loaded last, in the words of the library.
    pub failure: Mutex<Option<CallFailure>>,
}

pub(super) struct Slot {
    pub model: Arc<InstalledModel>,
    pub life: Lifecycle,
    /// Present exactly while the stage is `Idle`.
    worker: Option<Box<Worker>>,
    /// The process of the worker that is loading, idle or leased.
    process: Option<WorkerProcess>,
    load: Option<Load>,
    loads_begun: u64,
    pub since: Instant,
    pub facts: Option<Arc<RuntimeFacts>>,
    pub measured: Measured,
    /// As it was measured last.
    pub memory: Option<WorkerMemory>,
    /// Why it failed last.
    pub reason: String,
    /// The worker is to be replaced as soon as nobody uses it.
    pub recycle: bool,
    pub waiters: VecDeque<Waiter>,
    /// The handle that this is the worker of; `None`: that of HTTP requests.
    pub handle: Option<Arc<HandleOrder>>,
    /// Told when the handle's worker is gone; from then on nothing is loaded any more.
    pub closing: Vec<oneshot::Sender<()>>,
    pub is_closing: bool,
}

impl Slot {
    pub fn new(model: Arc<InstalledModel>, policy: RestartPolicy) -> Self {
        Self {
            model,
            life: Lifecycle::new(policy),
            worker: None,
            process: None,
            load: None,
            loads_begun: 0,
            since: Instant::now(),
            facts: None,
            measured: Measured::default(),
            memory: None,
            reason: String::new(),
            recycle: false,
            waiters: VecDeque::new(),
            handle: None,
            closing: Vec::new(),
            is_closing: false,
        }
    }

    pub fn of_handle(
        model: Arc<InstalledModel>,
        policy: RestartPolicy,
        order: Arc<HandleOrder>,
    ) -> Self {
        Self {
            handle: Some(order),
            ..Self::new(model, policy)
        }
    }

    /// The installed model, for metrics and messages.
    pub fn model_id(&self) -> &ModelId {
        self.handle
            .as_ref()
            .map_or(&self.model.id, |order| &order.model)
    }

    /// A closed handle whose process is gone, or cannot be made to go.
    pub fn is_closed(&self) -> bool {
        self.is_closing
            && matches!(
                self.life.stage(),
                Stage::Unloaded | Stage::Failed { .. } | Stage::Unkillable { .. }
            )
    }

    pub fn uses_npu(&self) -> bool {
        self.model.kind == ModelKind::Rkllm
    }

    pub fn is_loading(&self) -> bool {
        matches!(self.life.stage(), Stage::Loading { .. })
    }

    pub fn is_unkillable(&self) -> bool {
        matches!(self.life.stage(), Stage::Unkillable { .. })
    }

    /// Writes down that a change of stage has happened.
    pub fn stage_changed(&mut self) {
        self.since = Instant::now();
    }

    /// Begins a load if one may begin now: the task that `start` returns.
    pub fn begin_load(&mut self, start: impl FnOnce(LoadNumber) -> AbortHandle) {
        if !self.life.begin_load(Instant::now()) {
            return;
        }
        self.loads_begun += 1;
        let number = LoadNumber(self.loads_begun);
        self.load = Some(Load {
            number,
            phase: Phase::Spawning,
            task: start(number),
        });
        self.stage_changed();
    }

    /// Whether it is this load that goes on. What another one tells comes too late.
    pub fn is_loading_as(&self, number: LoadNumber) -> bool {
        let current = self.load.as_ref().map(|load| load.number);
        self.is_loading() && current == Some(number)
    }

    /// `process` is `None` until this attempt at loading has one.
    pub fn phase_reached(&mut self, phase: Phase, process: Option<WorkerProcess>) {
        if let (Stage::Loading { .. }, Some(load)) = (self.life.stage(), &mut self.load) {
            load.phase = phase;
            let pid = process.as_ref().map(|process| process.pid);
            if pid != self.life.pid() {
                self.memory = None;
            }
            self.life.spawned(pid);
            self.process = process;
            self.stage_changed();
        }
    }

    /// Takes in a worker that is loaded or came back.
    pub fn put_worker(&mut self, worker: Box<Worker>) {
        self.load = None;
        self.process = Some(worker.process.clone());
        self.measured = worker.measured;
        self.worker = Some(worker);
        self.stage_changed();
    }

    /// Hands the idle worker out.
    pub fn take_worker(&mut self) -> Option<Box<Worker>> {
        let mut worker = self.worker.take()?;
        worker.measured = self.measured;
        Some(worker)
    }

    /// The process of a worker that is loading, idle or leased.
    pub fn process(&self) -> Option<&WorkerProcess> {
        self.process.as_ref()
    }

    /// Forgets everything about a worker that has ended.
    pub fn forget_worker(&mut self) {
        self.worker = None;
        self.process = None;
        self.load = None;
        self.memory = None;
        self.recycle = false;
        self.stage_changed();
    }

    /// Gives up a load that is going on. Its process is killed, whose end is reported as that of
    /// any other.
    pub fn cancel_load(&mut self) {
        if self.load.take().is_some() {
            if let Some(process) = self.process.take() {
                process.kill(EndReason::Cancelled);
            }
            self.life.cancel_load();
            self.stage_changed();
        }
    }

    pub fn forget_gone_waiters(&mut self) {
        self.waiters
            .retain(|waiter| waiter.reply.as_ref().is_none_or(|reply| !reply.is_closed()));
    }

    /// Asks for the model to be loaded again when it can be and nobody else needs the place.
    pub fn want_loaded(&mut self) {
        if self.waiters.is_empty() {
            let sequence = u64::MAX;
            self.waiters.push_back(Waiter {
                sequence,
                reply: None,
            });
        }
    }

    /// Asks for the model before all others: the request that has lost its worker is about to, and
    /// until then no other model may take the place.
    pub fn keep_place(&mut self) {
        self.waiters.push_front(Waiter {
            sequence: 0,
            reply: None,
        });
    }

    /// Preloads stay: they are tried again.
    pub fn fail_waiters(&mut self, error: impl Fn() -> GenerationError) {
        for waiter in std::mem::take(&mut self.waiters) {
            match waiter.reply {
                Some(reply) => drop(reply.send(Err(error()))),
                None => self.waiters.push_back(waiter),
            }
        }
    }

    pub fn candidate(&self) -> Candidate {
        let (occupancy, not_before) = match self.life.stage() {
            Stage::Unloaded => (Occupancy::Empty, None),
            Stage::Failed { retry_at, .. } => (Occupancy::Empty, Some(retry_at)),
            Stage::Loading { .. } | Stage::Leased { .. } => (Occupancy::Busy, None),
            Stage::Ending { .. } => (Occupancy::Leaving, None),
            Stage::Unkillable { .. } => (Occupancy::Stuck, None),
            Stage::Idle {
                loaded_at,
                last_used,
                ..
            } => {
                let idle = Occupancy::Idle {
                    loaded_at,
                    last_used,
                };
                (idle, None)
            }
        };
        Candidate {
            occupancy,
            uses_npu: self.uses_npu(),
            not_before,
            oldest_waiter: self.waiters.front().map(|waiter| waiter.sequence),
            may_evict: self.waiters.iter().any(|waiter| waiter.reply.is_some()),
        }
    }

    /// `blocked`: why no worker can be started.
    pub fn status(&self, blocked: Option<String>) -> ModelStatus {
        let phase = match self.life.stage() {
            Stage::Unloaded => Phase::Unloaded,
            Stage::Loading { .. } => self
                .load
                .as_ref()
                .map_or(Phase::Spawning, |load| load.phase.clone()),
            Stage::Idle { .. } => Phase::Ready,
            Stage::Leased { .. } => Phase::Running,
            Stage::Ending { .. } => Phase::Unloading,
            Stage::Failed { retry_at, .. } => Phase::Failed {
                reason: self.reason.clone(),
                retry_at,
            },
            Stage::Unkillable { .. } => Phase::Unkillable {
                reason: self.reason.clone(),
            },
        };
        ModelStatus {
            phase,
            since: self.since,
            pid: self.life.pid(),
            facts: self.facts.clone(),
            memory: self.memory,
            decode_tokens_per_second: self.measured.decode_tokens_per_second,
            blocked,
        }
    }
}
