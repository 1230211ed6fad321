//! A request on its way: accepted, queued, and waited for by its client, without whom it is withdrawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    Admission, Attempts, Charge, EmbeddingError, EmbeddingRequest, ModelQueue, PooledRows, Work,
};
use crate::generation::{ClientKey, GenerationError, KeepAlive, ModelId};

pub(super) type RowsAnswer = Result<PooledRows, EmbeddingError>;

/// An accepted request and what has come of it so far.
#[derive(Debug)]
pub struct EmbeddingJob {
    pub(super) request: EmbeddingRequest,
    pub(super) done: PooledRows,
    /// Of all its rows; it begins with the first one, which tells how long they are.
    pub(super) charge: Option<Charge>,
    /// Those of the input that is next.
    pub(super) attempts: Attempts,
    pub(super) reply: oneshot::Sender<RowsAnswer>,
    /// Its ticket where it waits now.
    pub(super) ticket: Arc<AtomicU64>,
}

impl EmbeddingJob {
    pub fn client(&self) -> &ClientKey {
        &self.request.client
    }

    pub fn model(&self) -> &ModelId {
        &self.request.model
    }

    pub fn keep_alive(&self) -> Option<KeepAlive> {
        self.request.keep_alive
    }

    pub fn total_deadline(&self) -> Option<Duration> {
        self.request.total_deadline
    }

    pub fn fail(self, error: GenerationError) {
        let _ = self.reply.send(Err(error.into()));
    }
}

/// A request whose client waits for its rows; taken back when the client does not any more.
struct PendingRows {
    answer: oneshot::Receiver<RowsAnswer>,
    queue: Arc<ModelQueue>,
    client: ClientKey,
    ticket: Arc<AtomicU64>,
}

impl Drop for PendingRows {
    fn drop(&mut self) {
        // First: a turn that ends now sees under the lock that it need not be queued again.
        self.answer.close();
        let mut state = self.queue.lock();
        let ticket = self.ticket.load(Ordering::SeqCst);
        let removed = state.waiting.remove(&self.client, ticket);
        if removed.is_some() && state.waiting.is_empty() {
            self.queue.emptied.notify_waiters();
        }
    }
}

impl Admission {
    /// Queues a request and waits for its rows. Dropping the future cancels it.
    pub async fn embed(&self, request: EmbeddingRequest) -> RowsAnswer {
        let model = ModelId::clone(&request.model);
        let queue = self.shared.queues().get(&model).cloned();
        let Some(queue) = queue else {
            let model = model.to_string();
            return Err(GenerationError::UnknownModel { model }.into());
        };
        let client = request.client.clone();
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(AtomicU64::new(0));
        let job = EmbeddingJob {
            done: PooledRows {
                rows: Vec::with_capacity(request.inputs.len()),
                prompt_tokens: Some(0),
            },
            charge: None,
            request,
            attempts: Attempts::default(),
            reply,
            ticket: Arc::clone(&ticket),
        };
        let mut pending = PendingRows {
            answer,
            queue: Arc::clone(&queue),
            client: client.clone(),
            ticket,
        };
        let work = Work::Embedding(Box::new(job));
        let first = self.shared.enqueue(&queue, (&model, &client), work)?;
        // A job that has had its first turn by now has a later ticket.
        pending.ticket.fetch_max(first, Ordering::SeqCst);
        let gone = |_| GenerationError::Internal("an embedding was given up".to_owned());
        (&mut pending.answer).await.map_err(gone)?
    }
}
