//! A reply, or several beside each other, as a body of events. A token's event is handed to the connection in the poll that sees the
//! token; tokens that are already waiting share one frame, and none waits for another. Dropping the
//! body cancels the generations.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use super::event_writer::EventWriter;
use super::silence::Silence;
use crate::chat::{OfReply, Replies};
use crate::conversation::ReplyPiece;
use crate::generation::{Completion, GenerationError, ReplyEvent};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::status::PublicError;

/// What a writer holds back is charged in steps of this size, that no token pays for.
const HELD_STEP_BYTES: usize = 64 * 1024;
/// A frame that reaches this size is not filled further.
const FRAME_BYTES: usize = 16 * 1024;

pub(crate) struct StreamBody<W> {
    replies: Replies,
    /// One for each reply.
    writers: Vec<W>,
    /// How each reply ended that has.
    ended: Vec<Option<Completion>>,
    /// Replies to one prompt, which follow each other.
    of_prompt: usize,
    /// Once what is in it has been sent its memory is used again.
    buffer: BytesMut,
    silence: Silence,
    has_piece: bool,
    /// What is charged for what the writer holds back …
    held_bytes: usize,
    /// … beside this.
    charged_bytes: usize,
    /// No more events are taken.
    is_cut: bool,
    /// The field that the prompt came from.
    prompt_param: &'static str,
    /// Keeps the connection watched and the log line open until the stream ends.
    context: Arc<RequestContext>,
}

/// What a stream has of its request.
pub(crate) struct StreamContext {
    pub keep_alive: Duration,
    pub prompt_param: &'static str,
    pub context: Arc<RequestContext>,
}

impl<W: EventWriter> StreamBody<W> {
    /// A stream that begins with the writers' openings and `first`, if there was an event already.
    pub fn new(
        replies: Replies,
        writers: Vec<W>,
        of_prompt: usize,
        first: Option<OfReply>,
        stream: StreamContext,
    ) -> Self {
        let mut body = Self {
            replies,
            ended: writers.iter().map(|_| None).collect(),
            writers,
            of_prompt,
            buffer: BytesMut::new(),
            silence: Silence::new(stream.keep_alive),
            has_piece: false,
            held_bytes: 0,
            charged_bytes: stream.context.held(),
            is_cut: false,
            prompt_param: stream.prompt_param,
            context: stream.context,
        };
        for writer in &mut body.writers {
            writer.opening(&mut body.buffer);
            if body.context.is_running() {
                writer.started(&mut body.buffer);
            }
        }
        if let Some(event) = first {
            body.write(event);
        }
        body
    }

    fn write(&mut self, (index, event): OfReply) {
        match event {
            // Too late for a header.
            ReplyEvent::Started(_) => {
                self.context.run_started();
                for writer in &mut self.writers {
                    writer.started(&mut self.buffer);
                }
            }
            ReplyEvent::Piece(piece) => self.piece(index, &piece),
            ReplyEvent::Pieces(pieces) => {
                for piece in pieces {
                    if !self.is_cut {
                        self.piece(index, &piece);
                    }
                }
            }
            ReplyEvent::Finished(completion) => self.finished(index, *completion),
            ReplyEvent::Failed(error) => self.fail(index, error),
        }
    }

    fn finished(&mut self, index: usize, completion: Completion) {
        let Some(writer) = self.writers.get_mut(index) else {
            return;
        };
        writer.finished(&completion, &mut self.buffer);
        self.ended[index] = Some(completion);
        if self.ended.iter().any(Option::is_none) {
            return;
        }
        let all: Vec<Completion> = self.ended.drain(..).flatten().collect();
        if let Some(all) = Completion::of_all(&all, self.of_prompt) {
            self.context.completed(&all);
            self.writers[index].end(&all, &mut self.buffer);
        }
    }

    fn piece(&mut self, index: usize, piece: &ReplyPiece) {
        if !self.has_piece {
            self.has_piece = true;
            self.context.first_text();
        }
        if let Some(writer) = self.writers.get_mut(index) {
            writer.piece(piece, &mut self.buffer);
        }
        let held = self
            .writers
            .iter()
            .map(EventWriter::held_bytes)
            .sum::<usize>()
            + self.replies.held_bytes();
        if held > self.held_bytes {
            self.held_bytes = held.next_multiple_of(HELD_STEP_BYTES);
            let charged = self.context.hold(self.charged_bytes + self.held_bytes);
            if let Err(over) = charged {
                self.is_cut = true;
                self.fail_by(index, &RequestError::from(over));
            }
        }
    }

    /// Ends the stream before its replies do.
    fn abort(&mut self) {
        if self.is_cut || self.replies.is_over() {
            return;
        }
        // What has ended well is told so.
        if let Some(end) = self.replies.end_at_once() {
            self.write(end);
            return;
        }
        self.is_cut = true;
        self.replies.cancel();
        let index = self.ended.iter().position(Option::is_none).unwrap_or(0);
        self.fail_by(index, &self.context.abort.why());
    }

    fn fail(&mut self, index: usize, error: GenerationError) {
        let error = RequestError::Generation {
            error: self.context.caller.may_read_error(error),
            prompt_param: self.prompt_param,
        };
        self.fail_by(index, &error);
    }

    fn fail_by(&mut self, index: usize, error: &RequestError) {
        if let Some(writer) = self.writers.get_mut(index) {
            writer.failed(error, &mut self.buffer);
        }
        self.context.failed(PublicError::of(error).code);
    }
}

impl<W: EventWriter> Body for StreamBody<W> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.context.abort.is_wanted() {
            this.abort();
        }
        while this.buffer.len() < FRAME_BYTES && !this.is_cut {
            match this.replies.poll_next(cx) {
                Poll::Ready(Some(event)) => this.write(event),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if this.buffer.is_empty() {
            if this.is_cut || this.replies.is_over() {
                return Poll::Ready(None);
            }
            if this.context.abort.poll(cx).is_ready() {
                this.abort();
            } else if this.silence.poll(cx).is_pending() {
                return Poll::Pending;
            } else if let Some(writer) = this.writers.first_mut() {
                writer.keep_alive(&mut this.buffer);
            }
        }
        this.silence.broken();
        Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))))
    }
}
