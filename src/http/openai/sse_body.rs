//! A generation as a body of events. A token's event is handed to the connection in the poll that
//! sees the token; tokens that are already waiting share one frame, and none waits for another.
//! Dropping the body cancels the generation.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::Endpoint;
use super::chunk::ChunkWriter;
use crate::admission::Generation;
use crate::generation::{GenerationError, TokenEvent};
use crate::http::request_context::RequestContext;
use crate::http::request_error::RequestError;
use crate::http::status::verdict;

/// A frame that reaches this size is not filled further.
const FRAME_BYTES: usize = 16 * 1024;

pub(super) struct SseBody {
    /// `None` once its last event is written.
    generation: Option<Generation>,
    endpoint: Endpoint,
    writer: ChunkWriter,
    silence: Silence,
    has_text: bool,
    /// Keeps the connection watched and the log line open until the stream ends.
    context: Arc<RequestContext>,
}

impl SseBody {
    /// A stream that begins with the opening chunk and `first`, if there was an event already.
    pub fn new(
        generation: Generation,
        endpoint: Endpoint,
        mut writer: ChunkWriter,
        first: Option<TokenEvent>,
        keep_alive: Duration,
        context: Arc<RequestContext>,
    ) -> Self {
        writer.opening();
        let mut body = Self {
            generation: Some(generation),
            endpoint,
            writer,
            silence: Silence::new(keep_alive),
            has_text: false,
            context,
        };
        if let Some(event) = first {
            body.write(event);
        }
        body
    }

    fn write(&mut self, event: TokenEvent) {
        match event {
            // Too late for a header, and no chunk tells it.
            TokenEvent::Started(_) => self.context.run_started(),
            TokenEvent::Text(delta) => {
                if !self.has_text {
                    self.has_text = true;
                    self.context.first_text();
                }
                self.writer.text(&delta.text);
            }
            TokenEvent::Finished(completion) => {
                self.writer.finish(&completion);
                self.context.completed(&completion);
                self.generation = None;
            }
            TokenEvent::Failed(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: GenerationError) {
        let error = RequestError::Generation {
            error,
            prompt_param: self.endpoint.prompt_param(),
        };
        self.writer.error(&error);
        self.context.failed(verdict(&error).code);
        self.generation = None;
    }
}

impl Body for SseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        while this.writer.len() < FRAME_BYTES
            && let Some(generation) = &mut this.generation
        {
            match generation.poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(event)) => this.write(event),
                Poll::Ready(None) => this.fail(ended_without_result()),
            }
        }
        if this.writer.len() == 0 {
            if this.generation.is_none() {
                return Poll::Ready(None);
            }
            if this.silence.poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.writer.keep_alive();
        }
        this.silence.broken();
        Poll::Ready(Some(Ok(Frame::data(this.writer.take()))))
    }
}

/// Its sender promised a last event.
pub(super) fn ended_without_result() -> GenerationError {
    GenerationError::Internal("the generation ended without a result".to_owned())
}

/// Notices silence with one timer that is set anew when it fires, not with every token.
pub(crate) struct Silence {
    limit: Duration,
    last_sound: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            last_sound: Instant::now(),
            timer: Box::pin(tokio::time::sleep(limit)),
        }
    }

    pub fn broken(&mut self) {
        self.last_sound = Instant::now();
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = self.last_sound + self.limit;
            if due <= now {
                self.timer.as_mut().reset(now + self.limit);
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}
