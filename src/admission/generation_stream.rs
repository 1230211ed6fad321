//! The reading end of one generation.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::fair_queue::Ticket;
use crate::generation::{ClientKey, ReplyEvent};

/// Where a queued request can be taken back from.
pub(super) trait Withdrawal: Send + Sync {
    /// Does nothing when the request is not waiting any more.
    fn withdraw(&self, client: &ClientKey, ticket: Ticket);
}

/// Where it is taken back from when its reader goes.
struct Queued {
    queue: Arc<dyn Withdrawal>,
    client: ClientKey,
    ticket: Ticket,
}

/// The events of one generation. Dropping it cancels the generation: a queued one leaves the
/// queue, a running one sees its reader go.
pub struct Generation {
    events: mpsc::Receiver<ReplyEvent>,
    queued: Option<Queued>,
}

impl Generation {
    /// A generation that was never queued.
    pub fn new(events: mpsc::Receiver<ReplyEvent>) -> Self {
        Self {
            events,
            queued: None,
        }
    }

    pub(super) fn queued(
        events: mpsc::Receiver<ReplyEvent>,
        queue: Arc<dyn Withdrawal>,
        client: ClientKey,
        ticket: Ticket,
    ) -> Self {
        let queued = Some(Queued {
            queue,
            client,
            ticket,
        });
        Self { events, queued }
    }

    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<ReplyEvent> {
        self.events.recv().await
    }

    /// `next` for hand-written streams: several ready events can be taken in one poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<ReplyEvent>> {
        self.events.poll_recv(cx)
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").finish_non_exhaustive()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if let Some(queued) = self.queued.take() {
            queued.queue.withdraw(&queued.client, queued.ticket);
        }
    }
}
