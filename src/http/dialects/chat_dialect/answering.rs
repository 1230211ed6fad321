//! The answer to a request whose reply is on its way: collected, or as a stream.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::{ChatDialect, Identity};
use crate::aside::aside;
use crate::chat::{Replies, WholeReply};
use crate::generation::{Completion, Deadline, GenerationError, ReplyEvent, RunStart};
use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::response::stream_body::{StreamBody, StreamContext};

/// An answer that is collected is charged in steps of this size.
const TEXT_STEP_BYTES: usize = 64 * 1024;
/// What waits for the reader of a stream, in the connection and before it.
const STREAM_BYTES: usize = 64 * 1024;

/// A request whose reply is on its way.
pub(super) struct Answering<'r, D> {
    pub(super) state: &'r HttpState,
    pub(super) context: &'r Arc<RequestContext>,
    /// The client's own deadline, where it is the shorter one.
    pub(super) own_deadline: Option<Duration>,
    /// The field that says what the answer is.
    pub(super) format: Option<&'static str>,
    pub(super) identity: Identity,
    pub(super) dialect: D,
    /// Answers.
    pub(super) count: usize,
    /// Answers to one prompt.
    pub(super) of_prompt: usize,
}

impl<D: ChatDialect> Answering<'_, D> {
    pub(super) async fn whole(
        &self,
        mut replies: Replies,
    ) -> Result<(RunStart, Response), RequestError> {
        let before = self.context.held();
        let mut held = TEXT_STEP_BYTES;
        let mut start = RunStart::default();
        let mut wholes: Vec<WholeReply> = vec![WholeReply::default(); self.count];
        let mut ended: Vec<Option<Completion>> = vec![None; self.count];
        let mut has_piece = false;
        while let Some((index, event)) = replies.next().await {
            let whole = &mut wholes[index];
            match event {
                ReplyEvent::Started(run) => {
                    self.context.run_started();
                    start = run;
                    continue;
                }
                ReplyEvent::Piece(piece) => whole.push(piece),
                ReplyEvent::Pieces(pieces) => {
                    pieces.into_iter().for_each(|piece| whole.push(piece));
                }
                ReplyEvent::Finished(completion) => {
                    ended[index] = Some(*completion);
                    continue;
                }
                ReplyEvent::Failed(error) => return Err(self.failed(error)),
            }
            if !std::mem::replace(&mut has_piece, true) {
                self.context.first_text();
            }
            // In steps, that no token pays for.
            let bytes: usize = wholes.iter().map(WholeReply::bytes).sum();
            let bytes = bytes + replies.held_bytes();
            while bytes > held {
                held += TEXT_STEP_BYTES;
                self.context.hold(before + held)?;
            }
        }
        let ended: Option<Vec<Completion>> = ended.into_iter().collect();
        let all = ended.and_then(|ended| {
            let all = Completion::of_all(&ended, self.of_prompt)?;
            Some((ended, all))
        });
        let Some((ended, all)) = all else {
            let error = "a reply has no end".to_owned();
            return Err(self.failed(GenerationError::Internal(error)));
        };
        self.context.completed(&all);
        let bytes = wholes.iter().map(WholeReply::bytes).sum();
        let replies = wholes.into_iter().zip(ended).collect();
        let identity = Identity {
            fingerprint: start.fingerprint.clone(),
            ..self.identity.clone()
        };
        // With log probabilities a long answer has megabytes.
        let json = aside(bytes, || {
            self.dialect.whole_of_all(&identity, replies, &all)
        })
        .map_err(|error| self.failed(GenerationError::Internal(error.to_string())))?;
        let headers = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        Ok((start, (headers, json).into_response()))
    }

    pub(super) async fn stream(
        &self,
        mut replies: Replies,
        expected: RunStart,
    ) -> Result<(RunStart, Response), RequestError> {
        let waiting = STREAM_BYTES.saturating_mul(self.count);
        self.context.hold(self.context.held() + waiting)?;
        let delay = match self.dialect.has_a_header() {
            true => self.state.http.header_delay,
            false => Duration::ZERO,
        };
        let (start, first) = replies
            .first(delay, expected, || self.context.run_started())
            .await
            .map_err(|error| self.failed(error))?;
        let writers = (0..self.count).map(|choice| {
            self.dialect.writer(&Identity {
                choice,
                fingerprint: start.fingerprint.clone(),
                ..self.identity.clone()
            })
        });
        let stream = StreamContext {
            keep_alive: self.state.http.keep_alive,
            prompt_param: D::PROMPT_PARAM,
            context: Arc::clone(self.context),
        };
        let body = StreamBody::new(replies, writers.collect(), self.of_prompt, first, stream);
        Ok((start, D::stream(Body::new(body))))
    }

    pub(super) fn failed(&self, error: GenerationError) -> RequestError {
        if let GenerationError::DeadlineExceeded { deadline, limit } = &error
            && *deadline == Deadline::Total
            && Some(*limit) == self.own_deadline
        {
            return RequestError::OwnDeadline { limit: *limit };
        }
        if let (GenerationError::CannotConstrain, Some(param)) = (&error, self.format) {
            return RequestError::CannotConstrain { param };
        }
        RequestError::Generation {
            error: self.context.caller.may_read_error(error),
            prompt_param: D::PROMPT_PARAM,
        }
    }
}
