use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::generation::TokenEvent;

/// The reading end of one generation. Dropping it cancels the generation, queued or running.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<TokenEvent>,
}

impl Generation {
    /// Cancellation needs no signal of its own: the sender sees the receiver go.
    pub fn new(events: mpsc::Receiver<TokenEvent>) -> Self {
        Self { events }
    }

    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<TokenEvent> {
        self.events.recv().await
    }

    /// `next` for hand-written streams: several ready events can be taken in one poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TokenEvent>> {
        self.events.poll_recv(cx)
    }
}
