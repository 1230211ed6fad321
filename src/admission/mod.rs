//! Accepts, orders or refuses requests. Between `submit` and the first event a request waits in a
//! bounded queue; dropping its `Generation` frees its place at once, wherever it is.
//!
//! The order is `fair_queue`'s, which is pure; here are its lock, which is never held across an
//! await, and one dispatcher task per model, which leases the worker for whoever is next.

mod fair_queue;
mod generation_stream;
mod service_time;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

pub use generation_stream::Generation;

use crate::generation::{ClientKey, GenerationError, GenerationRequest, ModelId, TokenEvent};
use crate::settings::QueueSettings;
use crate::supervisor::{self, Lease, RunJob, RunServices, Served, Turn};
use fair_queue::{FairQueue, Ticket};
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
    settings: QueueSettings,
    queues: HashMap<ModelId, Arc<ModelQueue>>,
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
    /// Told when something was queued.
    filled: Notify,
    /// Told when the last waiting request was withdrawn.
    emptied: Notify,
}

#[derive(Debug)]
struct QueueState {
    waiting: FairQueue<ClientKey, Waiting>,
    service_time: ServiceTime,
}

#[derive(Debug)]
struct Waiting {
    request: GenerationRequest,
    events: mpsc::Sender<TokenEvent>,
    submitted_at: Instant,
    /// Requests to be served before this one when it came.
    position: usize,
}

impl Waiting {
    /// When it has waited too long: for its turn, or for its answer as a whole.
    fn expires_at(&self, deadline: Duration) -> Instant {
        let total = self.request.total_deadline.unwrap_or(deadline);
        self.submitted_at + deadline.min(total)
    }
}

impl ModelQueue {
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
        let queues: HashMap<_, _> = models
            .into_iter()
            .map(|model| {
                let state = Mutex::new(QueueState {
                    waiting: FairQueue::new(settings.capacity),
                    service_time: ServiceTime::default(),
                });
                (
                    model,
                    Arc::new(ModelQueue {
                        state,
                        filled: Notify::new(),
                        emptied: Notify::new(),
                    }),
                )
            })
            .collect();
        let shared = Arc::new(Shared {
            services,
            settings,
            queues,
            next_run: AtomicU64::new(1),
            running: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            cut_off: watch::Sender::new(false),
            run_ended: Notify::new(),
        });
        for (model, queue) in &shared.queues {
            tokio::spawn(dispatch(
                Arc::clone(&shared),
                model.clone(),
                Arc::clone(queue),
            ));
        }
        Self { shared }
    }

    /// Queues a request. Fails at once when the model is unknown, the queue is full or the daemon
    /// is shutting down; every later failure arrives as an event.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError> {
        let model = request.model.to_string();
        let Some(queue) = self.shared.queues.get(&request.model) else {
            return Err(GenerationError::UnknownModel { model });
        };
        let (events, reader) = mpsc::channel(EVENT_BUFFER);
        let client = request.client.clone();
        let submitted_at = Instant::now();
        let mut state = queue.lock();
        // Under the lock: `drain` says so first and empties the queue afterwards.
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(GenerationError::ShuttingDown);
        }
        let waiting = Waiting {
            request,
            events,
            submitted_at,
            position: state.waiting.ahead_of_next(&client),
        };
        let ticket = match state.waiting.push(client.clone(), waiting) {
            Ok(ticket) => ticket,
            Err(_) => {
                let waiting = state.waiting.len();
                return Err(GenerationError::QueueFull {
                    model,
                    waiting,
                    retry_after: state.service_time.retry_after(waiting),
                });
            }
        };
        drop(state);
        queue.filled.notify_one();
        let place: Arc<dyn Withdrawal> = Arc::clone(queue) as _;
        Ok(Generation::queued(reader, place, client, ticket))
    }

    /// Requests waiting for a model, and how many may wait.
    pub fn queue(&self, model: &str) -> QueueFigures {
        let state = self.shared.queues.get(model).map(|queue| queue.lock());
        QueueFigures {
            waiting: state.as_ref().map_or(0, |state| state.waiting.len()),
            capacity: state.map_or(0, |state| state.waiting.capacity()),
        }
    }

    /// Accepts nothing more and fails what waits. Returns when the last run has ended; `false` when
    /// `limit` passed first: the readers left were told so, and their runs were given `more` to end.
    pub async fn drain(&self, limit: Duration, more: Duration) -> bool {
        self.shared.closed.store(true, Ordering::SeqCst);
        for queue in self.shared.queues.values() {
            for waiting in queue.lock().waiting.remove_where(|_| true) {
                fail(&waiting, GenerationError::ShuttingDown);
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

/// Serves one model's queue for the daemon's life.
async fn dispatch(shared: Arc<Shared>, model: ModelId, queue: Arc<ModelQueue>) {
    loop {
        let filled = queue.filled.notified();
        let mut emptied = pin!(queue.emptied.notified());
        // Before the look at the queue, so that no withdrawal falls between the two.
        emptied.as_mut().enable();
        if queue.lock().waiting.is_empty() {
            filled.await;
            continue;
        }
        let mut lease = pin!(shared.services.supervisor.lease(model.clone(), Turn::Last));
        let lease = loop {
            tokio::select! {
                lease = &mut lease => break Some(lease),
                // Nobody waits any more: the worker is not asked for, and nothing is loaded for
                // nobody.
                () = &mut emptied => break None,
                () = expiry(&queue, shared.settings.deadline) => {
                    expire(&shared, &queue);
                    if queue.lock().waiting.is_empty() {
                        break None;
                    }
                }
                // Somebody who came later may expire sooner.
                () = queue.filled.notified() => {}
            }
        };
        let Some(lease) = lease else { continue };
        let next = {
            let mut state = queue.lock();
            let next = state.waiting.pop();
            if next.is_some() {
                // Under the lock: whom `drain` does not find here it finds running.
                shared.running.fetch_add(1, Ordering::SeqCst);
            }
            next
        };
        match (next, lease) {
            (Some(waiting), Ok(lease)) => start(&shared, &queue, waiting, lease),
            (Some(waiting), Err(error)) => {
                fail(&waiting, error);
                shared.run_is_over();
            }
            (None, _) => {}
        }
    }
}

impl Shared {
    fn run_is_over(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.run_ended.notify_waiters();
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
    let deadline = shared.settings.deadline;
    let now = Instant::now();
    let expired = queue
        .lock()
        .waiting
        .remove_where(|waiting| waiting.expires_at(deadline) <= now);
    for waiting in expired {
        let waited = now - waiting.submitted_at;
        let error = match waiting.request.total_deadline {
            Some(limit) if limit <= waited => {
                shared.services.metrics.deadline_passed("total");
                GenerationError::DeadlineExceeded {
                    deadline: "total",
                    limit,
                }
            }
            _ => GenerationError::QueueDeadline {
                model: waiting.request.model.to_string(),
                waited,
            },
        };
        fail(&waiting, error);
    }
}

fn fail(waiting: &Waiting, error: GenerationError) {
    // Nothing was sent to it yet, so there is room, unless its reader has gone.
    let _ = waiting.events.try_send(TokenEvent::Failed(error));
}

fn start(shared: &Arc<Shared>, queue: &Arc<ModelQueue>, waiting: Waiting, lease: Lease) {
    let job = RunJob {
        run: shared.next_run.fetch_add(1, Ordering::Relaxed),
        request: waiting.request,
        events: waiting.events,
        submitted_at: waiting.submitted_at,
        queue_position: u32::try_from(waiting.position).unwrap_or(u32::MAX),
        cut_off: shared.cut_off.subscribe(),
    };
    let (shared, queue) = (Arc::clone(shared), Arc::clone(queue));
    tokio::spawn(async move {
        let started = Instant::now();
        if supervisor::serve(lease, job, &shared.services).await == Served::Whole {
            queue.lock().service_time.record(started.elapsed());
        }
        shared.run_is_over();
    });
}
