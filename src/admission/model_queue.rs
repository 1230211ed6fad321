//! What waits for one model, and what its clients are charged for what was served. Behind one lock, which is
//! never held across an await.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::Shared;
use super::embedding::EmbeddingJob;
use super::fair_queue::{Charge, FairQueue, Ticket};
use super::generation_stream::Withdrawal;
use super::service_time::ServiceTime;
use crate::generation::{
    ClientKey, Deadline, GenerationError, GenerationRequest, KeepAlive, ModelId, ReplyEvent,
    RequestId,
};
use crate::supervisor::Wish;
use crate::telemetry::{Change, Changes};

#[derive(Debug)]
pub(super) struct ModelQueue {
    model: ModelId,
    /// Who follows it is told how many wait.
    changes: Changes,
    state: Mutex<QueueState>,
    /// Told when something was queued or the settings have changed.
    pub(super) filled: Notify,
    /// Told when the last waiting request was withdrawn.
    pub(super) emptied: Notify,
    /// The model is not installed any more.
    pub(super) closed: AtomicBool,
}

#[derive(Debug)]
pub(super) struct QueueState {
    pub(super) waiting: FairQueue<ClientKey, Waiting>,
    pub(super) service_time: ServiceTime,
    /// How many were told to wait.
    told: usize,
}

/// A queue that is looked at or changed. What has become of its length is told at the end.
pub(super) struct Locked<'a> {
    state: MutexGuard<'a, QueueState>,
    queue: &'a ModelQueue,
}

impl Deref for Locked<'_> {
    type Target = QueueState;

    fn deref(&self) -> &QueueState {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut QueueState {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let waiting = self.state.waiting.len();
        if std::mem::replace(&mut self.state.told, waiting) != waiting {
            let model = Arc::clone(&self.queue.model);
            // Under the lock: lengths are told in their order.
            self.queue.changes.tell(|| Change::Queue { model, waiting });
        }
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) work: Work,
    pub(super) submitted_at: Instant,
    /// When it came to where it waits now.
    pub(super) queued_at: Instant,
    /// Requests to be served before this one when it came.
    pub(super) position: usize,
}

/// What is to be done in a turn.
#[derive(Debug)]
pub(super) enum Work {
    Generation {
        request: Box<GenerationRequest>,
        events: mpsc::Sender<ReplyEvent>,
    },
    Embedding(Box<EmbeddingJob>),
}

impl QueueState {
    /// Whose turn is next, and which slot would suit its request. One that is alone may wait for that slot.
    pub(super) fn next(&self) -> Option<(ClientKey, Wish)> {
        let (client, waiting) = self.waiting.next()?;
        let (prompt, adapter) = match &waiting.work {
            Work::Generation { request, .. } => {
                (Some(Arc::clone(&request.prompt)), request.adapter.clone())
            }
            Work::Embedding(_) => (None, None),
        };
        let wish = Wish {
            prompt,
            // Said once it is known which request it is.
            batch_bytes: 0,
            adapter,
            may_wait: Arc::new(AtomicBool::new(self.waiting.len() == 1)),
            keep_alive: waiting.keep_alive(),
        };
        Some((client.clone(), wish))
    }
}

impl Waiting {
    pub(super) fn new(work: Work, position: usize) -> Self {
        let now = Instant::now();
        Self {
            work,
            submitted_at: now,
            queued_at: now,
            position,
        }
    }

    pub(super) fn model(&self) -> &ModelId {
        match &self.work {
            Work::Generation { request, .. } => &request.model,
            Work::Embedding(job) => job.model(),
        }
    }

    /// `None`: it makes no text, and its request is not known here.
    pub(super) fn request(&self) -> Option<&RequestId> {
        match &self.work {
            Work::Generation { request, .. } => Some(&request.id),
            Work::Embedding(_) => None,
        }
    }

    pub(super) fn client(&self) -> &ClientKey {
        match &self.work {
            Work::Generation { request, .. } => &request.client,
            Work::Embedding(job) => job.client(),
        }
    }

    pub(super) fn keep_alive(&self) -> Option<KeepAlive> {
        match &self.work {
            Work::Generation { request, .. } => request.keep_alive,
            Work::Embedding(job) => job.keep_alive(),
        }
    }

    pub(super) fn total_deadline(&self) -> Option<Duration> {
        match &self.work {
            Work::Generation { request, .. } => request.total_deadline,
            Work::Embedding(job) => job.total_deadline(),
        }
    }

    pub(super) fn fail(self, error: GenerationError) {
        match self.work {
            // Nothing was sent to it yet, so there is room, unless its reader has gone.
            Work::Generation { events, .. } => {
                let _ = events.try_send(ReplyEvent::Failed(error));
            }
            Work::Embedding(job) => job.fail(error),
        }
    }

    /// When it has waited too long: for its turn, or for its answer as a whole.
    pub(super) fn expires_at(&self, deadline: Duration) -> Instant {
        let waited = self.queued_at + deadline;
        let total = self.total_deadline().map(|total| self.submitted_at + total);
        total.map_or(waited, |total| waited.min(total))
    }
}

impl ModelQueue {
    pub(super) fn new(model: ModelId, capacity: usize, changes: Changes) -> Self {
        Self {
            model,
            changes,
            state: Mutex::new(QueueState {
                waiting: FairQueue::new(capacity),
                service_time: ServiceTime::default(),
                told: 0,
            }),
            filled: Notify::new(),
            emptied: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Its model has gone: fails what waits, and ends the dispatcher.
    pub(super) fn close(&self, model: &ModelId) {
        self.closed.store(true, Ordering::SeqCst);
        for waiting in self.lock().waiting.remove_where(|_| true) {
            let model = model.to_string();
            waiting.fail(GenerationError::UnknownModel { model });
        }
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    /// To be asked under the lock: `close` says so first and empties the queue afterwards.
    pub(super) fn is_served(&self, model: &str) -> Result<(), GenerationError> {
        match self.closed.load(Ordering::SeqCst) {
            true => Err(GenerationError::UnknownModel {
                model: model.to_owned(),
            }),
            false => Ok(()),
        }
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        // Nothing panics while it is held, and a queue is consistent after each operation.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { state, queue: self }
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

/// What a request costs, which its client is charged for when it is over, however it ends.
pub(super) struct Cost {
    pub(super) queue: Arc<ModelQueue>,
    /// `None` once it is settled.
    pub(super) charge: Option<Charge<ClientKey>>,
    /// `None`: nothing is known of it.
    pub(super) tokens: Option<u64>,
}

impl Cost {
    pub(super) fn of(queue: &Arc<ModelQueue>, charge: Charge<ClientKey>) -> Self {
        Self {
            queue: Arc::clone(queue),
            charge: Some(charge),
            tokens: None,
        }
    }

    pub(super) fn add(&mut self, tokens: u64) {
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

/// Waits until the first entry has waited too long.
pub(super) async fn expiry(queue: &ModelQueue, deadline: Duration) {
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

pub(super) fn expire(shared: &Shared, queue: &ModelQueue) {
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
