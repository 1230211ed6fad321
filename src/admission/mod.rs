//! Accepts, orders or refuses requests. Between `submit` and the first event a request waits in a
//! bounded queue; dropping its `Generation` frees its place at once, wherever it is.
//!
//! The order is `fair_queue`'s, which is pure; here are its lock, which is never held across an
//! await, and one dispatcher task per model, which leases the worker for the request that is next.

mod embedding;
mod fair_queue;
mod generation_stream;
mod service_time;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

pub use embedding::{EmbeddingError, EmbeddingRequest};
pub use generation_stream::Generation;

use crate::generation::{
    ClientKey, Deadline, GenerationError, GenerationRequest, ModelId, ReplyEvent,
};
use crate::settings::QueueSettings;
use crate::supervisor::{self, Extent, Lease, QueueEnd, RunJob, RunServices, Wish};
use embedding::EmbeddingJob;
use fair_queue::{Charge, FairQueue, Ticket};
use generation_stream::Withdrawal;
use service_time::ServiceTime;

/// Events buffered between a run and its reader: a whole answer of ordinary length, so that a slow
/// reader does not keep the worker from the next request. About 300 KiB at the most for short
/// tokens; allocated as it fills.
const EVENT_BUFFER: usize = 4096;

/// How full a model's queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFigures {
    pub waiting: usize,
    pub capacity: usize,
}

/// The front door to all models.
#[derive(Clone, Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    services: RunServices,
    settings: RwLock<QueueSettings>,
    queues: RwLock<HashMap<ModelId, Arc<ModelQueue>>>,
    next_run: AtomicU64,
    /// Runs being served.
    running: AtomicUsize,
    /// No further request is accepted.
    closed: AtomicBool,
    /// Becomes true when running answers are not waited for any longer.
    cut_off: watch::Sender<bool>,
    /// Told whenever a run has ended.
    run_ended: Notify,
}

#[derive(Debug)]
struct ModelQueue {
    state: Mutex<QueueState>,
    /// Told when something was queued or the settings have changed.
    filled: Notify,
    /// Told when the last waiting request was withdrawn.
    emptied: Notify,
    /// The model is not installed any more.
    closed: AtomicBool,
}

#[derive(Debug)]
struct QueueState {
    waiting: FairQueue<ClientKey, Waiting>,
    service_time: ServiceTime,
}

#[derive(Debug)]
struct Waiting {
    work: Work,
    submitted_at: Instant,
    /// When it came to where it waits now.
    queued_at: Instant,
    /// Requests to be served before this one when it came.
    position: usize,
}

/// What is to be done in a turn.
#[derive(Debug)]
enum Work {
    Generation {
        request: Box<GenerationRequest>,
        events: mpsc::Sender<ReplyEvent>,
    },
    Embedding(Box<EmbeddingJob>),
}

impl QueueState {
    /// Whose turn is next, and which slot would suit its request. One that is alone may wait for that slot.
    fn next(&self) -> Option<(ClientKey, Wish)> {
        let (client, waiting) = self.waiting.next()?;
        let prompt = match &waiting.work {
            Work::Generation { request, .. } => Some(Arc::clone(&request.prompt)),
            Work::Embedding(_) => None,
        };
        let wish = Wish {
            prompt,
            may_wait: Arc::new(AtomicBool::new(self.waiting.len() == 1)),
        };
        Some((client.clone(), wish))
    }
}

impl Waiting {
    fn new(work: Work, position: usize) -> Self {
        let now = Instant::now();
        Self {
            work,
            submitted_at: now,
            queued_at: now,
            position,
        }
    }

    fn model(&self) -> &ModelId {
        match &self.work {
            Work::Generation { request, .. } => &request.model,
            Work::Embedding(job) => job.model(),
        }
    }

    fn client(&self) -> &ClientKey {
        match &self.work {
            Work::Generation { request, .. } => &request.client,
            Work::Embedding(job) => job.client(),
        }
    }

    fn total_deadline(&self) -> Option<Duration> {
        match &self.work {
            Work::Generation { request, .. } => request.total_deadline,
            Work::Embedding(job) => job.total_deadline(),
        }
    }

    fn fail(self, error: GenerationError) {
        match self.work {
            // Nothing was sent to it yet, so there is room, unless its reader has gone.
            Work::Generation { events, .. } => {
                let _ = events.try_send(ReplyEvent::Failed(error));
            }
            Work::Embedding(job) => job.fail(error),
        }
    }

    /// When it has waited too long: for its turn, or for its answer as a whole.
    fn expires_at(&self, deadline: Duration) -> Instant {
        let waited = self.queued_at + deadline;
        let total = self.total_deadline().map(|total| self.submitted_at + total);
        total.map_or(waited, |total| waited.min(total))
    }
}

impl Shared {
    fn queues(&self) -> RwLockReadGuard<'_, HashMap<ModelId, Arc<ModelQueue>>> {
        // Nothing panics while it is held for writing.
        self.queues.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> QueueSettings {
        let settings = self.settings.read();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ModelQueue {
    fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(QueueState {
                waiting: FairQueue::new(capacity),
                service_time: ServiceTime::default(),
            }),
            filled: Notify::new(),
            emptied: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Its model has gone: fails what waits, and ends the dispatcher.
    fn close(&self, model: &ModelId) {
        self.closed.store(true, Ordering::SeqCst);
        for waiting in self.lock().waiting.remove_where(|_| true) {
            let model = model.to_string();
            waiting.fail(GenerationError::UnknownModel { model });
        }
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    /// To be asked under the lock: `close` says so first and empties the queue afterwards.
    fn is_served(&self, model: &str) -> Result<(), GenerationError> {
        match self.closed.load(Ordering::SeqCst) {
            true => Err(GenerationError::UnknownModel {
                model: model.to_owned(),
            }),
            false => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Nothing panics while it is held, and a queue is consistent after each operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Withdrawal for ModelQueue {
    fn withdraw(&self, client: &ClientKey, ticket: Ticket) {
        let mut state = self.lock();
        let removed = state.waiting.remove(client, ticket);
        if removed.is_some() && state.waiting.is_empty() {
            self.emptied.notify_waiters();
        }
    }
}

impl Admission {
    /// Starts a dispatcher for each of `models`.
    pub fn start(
        services: RunServices,
        models: impl IntoIterator<Item = ModelId>,
        settings: QueueSettings,
    ) -> Self {
        let shared = Arc::new(Shared {
            services,
            settings: RwLock::new(settings),
            queues: RwLock::default(),
            next_run: AtomicU64::new(1),
            running: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            cut_off: watch::Sender::new(false),
            run_ended: Notify::new(),
        });
        let this = Self { shared };
        this.set_models(&models.into_iter().collect());
        this
    }

    /// Goes on with other settings and models. What waits for a model that has gone fails; everything
    /// else keeps its place.
    pub fn reload(&self, settings: QueueSettings, models: &HashSet<ModelId>) {
        let capacity = settings.capacity;
        *self
            .shared
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        self.set_models(models);
        for queue in self.shared.queues().values() {
            queue.lock().waiting.set_capacity(capacity);
            // The deadline may be another one.
            queue.filled.notify_one();
        }
    }

    fn set_models(&self, models: &HashSet<ModelId>) {
        let capacity = self.shared.settings().capacity;
        let mut queues = self
            .shared
            .queues
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        queues.retain(|model, queue| {
            let installed = models.contains(model);
            if !installed {
                queue.close(model);
            }
            installed
        });
        for model in models {
            queues.entry(model.clone()).or_insert_with(|| {
                let queue = Arc::new(ModelQueue::new(capacity));
                let dispatcher =
                    dispatch(Arc::clone(&self.shared), model.clone(), Arc::clone(&queue));
                tokio::spawn(dispatcher);
                queue
            });
        }
    }

    /// Queues a request. Fails at once when the model is unknown, the queue is full or the daemon
    /// is shutting down; every later failure arrives as an event.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError> {
        let model = request.model.to_string();
        // Held until the request is in its queue: a queue that is taken out then has all that waits.
        let queues = self.shared.queues();
        let Some(queue) = queues.get(&request.model) else {
            return Err(GenerationError::UnknownModel { model });
        };
        let (events, reader) = mpsc::channel(EVENT_BUFFER);
        let client = request.client.clone();
        let request = Box::new(request);
        let work = Work::Generation { request, events };
        let ticket = self.shared.enqueue(queue, (&model, &client), work)?;
        let place: Arc<dyn Withdrawal> = Arc::clone(queue) as _;
        Ok(Generation::queued(reader, place, client, ticket))
    }

    /// Requests waiting for a model, and how many may wait.
    pub fn queue(&self, model: &str) -> QueueFigures {
        let queues = self.shared.queues();
        let state = queues.get(model).map(|queue| queue.lock());
        QueueFigures {
            waiting: state.as_ref().map_or(0, |state| state.waiting.len()),
            capacity: state.map_or(0, |state| state.waiting.capacity()),
        }
    }

    /// Accepts nothing more and fails what waits. Returns when the last run has ended; `false` when
    /// `limit` passed first: the readers left were told so, and their runs were given `more` to end.
    pub async fn drain(&self, limit: Duration, more: Duration) -> bool {
        self.shared.closed.store(true, Ordering::SeqCst);
        for queue in self.shared.queues().values() {
            for waiting in queue.lock().waiting.remove_where(|_| true) {
                waiting.fail(GenerationError::ShuttingDown);
            }
        }
        let all_ended = async {
            loop {
                let ended = self.shared.run_ended.notified();
                if self.shared.running.load(Ordering::SeqCst) == 0 {
                    return;
                }
                ended.await;
            }
        };
        tokio::pin!(all_ended);
        if tokio::time::timeout(limit, &mut all_ended).await.is_ok() {
            return true;
        }
        self.shared.cut_off.send_replace(true);
        let _ = tokio::time::timeout(more, all_ended).await;
        false
    }
}

/// Serves one model's queue as long as the model is installed.
async fn dispatch(shared: Arc<Shared>, model: ModelId, queue: Arc<ModelQueue>) {
    loop {
        let filled = queue.filled.notified();
        let mut emptied = pin!(queue.emptied.notified());
        // Before the look at the queue, so that no withdrawal falls between the two.
        emptied.as_mut().enable();
        if queue.closed.load(Ordering::SeqCst) {
            return;
        }
        let Some((client, wish)) = queue.lock().next() else {
            filled.await;
            continue;
        };
        let supervisor = &shared.services.supervisor;
        let may_wait = Arc::clone(&wish.may_wait);
        let lease = supervisor.lease_with(client, model.clone(), QueueEnd::Back, wish);
        let mut lease = pin!(lease);
        let lease = loop {
            let deadline = shared.settings().deadline;
            tokio::select! {
                lease = &mut lease => break Some(lease),
                // No request waits any more: the worker is not asked for, and no model is
                // loaded.
                () = &mut emptied => break None,
                () = expiry(&queue, deadline) => {
                    expire(&shared, &queue);
                    if queue.lock().waiting.is_empty() {
                        break None;
                    }
                }
                // A request that came later may expire sooner, or the settings have changed.
                () = queue.filled.notified() => {
                    if queue.lock().waiting.len() > 1 && may_wait.swap(false, Ordering::Relaxed) {
                        supervisor.look_again();
                    }
                }
            }
        };
        let Some(lease) = lease else { continue };
        let next = {
            let mut state = queue.lock();
            let next = state.waiting.pop();
            // Under the lock: whom `drain` does not find here it finds running.
            next.map(|(waiting, charge)| (waiting, Running::begin(&shared), charge))
        };
        match (next, lease) {
            (Some((waiting, running, charge)), Ok(lease)) => {
                // Another client's request may have come to the front meanwhile.
                lease.is_used_for(waiting.client());
                start(running, Cost::of(&queue, charge), waiting, lease);
            }
            (Some((waiting, _running, charge)), Err(error)) => {
                Cost::of(&queue, charge).add(0);
                waiting.fail(error);
            }
            (None, _) => {}
        }
    }
}

impl Shared {
    /// Puts work at the end of its client's line.
    fn enqueue(
        &self,
        queue: &ModelQueue,
        (model, client): (&str, &ClientKey),
        work: Work,
    ) -> Result<Ticket, GenerationError> {
        let mut state = queue.lock();
        // Under the lock: `drain` says so first and empties the queue afterwards.
        if self.closed.load(Ordering::SeqCst) {
            return Err(GenerationError::ShuttingDown);
        }
        queue.is_served(model)?;
        let weight = client.weight().get();
        let position = state.waiting.ahead_of_next(client, weight);
        let waiting = Waiting::new(work, position);
        let Ok(ticket) = state.waiting.push(client.clone(), weight, waiting) else {
            let waiting = state.waiting.len();
            return Err(GenerationError::QueueFull {
                model: model.to_owned(),
                waiting,
                retry_after: state.service_time.retry_after(waiting),
            });
        };
        drop(state);
        queue.filled.notify_one();
        Ok(ticket)
    }
}

/// What a request costs, which its client is charged for when it is over, however it ends.
struct Cost {
    queue: Arc<ModelQueue>,
    /// `None` once it is settled.
    charge: Option<Charge<ClientKey>>,
    /// `None`: nothing is known of it.
    tokens: Option<u64>,
}

impl Cost {
    fn of(queue: &Arc<ModelQueue>, charge: Charge<ClientKey>) -> Self {
        Self {
            queue: Arc::clone(queue),
            charge: Some(charge),
            tokens: None,
        }
    }

    fn add(&mut self, tokens: u64) {
        self.tokens = Some(self.tokens.unwrap_or(0).saturating_add(tokens));
    }
}

impl Drop for Cost {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            self.queue.lock().waiting.settle(charge, self.tokens);
        }
    }
}

/// Counts a run until it is over, however its task ends.
struct Running(Arc<Shared>);

impl Running {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.run_ended.notify_waiters();
    }
}

/// Waits until the first entry has waited too long.
async fn expiry(queue: &ModelQueue, deadline: Duration) {
    let first = queue
        .lock()
        .waiting
        .iter()
        .map(|waiting| waiting.expires_at(deadline))
        .min();
    match first {
        Some(first) => tokio::time::sleep_until(first.into()).await,
        None => std::future::pending().await,
    }
}

fn expire(shared: &Shared, queue: &ModelQueue) {
    let deadline = shared.settings().deadline;
    let now = Instant::now();
    let expired = queue
        .lock()
        .waiting
        .remove_where(|waiting| waiting.expires_at(deadline) <= now);
    for waiting in expired {
        let error = match waiting.total_deadline() {
            Some(limit) if limit <= now - waiting.submitted_at => {
                shared.services.metrics.deadline_passed(Deadline::Total);
                GenerationError::DeadlineExceeded {
                    deadline: Deadline::Total,
                    limit,
                }
            }
            _ => GenerationError::QueueDeadline {
                model: waiting.model().to_string(),
                waited: now - waiting.queued_at,
            },
        };
        waiting.fail(error);
    }
}

fn start(running: Running, mut cost: Cost, waiting: Waiting, lease: Lease) {
    let (request, events) = match waiting.work {
        Work::Generation { request, events } => (*request, events),
        Work::Embedding(job) => {
            let submitted_at = waiting.submitted_at;
            tokio::spawn(async move {
                embedding::serve(&running.0, &mut cost, lease, job, submitted_at).await;
            });
            return;
        }
    };
    let job = RunJob {
        run: running.0.next_run.fetch_add(1, Ordering::Relaxed),
        request,
        events,
        submitted_at: waiting.submitted_at,
        queue_position: u32::try_from(waiting.position).unwrap_or(u32::MAX),
        cut_off: running.0.cut_off.subscribe(),
    };
    tokio::spawn(async move {
        let (started, slots) = (Instant::now(), lease.slots());
        let served = supervisor::serve(lease, job, &running.0.services).await;
        cost.add(served.tokens);
        if served.extent == Extent::Whole {
            let time = started.elapsed();
            cost.queue.lock().service_time.record(time, slots);
        }
    });
}
