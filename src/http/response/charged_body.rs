//! A large answer on its way to its reader: its bytes are charged to its request until they are in the
//! socket, and are handed to the connection piece by piece, which copies what it is given.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::response::error_shape::ErrorShape;
use crate::memory::Charge;

/// Smaller answers fit into the connection's own buffer.
const SMALL_BYTES: u64 = 16 * 1024;
/// The connection asks for the next piece of an answer when it has written the one before.
const PIECE_BYTES: usize = 256 * 1024;

/// An answer's extension: what it holds is charged already, which may be less than it gives.
#[derive(Clone, Copy)]
pub(in crate::http) struct ChargedByItself;

/// Charges the response's bytes, where it has all of them already. What cannot be charged is answered
/// with why.
pub(in crate::http) fn charged(
    response: Response,
    context: &RequestContext,
    shape: ErrorShape,
) -> Response {
    if response.extensions().get::<ChargedByItself>().is_some() {
        return response;
    }
    let bytes = match response.body().size_hint().exact() {
        Some(bytes) if bytes > SMALL_BYTES => usize::try_from(bytes).unwrap_or(usize::MAX),
        _ => return response,
    };
    match context.hand_over(bytes) {
        Ok(charge) => response.map(|body| {
            Body::new(Pieces {
                body,
                rest: Bytes::new(),
                _charge: charge,
            })
        }),
        Err(over) => shape.response(RequestError::from(over), &context.id),
    }
}

struct Pieces {
    body: Body,
    /// Of the frame that the body gave last.
    rest: Bytes,
    _charge: Charge,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint().exact() {
            Some(bytes) => SizeHint::with_exact(bytes + self.rest.len() as u64),
            None => SizeHint::default(),
        }
    }
}
