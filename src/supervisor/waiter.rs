//! What waits for a worker of a model or a handle, and which of it comes first.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::client_turns::Waiting;
use super::event_loop::LeaseReply;
use crate::generation::{Adapter, ClientKey, KeepAlive};

/// A request or a preload that waits for a worker.
pub(super) struct Waiter {
    pub sequence: u64,
    /// `None`: a preload, content with the model being loaded where there is room.
    pub request: Option<LeaseRequest>,
}

/// A request for a lease.
pub(super) struct LeaseRequest {
    /// Whose turn it takes.
    pub client: ClientKey,
    /// Nothing else may be on the worker meanwhile.
    pub alone: bool,
    pub wish: Wish,
    pub reply: LeaseReply,
}

/// Which slot a request is best served in, and what becomes of the model after it.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// What it will have evaluated; `None`: nothing that a slot could hold.
    pub prompt: Option<Arc<str>>,
    /// Bytes that it will have evaluated, where it may begin in one batch with others that were lost with it.
    pub batch_bytes: usize,
    /// What it will be evaluated with.
    pub adapter: Option<Arc<Adapter>>,
    /// Whether a busy slot may be waited for while another one is free: nothing else would use that.
    pub may_wait: Arc<AtomicBool>,
    /// For how long the model is to stay loaded after it; `None`: as its setting says.
    pub keep_alive: Option<KeepAlive>,
}

impl Waiter {
    /// Its place among those that clients take turns in; others come before or after all of them.
    pub fn in_line(&self) -> Option<Waiting<'_>> {
        let is_first = self.sequence == 0;
        let client = &self.request.as_ref().filter(|_| !is_first)?.client;
        let arrival = self.sequence;
        Some(Waiting { arrival, client })
    }
}

/// The place among all that wait of the first of these. A preload may lie before requests that came
/// earlier than what waits for other models.
pub(super) fn first_place<'a>(
    waiters: impl IntoIterator<Item = &'a Waiter>,
    order: &[u64],
) -> Option<u64> {
    let places = waiters.into_iter().map(|waiter| place_of(waiter, order));
    places.min()
}

/// Its place among all that wait.
fn place_of(waiter: &Waiter, order: &[u64]) -> u64 {
    let in_line = order.iter().position(|arrival| *arrival == waiter.sequence);
    match (in_line, waiter.sequence) {
        (Some(place), _) => 1 + place as u64,
        // Before all of them.
        (None, 0) => 0,
        (None, sequence) => (1 + order.len() as u64).saturating_add(sequence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(sequence: u64) -> Waiter {
        Waiter {
            sequence,
            request: None,
        }
    }

    #[test]
    fn what_lies_first_hides_none_that_came_earlier() {
        let order = [3, 5];
        let (preload, request) = (waiter(9), waiter(3));
        assert_eq!(first_place([&preload], &order), Some(1 + 2 + 9));
        assert_eq!(first_place([&preload, &request], &order), Some(1));
        assert_eq!(first_place([&request, &waiter(0)], &order), Some(0));
        assert_eq!(first_place([], &order), None);
    }
}
