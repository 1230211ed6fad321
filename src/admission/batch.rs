//! Requests that are made in one batch: those at the front of the queue that can be, in the order of their turns.
//! None waits for company that has not come, and none is passed over.

use std::sync::Arc;

use super::model_queue::{Cost, ModelQueue, QueueState, Waiting, Work};
use super::{Running, Shared, start};
use crate::generation::{Adapter, GenerationRequest, ModelId, SamplingRequest};
use crate::supervisor::Lease;

/// What requests must have in common.
#[derive(Clone, Debug, PartialEq)]
struct Alike {
    sampling: SamplingRequest,
    adapter: Option<Arc<str>>,
}

impl Alike {
    /// `None`: it makes no text, and is served by itself.
    fn of(work: &Work) -> Option<Self> {
        match work {
            Work::Generation { request, .. } => Some(Self::of_request(request)),
            Work::Embedding(_) => None,
        }
    }

    fn of_request(request: &GenerationRequest) -> Self {
        let name = |adapter: &Arc<Adapter>| Arc::clone(&adapter.name);
        Self {
            sampling: request.sampling,
            adapter: request.adapter.as_ref().map(name),
        }
    }
}

/// Whether the request whose turn is next can be in one batch with this one.
fn next_is_alike(state: &QueueState, first: &Alike) -> bool {
    let next = state.waiting.next();
    next.and_then(|(_, waiting)| Alike::of(&waiting.work))
        .as_ref()
        == Some(first)
}

/// Starts the request that a lease was granted for, and those that go with it.
pub(super) async fn start_together(
    shared: &Arc<Shared>,
    (model, queue): (&ModelId, &Arc<ModelQueue>),
    first: (Running, Cost, Waiting),
    lease: Lease,
) {
    let Some(alike) = Alike::of(&first.2.work).filter(|_| lease.is_batch()) else {
        let (running, cost, waiting) = first;
        return start(running, cost, waiting, lease);
    };
    lease.adds_prompt(prompt_bytes(&first.2));
    let mut together = vec![(first, lease)];
    while let Some((_, lease)) = together.first() {
        let wish = {
            let state = queue.lock();
            match next_is_alike(&state, &alike) {
                true => state.next(),
                false => None,
            }
        };
        let Some((client, wish)) = wish else { break };
        let supervisor = &shared.services.supervisor;
        let Some(mut joined) = supervisor.join(lease, model, (client, wish)).await else {
            break;
        };
        let next = {
            let mut state = queue.lock();
            // Another request may have come to the front meanwhile.
            let next = match next_is_alike(&state, &alike) {
                true => state.waiting.pop(),
                false => None,
            };
            // Under the lock: see `dispatch`.
            next.map(|(waiting, charge)| (waiting, Running::begin(shared), charge))
        };
        let Some((waiting, running, charge)) = next else {
            break;
        };
        joined.is_used_for(waiting.client(), waiting.keep_alive());
        joined.adds_prompt(prompt_bytes(&waiting));
        let cost = Cost::of(queue, charge);
        together.push(((running, cost, waiting), joined));
    }
    let metrics = &shared.services.metrics;
    metrics.batch_begins(model, together.len());
    for ((running, cost, waiting), lease) in together {
        start(running, cost, waiting, lease);
    }
}

fn prompt_bytes(waiting: &Waiting) -> usize {
    match &waiting.work {
        Work::Generation { request, .. } => request.prompt.len(),
        Work::Embedding(_) => 0,
    }
}
