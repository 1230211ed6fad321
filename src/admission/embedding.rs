//! A request for hidden states, served between generations: it waits in the same queue, and after
//! each of its turns, which is as long as one input or as the inputs of a second, it goes to the end
//! of its client's line. Dropping the future of `embed` withdraws it or aborts its run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Admission, ModelQueue, Shared, Waiting, Work};
use crate::generation::{ClientKey, GenerationError, ModelId};
use crate::library_calls::{Input, LibraryError, PooledRows, Pooling};
use crate::supervisor::{Lease, RowFailure, Turn, pooled_row};

/// A turn ends after the input that passes this, so that another model gets the NPU too.
const TURN: Duration = Duration::from_secs(1);
/// Deaths by fault after which an input counts as their cause.
const POISON_FAULTS: u32 = 2;
/// Workers a request may use up in all, also without any fault of its own.
const MOST_LOSSES: u32 = 5;

/// Inputs whose hidden states are wanted, each pooled to one row.
#[derive(Clone, Debug)]
pub struct EmbeddingRequest {
    pub model: ModelId,
    pub client: ClientKey,
    pub inputs: Vec<Input>,
    pub pooling: Pooling,
    /// Columns that a row must have at the least.
    pub least_columns: Option<usize>,
    /// Longest time from entering the queue to the last row. `None`: no such limit.
    pub total_deadline: Option<Duration>,
}

/// Why there are no rows. An index is that of the input.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EmbeddingError {
    #[error(transparent)]
    Generation(#[from] GenerationError),
    #[error("input {index}: {error}")]
    Input { index: usize, error: LibraryError },
    #[error("the model `{model}` gives no hidden states")]
    NoHiddenStates { model: String },
    #[error("the model's embeddings have {columns} dimensions")]
    TooFewColumns { columns: usize },
}

type Answer = Result<PooledRows, EmbeddingError>;

/// An accepted request and what has come of it so far.
#[derive(Debug)]
pub(super) struct EmbeddingJob {
    request: EmbeddingRequest,
    done: PooledRows,
    /// Workers lost over the input that is next.
    faults: u32,
    /// Workers lost in all.
    losses: u32,
    reply: oneshot::Sender<Answer>,
    /// Its ticket where it waits now.
    ticket: Arc<AtomicU64>,
}

impl EmbeddingJob {
    pub fn model(&self) -> &ModelId {
        &self.request.model
    }

    pub fn total_deadline(&self) -> Option<Duration> {
        self.request.total_deadline
    }

    pub fn fail(self, error: GenerationError) {
        let _ = self.reply.send(Err(error.into()));
    }
}

/// Takes the request back when nobody waits for it any more.
struct Place {
    answer: oneshot::Receiver<Answer>,
    queue: Arc<ModelQueue>,
    client: ClientKey,
    ticket: Arc<AtomicU64>,
}

impl Drop for Place {
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
    pub async fn embed(&self, request: EmbeddingRequest) -> Answer {
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
            request,
            faults: 0,
            losses: 0,
            reply,
            ticket: Arc::clone(&ticket),
        };
        let mut place = Place {
            answer,
            queue: Arc::clone(&queue),
            client: client.clone(),
            ticket,
        };
        let work = Work::Embedding(Box::new(job));
        let first = self.shared.enqueue(&queue, (&model, &client), work)?;
        // A job that has had its first turn by now has a later ticket.
        place.ticket.fetch_max(first, Ordering::SeqCst);
        let gone = |_| GenerationError::Internal("an embedding was given up".to_owned());
        (&mut place.answer).await.map_err(gone)?
    }
}

/// What a turn came to.
enum Turned {
    Over(Answer),
    /// Nobody waits for it.
    Abandoned,
    /// There is more to do, when its turn comes again.
    Unfinished(Lease),
}

/// One turn of a job.
pub(super) async fn serve(
    shared: &Shared,
    queue: &Arc<ModelQueue>,
    lease: Lease,
    mut job: Box<EmbeddingJob>,
    submitted_at: Instant,
) {
    let began = Instant::now();
    let mut lease = lease;
    loop {
        match turn(shared, queue, lease, &mut job, submitted_at).await {
            Turned::Over(answer) => {
                queue.lock().service_time.record(began.elapsed());
                let _ = job.reply.send(answer);
                return;
            }
            Turned::Abandoned => return,
            Turned::Unfinished(unused) => match queue_again(shared, queue, job, submitted_at) {
                // The lease goes back now.
                None => return,
                Some(same) if unused.may_go_on() => (job, lease) = (same, unused),
                // No other worker is started at the end.
                Some(same) => return same.fail(GenerationError::ShuttingDown),
            },
        }
    }
}

/// Gives a job back where it must go on without another turn.
fn queue_again(
    shared: &Shared,
    queue: &ModelQueue,
    job: Box<EmbeddingJob>,
    submitted_at: Instant,
) -> Option<Box<EmbeddingJob>> {
    let mut state = queue.lock();
    if shared.closed.load(Ordering::SeqCst) {
        return Some(job);
    }
    if job.reply.is_closed() {
        return None;
    }
    let (client, ticket) = (job.request.client.clone(), Arc::clone(&job.ticket));
    let waiting = Waiting {
        submitted_at,
        ..Waiting::new(Work::Embedding(job), 0)
    };
    let again = state.waiting.push_again(client, waiting);
    ticket.store(again, Ordering::SeqCst);
    drop(state);
    queue.filled.notify_one();
    None
}

async fn turn(
    shared: &Shared,
    queue: &ModelQueue,
    mut lease: Lease,
    job: &mut EmbeddingJob,
    submitted_at: Instant,
) -> Turned {
    let began = Instant::now();
    let mut cut_off = shared.cut_off.subscribe();
    loop {
        let EmbeddingJob {
            request,
            done,
            reply,
            ..
        } = job;
        // Nothing is begun for nobody.
        if reply.is_closed() {
            return Turned::Abandoned;
        }
        let index = done.rows.len();
        let Some(input) = request.inputs.get(index) else {
            return Turned::Over(Ok(std::mem::take(done)));
        };
        let total = request.total_deadline.map(|limit| submitted_at + limit);
        let stop = async {
            tokio::select! {
                () = reply.closed() => {}
                _ = cut_off.wait_for(|cut_off| *cut_off) => {}
                () = at(total) => {}
            }
        };
        let services = &shared.services;
        let row = pooled_row(
            &services.supervisor,
            &mut lease,
            input,
            request.pooling,
            stop,
        )
        .await;
        // Dropped below with the lease, where the run was not ended well.
        if reply.is_closed() {
            return Turned::Abandoned;
        }
        match row {
            Ok(Some(tensor)) => {
                let columns = tensor.data.len();
                if request.least_columns.is_some_and(|least| columns < least) {
                    return Turned::Over(Err(EmbeddingError::TooFewColumns { columns }));
                }
                let tokens = u32::try_from(tensor.num_tokens).ok();
                done.prompt_tokens = done
                    .prompt_tokens
                    .zip(tokens)
                    .and_then(|(sum, tokens)| sum.checked_add(tokens));
                done.rows.push(tensor.data);
                job.faults = 0;
            }
            // A run that was stopped has none either.
            Ok(None) => {
                let error = stopped(shared, request, total).map_or_else(
                    || EmbeddingError::NoHiddenStates {
                        model: request.model.to_string(),
                    },
                    EmbeddingError::from,
                );
                return Turned::Over(Err(error));
            }
            Err(RowFailure::Answered(error)) => {
                return Turned::Over(Err(match stopped(shared, request, total) {
                    Some(stopped) => stopped.into(),
                    None => EmbeddingError::Input { index, error },
                }));
            }
            Err(RowFailure::WorkerLost { error, is_fault }) => {
                // Kills the worker, if it lives.
                drop(lease);
                lease = match next_worker(shared, job, (error, is_fault), total).await {
                    Ok(lease) => lease,
                    Err(over) => return over,
                };
                continue;
            }
        }
        let is_last = job.done.rows.len() == job.request.inputs.len();
        let others_wait = !queue.lock().waiting.is_empty();
        if !is_last && (others_wait || began.elapsed() >= TURN || !lease.may_go_on()) {
            return Turned::Unfinished(lease);
        }
    }
}

/// Waits until `time`; for ever where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Why a run was ended from our side, if it was.
fn stopped(
    shared: &Shared,
    request: &EmbeddingRequest,
    total: Option<Instant>,
) -> Option<GenerationError> {
    if *shared.cut_off.borrow() {
        return Some(GenerationError::ShuttingDown);
    }
    let limit = request.total_deadline?;
    if Instant::now() < total? {
        return None;
    }
    shared.services.metrics.deadline_passed("total");
    Some(GenerationError::DeadlineExceeded {
        deadline: "total",
        limit,
    })
}

/// Decides what a lost worker means, and waits for another one, before everybody else who does.
async fn next_worker(
    shared: &Shared,
    job: &mut EmbeddingJob,
    (error, is_fault): (LibraryError, bool),
    total: Option<Instant>,
) -> Result<Lease, Turned> {
    let model = ModelId::clone(&job.request.model);
    tracing::warn!(model = &*model, %error, "a worker was lost over an embedding");
    job.losses += 1;
    job.faults += u32::from(is_fault);
    let fail = |error: GenerationError| Turned::Over(Err(error.into()));
    if job.faults >= POISON_FAULTS {
        let cause = error.to_string();
        return Err(fail(GenerationError::PoisonRequest { cause }));
    }
    if job.losses >= MOST_LOSSES {
        let cause = error.to_string();
        return Err(fail(GenerationError::WorkerDied { cause }));
    }
    shared.services.metrics.run_repeated(&model);
    let mut cut_off = shared.cut_off.subscribe();
    tokio::select! {
        biased;
        () = job.reply.closed() => Err(Turned::Abandoned),
        _ = cut_off.wait_for(|cut_off| *cut_off) => Err(fail(GenerationError::ShuttingDown)),
        () = at(total) => Err(match stopped(shared, &job.request, total) {
            Some(error) => fail(error),
            None => Turned::Abandoned,
        }),
        lease = shared.services.supervisor.lease(model, Turn::First) => lease.map_err(fail),
    }
}
