//! The replies to one request, of which there may be several: each is a run of its own, which takes its
//! place in the queue and is charged as one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::closing::{self, Closing, Making};
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
    /// What follows the only reply that there is …
    closing: Option<Box<dyn Closing>>,
    /// … and its end, once it has come, until something is made of it.
    ended: Option<(Making, OfReply)>,
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
            closing: None,
            ended: None,
        };
        for _ in 0..at_once.max(1) {
            replies.begin_next()?;
        }
        Ok(replies)
    }

    /// The same of one reply, whose end is told once something is made of it.
    #[must_use]
    pub fn closing_with(self, closing: Option<Box<dyn Closing>>) -> Self {
        Self { closing, ..self }
    }

    /// What is kept of the reply for what closes it, in bytes.
    pub fn held_bytes(&self) -> usize {
        let closing = self.closing.as_ref();
        closing.map_or(0, |closing| closing.held_bytes())
    }

    /// The end of a reply of which something is still being made, which is then given up.
    pub fn end_at_once(&mut self) -> Option<OfReply> {
        self.ended.take().map(|(_, event)| event)
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
        if self.ended.is_none() {
            let event = ready!(self.poll_event(cx));
            let (Some(closing), Some((_, told))) = (&mut self.closing, &event) else {
                return Poll::Ready(event);
            };
            if !matches!(told, ReplyEvent::Finished(_)) {
                closing::show(&mut **closing, told);
                return Poll::Ready(event);
            }
            let closing = self.closing.take();
            self.ended = closing.map(Closing::ended).zip(event);
        }
        if let Some((making, _)) = &mut self.ended {
            ready!(making.as_mut().poll(cx));
        }
        Poll::Ready(self.end_at_once())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<OfReply>> {
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
        match self.begun.is_empty() && self.waiting.is_empty() {
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
        self.ended = None;
    }

    /// Whether the last event was taken.
    pub fn is_over(&self) -> bool {
        self.begun.is_empty() && self.waiting.is_empty() && self.ended.is_none()
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
