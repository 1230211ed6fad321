//! A reply as a body of events. A token's event is handed to the connection in the poll that sees the
//! token; tokens that are already waiting share one frame, and none waits for another. Dropping the
//! body cancels the generation.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use super::event_writer::EventWriter;
use super::silence::Silence;
use crate::chat::Reply;
use crate::conversation::ReplyPiece;
use crate::generation::{GenerationError, ReplyEvent};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::status::PublicError;

/// A frame that reaches this size is not filled further.
const FRAME_BYTES: usize = 16 * 1024;

pub(crate) struct StreamBody<W> {
    reply: Reply,
    writer: W,
    /// Once what is in it has been sent its memory is used again.
    buffer: BytesMut,
    silence: Silence,
    has_piece: bool,
    /// The field that the prompt came from.
    prompt_param: &'static str,
    /// Keeps the connection watched and the log line open until the stream ends.
    context: Arc<RequestContext>,
}

impl<W: EventWriter> StreamBody<W> {
    /// A stream that begins with the writer's opening and `first`, if there was an event already.
    pub fn new(
        reply: Reply,
        mut writer: W,
        first: Option<ReplyEvent>,
        keep_alive: Duration,
        prompt_param: &'static str,
        context: Arc<RequestContext>,
    ) -> Self {
        let mut buffer = BytesMut::new();
        writer.opening(&mut buffer);
        let mut body = Self {
            reply,
            writer,
            buffer,
            silence: Silence::new(keep_alive),
            has_piece: false,
            prompt_param,
            context,
        };
        if let Some(event) = first {
            body.write(event);
        }
        body
    }

    fn write(&mut self, event: ReplyEvent) {
        match event {
            // Too late for a header, and no event tells it.
            ReplyEvent::Started(_) => self.context.run_started(),
            ReplyEvent::Piece(piece) => self.piece(&piece),
            ReplyEvent::Pieces(pieces) => pieces.iter().for_each(|piece| self.piece(piece)),
            ReplyEvent::Finished(completion) => {
                self.context.completed(&completion);
                self.writer.finished(&completion, &mut self.buffer);
            }
            ReplyEvent::Failed(error) => self.fail(error),
        }
    }

    fn piece(&mut self, piece: &ReplyPiece) {
        if !self.has_piece {
            self.has_piece = true;
            self.context.first_text();
        }
        self.writer.piece(piece, &mut self.buffer);
    }

    fn fail(&mut self, error: GenerationError) {
        let error = RequestError::Generation {
            error: self.context.caller.may_read_error(error),
            prompt_param: self.prompt_param,
        };
        self.writer.failed(&error, &mut self.buffer);
        self.context.failed(PublicError::of(&error).code);
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
        while this.buffer.len() < FRAME_BYTES {
            match this.reply.poll_next(cx) {
                Poll::Ready(Some(event)) => this.write(event),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if this.buffer.is_empty() {
            if this.reply.is_over() {
                return Poll::Ready(None);
            }
            if this.silence.poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.writer.keep_alive(&mut this.buffer);
        }
        this.silence.broken();
        Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))))
    }
}
