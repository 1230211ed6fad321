//! Accepts, orders or refuses requests. Between `submit` and the first event a request waits in a
//! bounded queue; dropping its `Generation` frees its place at once, wherever it is.
//!
//! The order is `fair_queue`'s, which is pure, behind the lock of a `model_queue`; here is one dispatcher task
//! per model, which leases the worker for the request that is next.

mod batch;
mod embedding;
mod fair_queue;
mod generation_stream;
mod model_queue;
mod service_time;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

pub use embedding::{EmbeddingError, EmbeddingRequest};
pub use generation_stream::Generation;

use crate::generation::{ClientKey, GenerationError, GenerationRequest, ModelId, RequestId};
use crate::settings::QueueSettings;
use crate::supervisor::{self, Extent, Lease, QueueEnd, RunJob, RunServices};
use fair_queue::Ticket;
use generation_stream::Withdrawal;
use model_queue::{Cost, ModelQueue, Waiting, Work, expire, expiry};

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
                let changes = self.shared.services.metrics.changes().clone();
                let queue = Arc::new(ModelQueue::new(model.clone(), capacity, changes));
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

    /// The requests that wait for a model, in the order of their turns as it would be now; `None` for one that
    /// makes no text.
    pub fn waiting(&self, model: &str) -> Vec<Option<RequestId>> {
        let queues = self.shared.queues();
        let Some(queue) = queues.get(model) else {
            return Vec::new();
        };
        let state = queue.lock();
        let order = state.waiting.in_order().into_iter();
        order.map(|waiting| waiting.request().cloned()).collect()
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
            (Some((waiting, running, charge)), Ok(mut lease)) => {
                // Another client's request may have come to the front meanwhile.
                lease.is_used_for(waiting.client(), waiting.keep_alive());
                let first = (running, Cost::of(&queue, charge), waiting);
                batch::start_together(&shared, (&model, &queue), first, lease).await;
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
        let slots = lease.slots();
        let served = supervisor::serve(lease, job, &running.0.services).await;
        cost.add(served.tokens);
        if served.extent == Extent::Whole {
            cost.queue.lock().service_time.record(served.time, slots);
        }
    });
}
