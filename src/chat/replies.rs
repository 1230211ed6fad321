//! The replies to one request, of which there may be several: each is a run of its own, which takes its
//! place in the queue and is charged as one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{ChatService, Reply};
use crate::generation::{GenerationError, GenerationRequest, ReplyEvent, RunStart};

/// An event, and which of the replies it is of.
pub type OfReply = (usize, ReplyEvent);

/// Each reply's events in their order, those of different ones as they come. Dropping it cancels all.
pub struct Replies {
    chats: ChatService,
    /// Those that are in the queue or run.
    begun: VecDeque<(usize, Reply)>,
    waiting: VecDeque<(usize, GenerationRequest)>,
}

impl Replies {
    /// Submits the first `at_once` requests; each further one when another's reply has ended.
    pub fn begin(
        chats: ChatService,
        requests: Vec<GenerationRequest>,
        at_once: usize,
    ) -> Result<Self, GenerationError> {
        let mut replies = Self {
            chats,
            begun: VecDeque::new(),
            waiting: requests.into_iter().enumerate().collect(),
        };
        for _ in 0..at_once.max(1) {
            replies.begin_next()?;
        }
        Ok(replies)
    }

    fn begin_next(&mut self) -> Result<(), GenerationError> {
        if let Some((index, request)) = self.waiting.pop_front() {
            let reply = self.chats.chat(request)?;
            self.begun.push_back((index, reply));
        }
        Ok(())
    }

    /// The next event; `None` after the last one.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<OfReply>> {
        for _ in 0..self.begun.len() {
            let Some((index, mut reply)) = self.begun.pop_front() else {
                break;
            };
            let event = reply.poll_next(cx);
            // The others have their turn before it.
            match event {
                Poll::Ready(Some(event)) => {
                    if !reply.is_over() {
                        self.begun.push_back((index, reply));
                    } else if let ReplyEvent::Finished(_) = event
                        && let Some(&(next, _)) = self.waiting.front()
                        && let Err(error) = self.begin_next()
                    {
                        self.cancel();
                        return Poll::Ready(Some((next, ReplyEvent::Failed(error))));
                    }
                    if let ReplyEvent::Failed(_) = event {
                        self.cancel();
                    }
                    return Poll::Ready(Some((index, event)));
                }
                Poll::Ready(None) => {}
                Poll::Pending => self.begun.push_back((index, reply)),
            }
        }
        match self.is_over() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }

    pub async fn next(&mut self) -> Option<OfReply> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Gives all of them up. One that fails takes the others with it.
    pub fn cancel(&mut self) {
        self.begun.clear();
        self.waiting.clear();
    }

    /// Whether the last event was taken.
    pub fn is_over(&self) -> bool {
        self.begun.is_empty() && self.waiting.is_empty()
    }

    /// Waits until it is certain how the first of them begins: for its first piece or the end, or for
    /// `delay`, whichever comes first. Tells how the run started, or, where none has, what is `expected`.
    ///
    /// # Errors
    ///
    /// One failed before there was a piece.
    pub async fn first(
        &mut self,
        delay: Duration,
        expected: RunStart,
        mut started: impl FnMut(),
    ) -> Result<(RunStart, Option<OfReply>), GenerationError> {
        let mut delay = std::pin::pin!(tokio::time::sleep(delay));
        let mut start = expected;
        loop {
            let event = tokio::select! {
                biased;
                event = self.next() => event,
                () = &mut delay => return Ok((start, None)),
            };
            match event {
                Some((_, ReplyEvent::Started(run))) => {
                    started();
                    start = run;
                }
                Some((_, ReplyEvent::Failed(error))) => return Err(error),
                event => return Ok((start, event)),
            }
        }
    }
}
