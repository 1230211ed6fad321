use std::task::{Context, Poll, ready};

use crate::admission::Generation;
use crate::generation::{GenerationError, ReplyEvent};

/// The events of one reply, the last of which is `Finished` or `Failed`, whatever becomes of who makes
/// them. Dropping it cancels the generation.
pub struct Reply {
    /// `None` behind the last event.
    generation: Option<Generation>,
}

impl Reply {
    pub fn new(generation: Generation) -> Self {
        Self {
            generation: Some(generation),
        }
    }

    /// The next event; `None` after the last one. Several ready events can be taken in one poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<ReplyEvent>> {
        let Some(generation) = &mut self.generation else {
            return Poll::Ready(None);
        };
        // Its sender promised a last event.
        let event = ready!(generation.poll_next(cx)).unwrap_or_else(|| {
            let problem = "the generation ended without a result".to_owned();
            ReplyEvent::Failed(GenerationError::Internal(problem))
        });
        if event.is_last() {
            self.generation = None;
        }
        Poll::Ready(Some(event))
    }

    /// Whether the last event was taken.
    pub fn is_over(&self) -> bool {
        self.generation.is_none()
    }
}
