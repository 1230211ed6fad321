//! A request for hidden states or logits, served between generations: it waits in the same queue, and after
//! each of its turns, which is as long as one input or as the inputs of a second, it goes to the end
//! of its client's line. Dropping the future of `embed` withdraws it or aborts its run.

mod job;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::model_queue::{Cost, ModelQueue, Waiting, Work};
use super::{Admission, Shared};
use crate::generation::{Adapter, ClientKey, GenerationError, KeepAlive, ModelId};
use crate::library_calls::{Input, LibraryError, PooledRows, WantedRow};
use crate::memory::{Account, Charge, OverBudget};
use crate::supervisor::{
    Attempts, GivenUp, Lease, LostRow, Outer, PROBE_PROMPT, Proof, RowEnd, RowRequest, Suspicion,
    Total, Wish, pooled_row,
};
pub(super) use job::EmbeddingJob;
use job::RowsAnswer;

/// A turn ends after the input that passes this, so that another model gets the NPU too.
const TURN: Duration = Duration::from_secs(1);

/// Inputs of each of which a row is wanted.
#[derive(Clone, Debug)]
pub struct EmbeddingRequest {
    pub model: ModelId,
    /// `None`: the model as it is.
    pub adapter: Option<Arc<Adapter>>,
    pub client: ClientKey,
    pub inputs: Vec<Input>,
    pub wanted: WantedRow,
    /// Columns that a row must have at the least.
    pub least_columns: Option<usize>,
    /// Longest time from entering the queue to the last row. `None`: no such limit.
    pub total_deadline: Option<Duration>,
    /// For how long its model is to stay loaded after it. `None`: as the model's setting says.
    pub keep_alive: Option<KeepAlive>,
    /// Where its rows are charged while more are made. `None`: nowhere.
    pub account: Option<Account>,
}

/// Why there are no rows. An index is that of the input.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EmbeddingError {
    #[error(transparent)]
    Generation(#[from] GenerationError),
    #[error("input {index}: {error}")]
    Input { index: usize, error: LibraryError },
    /// By a model that takes others.
    #[error("input {index} is not one that the runtime takes: {error}")]
    Refused { index: usize, error: LibraryError },
    #[error("the model `{model}` gives no hidden states")]
    NoHiddenStates { model: String },
    #[error("the model `{model}` gives no logits of its yes and its no")]
    NoLogits { model: String },
    #[error("the model's embeddings have {columns} dimensions")]
    TooFewColumns { columns: usize },
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// What a turn came to.
enum Turned {
    Over(RowsAnswer),
    /// Its client does not wait for it.
    Abandoned,
    /// There is more to do, when its turn comes again. The lease, if there still is one, may be used
    /// at once.
    Unfinished(Option<Lease>),
}

/// One turn of a job.
pub(super) async fn serve(
    shared: &Shared,
    cost: &mut Cost,
    lease: Lease,
    mut job: Box<EmbeddingJob>,
    submitted_at: Instant,
) {
    let queue = Arc::clone(&cost.queue);
    let (began, slots) = (Instant::now(), lease.slots());
    let mut lease = lease;
    loop {
        match turn(shared, cost, lease, &mut job, submitted_at).await {
            Turned::Over(answer) => {
                queue.lock().service_time.record(began.elapsed(), slots);
                let _ = job.reply.send(answer);
                return;
            }
            Turned::Abandoned => return,
            Turned::Unfinished(unused) => {
                match (queue_again(shared, &queue, job, submitted_at), unused) {
                    // The lease goes back now.
                    (None, _) => return,
                    (Some(same), Some(unused)) => (job, lease) = (same, unused),
                    // It has neither a worker nor a queue to wait in.
                    (Some(same), None) => return same.fail(GenerationError::ShuttingDown),
                }
            }
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
    // It would stay in the queue of a model that has gone.
    if let Err(error) = queue.is_served(job.model()) {
        drop(state);
        job.fail(error);
        return None;
    }
    let (client, ticket) = (job.request.client.clone(), Arc::clone(&job.ticket));
    let waiting = Waiting {
        submitted_at,
        ..Waiting::new(Work::Embedding(job), 0)
    };
    let weight = client.weight().get();
    let again = state.waiting.push_again(client, weight, waiting);
    ticket.store(again, Ordering::SeqCst);
    drop(state);
    queue.filled.notify_one();
    None
}

async fn turn(
    shared: &Shared,
    cost: &mut Cost,
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
            charge,
            reply,
            ..
        } = job;
        // Nothing is begun for a client that has left.
        if reply.is_closed() {
            return Turned::Abandoned;
        }
        let free;
        let index = done.rows.len();
        let Some(input) = request.inputs.get(index) else {
            return Turned::Over(Ok(std::mem::take(done)));
        };
        let total = request.total_deadline.map(|limit| Total {
            at: submitted_at + limit,
            limit,
        });
        let row = RowRequest {
            input,
            adapter: request.adapter.as_deref(),
            wanted: request.wanted,
            total,
            cut_off: &mut cut_off,
        };
        if lease.is_batch() {
            let model = request.model.to_string();
            return Turned::Over(Err(match request.wanted {
                WantedRow::HiddenState(_) => EmbeddingError::NoHiddenStates { model },
                WantedRow::Logits(_) => EmbeddingError::NoLogits { model },
            }));
        }
        let supervisor = &shared.services.supervisor;
        let row = match pooled_row(supervisor, lease, row, reply.closed()).await {
            RowEnd::Answered(Ok(Some(row)), unused) => {
                free = unused;
                row
            }
            RowEnd::Answered(Ok(None), _) => {
                let model = request.model.to_string();
                return Turned::Over(Err(match request.wanted {
                    WantedRow::HiddenState(_) => EmbeddingError::NoHiddenStates { model },
                    WantedRow::Logits(_) => EmbeddingError::NoLogits { model },
                }));
            }
            RowEnd::RefusedInCompany(_, unused) if job.attempts.refused_in_company() => {
                drop(unused);
                lease = match another(shared, job, total).await {
                    Ok(lease) => lease,
                    Err(over) => return over,
                };
                continue;
            }
            RowEnd::Answered(Err(error), unused) | RowEnd::RefusedInCompany(error, unused) => {
                let lease = unused.filter(|_| matches!(error, LibraryError::Failed { .. }));
                let proof = match lease {
                    Some(lease) => match probe(shared, job, lease, total).await {
                        Ok(proof) => proof,
                        Err(over) => return over,
                    },
                    None => Proof::Unknown,
                };
                return Turned::Over(Err(match proof {
                    Proof::Serves => EmbeddingError::Refused { index, error },
                    Proof::Fails { .. } | Proof::Unknown => EmbeddingError::Input { index, error },
                }));
            }
            RowEnd::OutOfTime(error) | RowEnd::Unserved(error, _) => {
                return Turned::Over(Err(error.into()));
            }
            RowEnd::Abandoned => return Turned::Abandoned,
            RowEnd::Lost(lost) => {
                lease = match next_worker(shared, job, lost, total).await {
                    Ok(lease) => lease,
                    Err(over) => return over,
                };
                continue;
            }
        };
        let columns = row.values.len();
        if request.least_columns.is_some_and(|least| columns < least) {
            return Turned::Over(Err(EmbeddingError::TooFewColumns { columns }));
        }
        if let Some(account) = request.account.take() {
            let bytes = size_of_val(&*row.values).saturating_mul(request.inputs.len());
            match account.charge(bytes) {
                Ok(held) => *charge = Some(held),
                Err(over) => return Turned::Over(Err(over.into())),
            }
        }
        let tokens = u32::try_from(row.num_tokens).ok();
        cost.add(tokens.unwrap_or(0).into());
        done.prompt_tokens = done
            .prompt_tokens
            .zip(tokens)
            .and_then(|(sum, tokens)| sum.checked_add(tokens));
        done.rows.push(row.values);
        job.attempts.part_done();
        if job.done.rows.len() == job.request.inputs.len() {
            drop(free);
            return Turned::Over(Ok(std::mem::take(&mut job.done)));
        }
        let others_wait = !cost.queue.lock().waiting.is_empty();
        lease = match free {
            Some(free) if !others_wait && began.elapsed() < TURN => free,
            free => return Turned::Unfinished(free),
        };
    }
}

/// Decides what a lost worker means, and waits for another one where the job goes on.
async fn next_worker(
    shared: &Shared,
    job: &mut EmbeddingJob,
    lost: LostRow,
    total: Option<Total>,
) -> Result<Lease, Turned> {
    let model = ModelId::clone(&job.request.model);
    let death = lost.death();
    let error = lost.into_error();
    tracing::warn!(model = &*model, %error, "a worker was lost over an embedding");
    if let Err(given_up) = job.attempts.lost(death) {
        let cause = error.to_string();
        let error = match given_up {
            GivenUp::TooManyLosses => GenerationError::WorkerDied { cause },
            GivenUp::Poison => {
                let lease = another(shared, job, total).await?;
                let proof = probe(shared, job, lease, total).await?;
                Suspicion::Deaths { cause }.blame(proof, &model)
            }
        };
        return Err(Turned::Over(Err(error.into())));
    }
    shared.services.metrics.run_repeated(&model);
    another(shared, job, total).await
}

/// Has the worker of `lease` show whether the model serves another prompt. `Err`: the job was ended
/// meanwhile.
async fn probe(
    shared: &Shared,
    job: &mut EmbeddingJob,
    lease: Lease,
    total: Option<Total>,
) -> Result<Proof, Turned> {
    let mut cut_off = shared.cut_off.subscribe();
    let input = Input::prompt(PROBE_PROMPT);
    let row = RowRequest {
        input: &input,
        adapter: None,
        wanted: job.request.wanted,
        total,
        cut_off: &mut cut_off,
    };
    let supervisor = &shared.services.supervisor;
    Ok(
        match pooled_row(supervisor, lease, row, job.reply.closed()).await {
            RowEnd::Answered(Ok(Some(_)), _) => Proof::Serves,
            RowEnd::Answered(Ok(None), _) => Proof::Unknown,
            RowEnd::Answered(Err(error), _) | RowEnd::RefusedInCompany(error, _) => Proof::Fails {
                cause: error.to_string(),
            },
            RowEnd::Lost(lost) if lost.is_own_fault() => Proof::Fails {
                cause: lost.into_error().to_string(),
            },
            RowEnd::Lost(_) => Proof::Unknown,
            RowEnd::OutOfTime(error) | RowEnd::Unserved(error, _) => {
                return Err(Turned::Over(Err(error.into())));
            }
            RowEnd::Abandoned => return Err(Turned::Abandoned),
        },
    )
}

/// Waits for another worker, before all others that wait for one.
async fn another(
    shared: &Shared,
    job: &mut EmbeddingJob,
    total: Option<Total>,
) -> Result<Lease, Turned> {
    let model = ModelId::clone(&job.request.model);
    let client = job.request.client.clone();
    let queue_end = job.attempts.queue_end();
    let wish = Wish {
        keep_alive: job.keep_alive(),
        ..Wish::default()
    };
    let fail = |error: GenerationError| Turned::Over(Err(error.into()));
    let mut cut_off = shared.cut_off.subscribe();
    let mut outer = Outer {
        total,
        cut_off: Some(&mut cut_off),
    };
    tokio::select! {
        biased;
        () = job.reply.closed() => Err(Turned::Abandoned),
        error = outer.pass() => {
            if let GenerationError::DeadlineExceeded { deadline, .. } = &error {
                shared.services.metrics.deadline_passed(*deadline);
            }
            Err(fail(error))
        }
        lease = shared.services.supervisor.lease_with(client, model, queue_end, wish) => lease.map_err(fail),
    }
}
