//! What the supervisor keeps a worker for, a model or a handle: its worker's life, what belongs to it,
//! and who waits for it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::RuntimeFacts;
use super::lifecycle::{Lifecycle, RestartPolicy, Stage};
use super::link::SlotLink;
use super::measured::Measured;
use super::placement::{self, Occupancy};
use super::routing::{Candidate, Costs, Route, route};
use super::status::{ModelStatus, Phase};
use super::waiter::{self, Waiter, Wish};
use super::worker::{Lent, LoadedWorker, Worker};
use crate::children::ChildProcess;
use crate::children::EndReason;
use crate::children::memory::ProcessMemory;
use crate::generation::{ClientKey, GenerationError, ModelId};
use crate::library_calls::{CallFailure, Param};
use crate::models::{InstalledModel, ModelKind, SlotLimits, SlotPlan};
use crate::telemetry::Slots;

/// A request that waits for a slot that holds its beginning, although another one is free.
#[derive(Clone, Copy, Debug)]
struct Awaiting {
    /// The request's.
    sequence: u64,
    /// From then on another slot costs less.
    until: Instant,
    is_over: bool,
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
        if std::mem::take(&mut self.replaced) {
            self.facts = None;
            self.measured = Measured::default();
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

    /// A load that was given up turns out to have had a process: its end is waited for.
    pub fn is_stopping_with(&mut self, number: LoadNumber, process: &ChildProcess) {
        let is_it = self.life.stage() == Stage::Stopping && number.0 == self.loads_begun;
        // Of one that has ended nothing more will be told.
        if is_it && process.exit_report().is_none() {
            process.kill(EndReason::Cancelled);
            self.life.spawned(Some(process.pid));
            self.stage_changed();
        }
    }

    /// The task of a load has ended, and all that it had to tell was told.
    pub fn load_stopped(&mut self, number: LoadNumber) {
        if number.0 == self.loads_begun {
            self.life.load_stopped();
        }
    }

    /// `process` is `None` until this attempt at loading has one.
    pub fn phase_reached(&mut self, phase: Phase, process: Option<ChildProcess>) {
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

    /// Takes in a worker that is loaded.
    pub fn put_worker(&mut self, loaded: LoadedWorker) {
        self.load = None;
        self.process = Some(loaded.worker.process.clone());
        loaded.worker.learn(|measured| *measured = self.measured);
        self.worker = Some(loaded);
        self.stage_changed();
    }

    /// Takes in a slot that came back.
    pub fn take_back(&mut self, link: SlotLink) {
        if let Some(loaded) = &mut self.worker {
            self.measured = loaded.worker.measured();
            if let Some(lent) = loaded.lent.remove(&link.slot()) {
                let took = lent.since.elapsed();
                let average = self
                    .run_time
                    .map_or(took, |average| (average * 4 + took) / 5);
                self.run_time = Some(average);
            }
            loaded.free.push(link);
            self.is_alone = false;
            self.stage_changed();
        }
    }

    /// Hands a slot out, where nothing else may be on the worker meanwhile `alone`. `None`: none is free.
    pub fn lend(
        &mut self,
        alone: bool,
        wish: &Wish,
        client: &ClientKey,
    ) -> Option<(Arc<Worker>, SlotLink)> {
        let prompt = wish.prompt.as_deref().unwrap_or_default();
        let Route::Slot(nth) = self.route((prompt, client), false) else {
            return None;
        };
        let loaded = self.worker.as_mut()?;
        let link = loaded.free.remove(nth);
        if let Some(prompt) = &wish.prompt {
            let lent = Lent {
                prompt: Arc::clone(prompt),
                client: client.clone(),
                since: Instant::now(),
            };
            loaded.lent.insert(link.slot(), lent);
        }
        self.awaiting = None;
        self.is_alone = alone;
        self.life.granted();
        self.since = Instant::now();
        Some((Arc::clone(&loaded.worker), link))
    }

    /// Takes out a worker that nothing goes on on, for good.
    pub fn end_idle(&mut self) -> Option<LoadedWorker> {
        if !self.life.end() {
            return None;
        }
        self.stage_changed();
        self.worker.take()
    }

    /// Where a request with this prompt goes: the number of a free slot, or of one behind all of these.
    fn route(&self, (prompt, client): (&str, &ClientKey), may_wait: bool) -> Route {
        let Some(loaded) = &self.worker else {
            return Route::Nowhere;
        };
        let is_shared = |holder: &ClientKey| holder.tenant() == client.tenant();
        let free = loaded.free.iter().map(|link| Candidate {
            holds: link.holds(),
            is_shared: link.holder().is_none_or(is_shared),
            is_free: true,
            used: link.used(),
        });
        let lent = loaded.lent.values().map(|lent| Candidate {
            holds: &lent.prompt,
            is_shared: is_shared(&lent.client),
            is_free: false,
            used: lent.since,
        });
        let slots: Vec<Candidate<'_>> = free.chain(lent).collect();
        let costs = Costs {
            per_token: self.measured.prefill_takes_per_token(),
            run: self.run_time,
        };
        route(prompt, &slots, costs, may_wait)
    }

    /// Decides whether the first waiter waits for a slot that is busy although another one is free.
    pub fn consider_waiting(&mut self, now: Instant) {
        let awaited = self.waiters.front().and_then(|waiter| {
            let request = waiter.request.as_ref().filter(|request| !request.alone)?;
            // Comparing prompts is not for nothing.
            let loaded = self.worker.as_ref()?;
            let may_wait = request.wish.may_wait.load(Ordering::Relaxed);
            if !may_wait || loaded.free.is_empty() || loaded.lent.is_empty() {
                return None;
            }
            let prompt = request.wish.prompt.as_deref()?;
            match self.route((prompt, &request.client), may_wait) {
                Route::WaitFor(_, limit) => Some((waiter.sequence, limit)),
                Route::Slot(_) | Route::Nowhere => None,
            }
        });
        self.awaiting = awaited.map(|(sequence, limit)| {
            let begun = self.awaiting.filter(|it| it.sequence == sequence);
            let until = begun.map_or(now + limit, |it| it.until);
            Awaiting {
                sequence,
                until,
                is_over: until <= now,
            }
        });
    }

    /// Until when a slot is waited for, if one is.
    pub fn slot_awaited_until(&self) -> Option<Instant> {
        let awaiting = self.awaiting.filter(|it| !it.is_over)?;
        Some(awaiting.until)
    }

    /// Whether the first waiter can be on the worker beside those that are.
    fn can_be_joined(&self) -> bool {
        let fits = self.waiters.front().is_some_and(|waiter| {
            let request = waiter.request.as_ref();
            request.is_none_or(|request| !request.alone)
        });
        let has_room = self
            .worker
            .as_ref()
            .is_some_and(|loaded| !loaded.free.is_empty() && !loaded.worker.is_tainted());
        let waits = self.slot_awaited_until().is_some();
        fits && has_room && !waits && !self.is_alone && self.condemned.is_none()
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
        self.worker = None;
        self.process = None;
        self.load = None;
        self.memory = None;
        self.least_bytes = None;
        self.condemned = None;
        self.is_unloading = false;
        self.stage_changed();
    }

    /// Gives up a load that is going on. Its process is killed, whose end is reported as that of
    /// any other.
    pub fn cancel_load(&mut self) {
        if self.load.take().is_some() {
            match self.process.take() {
                Some(process) if process.exit_report().is_none() => {
                    process.kill(EndReason::Cancelled);
                }
                // The end of one that was there has been told, or will be of no more interest.
                _ => self.life.spawned(None),
            }
            self.life.cancel_load();
            self.stage_changed();
        }
    }

    pub fn forget_gone_waiters(&mut self) {
        self.waiters.retain(|waiter| {
            waiter
                .request
                .as_ref()
                .is_none_or(|it| !it.reply.is_closed())
        });
    }

    /// Asks for the model to be loaded again when it can be and no other model needs the place.
    pub fn want_loaded(&mut self) {
        if self.waiters.is_empty() {
            let sequence = u64::MAX;
            self.waiters.push_back(Waiter {
                sequence,
                request: None,
            });
        }
    }

    /// Likewise after a worker was ended on purpose, unless its model has gone.
    pub fn bring_back(&mut self) {
        if !self.removed {
            self.want_loaded();
        }
    }

    /// Asks for the model before all others: the request that has lost its worker is about to, and
    /// until then no other model may take the place.
    pub fn keep_place(&mut self) {
        self.waiters.push_front(Waiter {
            sequence: 0,
            request: None,
        });
    }

    /// Preloads stay: they are tried again.
    pub fn fail_waiters(&mut self, error: impl Fn() -> GenerationError) {
        for waiter in std::mem::take(&mut self.waiters) {
            match waiter.request {
                Some(request) => drop(request.reply.send(Err(error()))),
                None => self.waiters.push_back(waiter),
            }
        }
    }

    /// `order`: the arrivals of the requests that wait for leases, the next one first.
    pub fn candidate(&self, order: &[u64]) -> placement::Candidate {
        let (occupancy, not_before) = match self.life.stage() {
            Stage::Unloaded => (Occupancy::Empty, None),
            Stage::Failed { retry_at, .. } => (Occupancy::Empty, Some(retry_at)),
            Stage::Loading { .. } => (Occupancy::Busy, None),
            Stage::Leased { loaded_at, .. } => {
                let has_room = self.can_be_joined();
                let in_use = Occupancy::InUse {
                    loaded_at,
                    has_room,
                };
                (in_use, None)
            }
            Stage::Stopping | Stage::Ending { .. } => (Occupancy::Leaving, None),
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
        placement::Candidate {
            occupancy,
            uses_npu: self.uses_npu(),
            not_before,
            oldest_waiter: waiter::first_place(&self.waiters, order),
            may_evict: self.waiters.iter().any(|waiter| waiter.request.is_some()),
        }
    }

    /// Of the worker that is loaded.
    fn slots(&self) -> Option<Slots> {
        let all = self.worker.as_ref()?.worker.slots();
        let in_use = match self.life.stage() {
            Stage::Idle { .. } => 0,
            Stage::Leased { leases, .. } => leases,
            _ => return None,
        };
        Some(Slots { all, in_use })
    }

    /// `blocked`: why no worker can be started. `limits`: what its slots may have.
    pub fn status(&self, blocked: Option<String>, limits: SlotLimits) -> ModelStatus {
        let phase = match self.life.stage() {
            Stage::Unloaded => Phase::Unloaded,
            Stage::Loading { .. } => self
                .load
                .as_ref()
                .map_or(Phase::Spawning, |load| load.phase.clone()),
            Stage::Idle { .. } => Phase::Ready,
            Stage::Leased { .. } => Phase::Running,
            Stage::Stopping | Stage::Ending { .. } => Phase::Unloading,
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
            plan: Some(SlotPlan::of(
                &self.model,
                self.model.facts.context_tokens(),
                limits,
            )),
            slots: self.slots(),
            decode_tokens_per_second: self.measured.decode_tokens_per_second,
            blocked,
        }
    }
}
