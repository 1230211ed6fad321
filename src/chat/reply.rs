use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::admission::Generation;
use crate::generation::{GenerationError, ReplyEvent, RunStart};

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

    pub async fn next(&mut self) -> Option<ReplyEvent> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Whether the last event was taken.
    pub fn is_over(&self) -> bool {
        self.generation.is_none()
    }

    /// Waits until it is certain how the reply begins: for the first piece or the end, or for `delay`,
    /// whichever comes first. Tells how the run started, or, where it has not, what is `expected`.
    ///
    /// # Errors
    ///
    /// It failed before there was a piece.
    pub async fn begun(
        &mut self,
        delay: Duration,
        expected: RunStart,
        mut started: impl FnMut(),
    ) -> Result<(RunStart, Option<ReplyEvent>), GenerationError> {
        let mut delay = std::pin::pin!(tokio::time::sleep(delay));
        let mut start = expected;
        loop {
            let event = tokio::select! {
                biased;
                event = self.next() => event,
                () = &mut delay => return Ok((start, None)),
            };
            match event {
                Some(ReplyEvent::Started(run)) => {
                    started();
                    start = run;
                }
                Some(ReplyEvent::Failed(error)) => return Err(error),
                event => return Ok((start, event)),
            }
        }
    }
}
