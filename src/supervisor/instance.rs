//! What the supervisor keeps a worker for, a model or a handle: its worker's life, what belongs to it,
//! and who waits for it.

mod kept;
mod load;
mod pinned_first;
mod shown;
mod slots;
mod waiters;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::RuntimeFacts;
use super::keepers::Keepers;
use super::lifecycle::{Lifecycle, RestartPolicy, Stage};
use super::measured::Measured;
use super::waiter::Waiter;
use super::worker::LoadedWorker;
use crate::children::memory::ProcessMemory;
use crate::children::{ChildProcess, EndReason};
use crate::generation::ModelId;
use crate::library_calls::{CallFailure, Param};
use crate::models::{InstalledModel, ModelKind};
use load::Load;
pub(super) use load::LoadNumber;
use pinned_first::PinnedFirst;
use slots::Awaiting;

/// A client's own worker: opened, used and closed by one handle.
#[derive(Debug)]
pub(super) struct HandleOrder {
    /// The installed model; the instance's own id names the handle.
    pub model: ModelId,
    pub param: Param,
    /// Why it could not be loaded last, in the words of the library.
    pub failure: Mutex<Option<CallFailure>>,
}

pub(super) struct Instance {
    pub model: Arc<InstalledModel>,
    pub life: Lifecycle,
    /// Present while the stage is `Idle` or `Leased`.
    worker: Option<LoadedWorker>,
    /// The one lease there is must have no other beside it.
    is_alone: bool,
    awaiting: Option<Awaiting>,
    /// Requests come behind the prompts that the model pins.
    pinned_first: Option<PinnedFirst>,
    /// They do not any more, until all of these prompts were brought into a worker's slots once.
    pub pins_later: bool,
    /// How long a run takes on average.
    run_time: Option<Duration>,
    /// The process of the worker that is loading, idle or leased.
    process: Option<ChildProcess>,
    load: Option<Load>,
    loads_begun: u64,
    pub since: Instant,
    pub facts: Option<Arc<RuntimeFacts>>,
    pub measured: Measured,
    /// As it was measured last; `None`: not known.
    pub memory: Option<ProcessMemory>,
    /// The least that its worker has held since the model was loaded.
    pub least_bytes: Option<u64>,
    /// The process that is being measured.
    measuring: Option<u32>,
    /// Why it failed last.
    pub reason: String,
    /// Why the worker is to be replaced as soon as it is not used. Until then it gets nothing new to do.
    pub condemned: Option<EndReason>,
    /// The worker is being unloaded: the model is not brought back, however that ends.
    pub is_unloading: bool,
    /// Who keeps the model loaded.
    pub keepers: Keepers,
    /// No time unloads it.
    pub is_pinned: bool,
    /// It is to be unloaded as soon as nothing uses or waits for it.
    pub unload_wanted: bool,
    /// The model's files are not those of the last worker: what that one showed counts no more.
    pub replaced: bool,
    /// The model is not installed any more; the instance goes with its worker.
    pub removed: bool,
    pub waiters: VecDeque<Waiter>,
    /// The handle that this is the worker of; `None`: that of HTTP requests.
    pub handle: Option<Arc<HandleOrder>>,
    /// Told when the handle's worker is gone; from then on nothing is loaded any more.
    pub closing: Vec<oneshot::Sender<()>>,
    pub is_closing: bool,
}

impl Instance {
    pub fn new(model: Arc<InstalledModel>, policy: RestartPolicy) -> Self {
        Self {
            model,
            life: Lifecycle::new(policy),
            worker: None,
            is_alone: false,
            awaiting: None,
            pinned_first: None,
            pins_later: false,
            run_time: None,
            process: None,
            load: None,
            loads_begun: 0,
            since: Instant::now(),
            facts: None,
            measured: Measured::default(),
            memory: None,
            least_bytes: None,
            measuring: None,
            reason: String::new(),
            condemned: None,
            is_unloading: false,
            keepers: Keepers::default(),
            is_pinned: false,
            unload_wanted: false,
            replaced: false,
            removed: false,
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
        self.model.facts.kind == ModelKind::Rkllm
    }

    pub fn is_unkillable(&self) -> bool {
        matches!(self.life.stage(), Stage::Unkillable { .. })
    }

    /// Writes down that a change of stage has happened.
    pub fn stage_changed(&mut self) {
        self.since = Instant::now();
    }

    /// Takes in a worker that is loaded.
    pub fn put_worker(&mut self, loaded: LoadedWorker) {
        self.load = None;
        self.process = Some(loaded.worker.process.clone());
        loaded.worker.learn(|measured| *measured = self.measured);
        self.worker = Some(loaded);
        self.stage_changed();
    }

    /// Takes out a worker that nothing goes on on, for good.
    pub fn end_idle(&mut self) -> Option<LoadedWorker> {
        if !self.life.end() {
            return None;
        }
        self.stage_changed();
        self.worker.take()
    }

    /// The process of a worker that is loading, idle or leased.
    pub fn process(&self) -> Option<&ChildProcess> {
        self.process.as_ref()
    }

    /// A measurement of its process, unless one is under way.
    pub fn begin_measuring(
        &mut self,
    ) -> Option<(u32, impl Future<Output = Option<ProcessMemory>> + use<>)> {
        let process = self.process.as_ref()?;
        if self.measuring.replace(process.pid) == Some(process.pid) {
            return None;
        }
        Some((process.pid, process.measure()))
    }

    /// Takes in what was measured. Returns whether it is of the process that is there.
    pub fn is_measured(&mut self, pid: u32, memory: Option<ProcessMemory>) -> bool {
        if self.measuring == Some(pid) {
            self.measuring = None;
        }
        let is_there = self.process.as_ref().is_some_and(|it| it.pid == pid);
        if is_there {
            self.memory = memory;
            if let Some(memory) = memory.filter(|_| !self.is_loading()) {
                let bytes = memory.total_bytes();
                self.least_bytes = Some(self.least_bytes.map_or(bytes, |least| least.min(bytes)));
            }
        }
        is_there
    }

    /// Forgets everything about a worker that has ended.
    pub fn forget_worker(&mut self) {
        self.keepers.all_ended(Instant::now());
        self.worker_ended_pinning();
        self.worker = None;
        self.process = None;
        self.load = None;
        self.memory = None;
        self.least_bytes = None;
        self.condemned = None;
        self.is_unloading = false;
        self.stage_changed();
    }
}
