//! Streams of a response in the background, from any of its events on. Who leaves one ends nothing but that stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::sync::watch;

use super::error::body;
use super::event_writer::DONE;
use crate::http::HttpState;
use crate::http::dialects::background_responses::{BackgroundResponse, Behind};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::response::sse;
use crate::http::response::sse::KEEP_ALIVE;
use crate::memory::{Account, Charge, OverBudget};

/// What waits for the reader of a stream, in the connection and before it.
const STREAM_BYTES: usize = 64 * 1024;

/// Who follows a response.
struct Follower {
    response: Arc<BackgroundResponse>,
    more: watch::Receiver<()>,
    /// The number of the event that is read next.
    next: u64,
    keep_alive: Duration,
    /// Keeps the connection watched, so that who leaves frees its place.
    _context: Arc<RequestContext>,
    _room: Charge,
    is_over: bool,
}

/// What one stream takes, whatever it reads.
pub(super) fn room_to_follow(account: &Account) -> Result<Charge, OverBudget> {
    account.charge(STREAM_BYTES)
}

/// The events of a response from that of a number on, until its end.
pub(super) fn follow(
    state: &HttpState,
    context: &Arc<RequestContext>,
    room: Charge,
    (response, next): (Arc<BackgroundResponse>, u64),
) -> Response {
    context.client_bound().bind();
    let follower = Follower {
        more: response.follow(),
        response,
        next,
        keep_alive: state.http.keep_alive,
        _context: Arc::clone(context),
        _room: room,
        is_over: false,
    };
    let body = Body::from_stream(stream::unfold(follower, Follower::next));
    sse::response(body)
}

/// A reader has fallen behind what is still there, or asks for it.
pub(super) fn gone(first: u64) -> RequestError {
    RequestError::out_of_range(
        "starting_after",
        format!(
            "names events that have made place for later ones: {first} is the first that is still there \
             (`background-events-limit-bytes` in the [responses] settings)"
        ),
    )
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.is_over {
            return None;
        }
        loop {
            // Before the look, so that nothing falls between the two.
            self.more.mark_unchanged();
            let read = match self.response.behind(self.next) {
                Behind::Events(events, next) => {
                    self.next = next;
                    events
                }
                Behind::TheEnd => {
                    self.is_over = true;
                    Bytes::from_static(DONE)
                }
                Behind::Gone => {
                    self.is_over = true;
                    self.fallen_behind()
                }
                Behind::NothingYet => {
                    let more = tokio::time::timeout(self.keep_alive, self.more.changed());
                    match more.await {
                        Ok(_) => continue,
                        Err(_) => Bytes::from_static(KEEP_ALIVE),
                    }
                }
            };
            return Some((Ok(read), self));
        }
    }

    /// It is the stream that fails, and not the response, so no event ends that.
    fn fallen_behind(&self) -> Bytes {
        let (first, _) = self.response.numbers();
        let body = body(&gone(first));
        let data = json!({
            "type": "error",
            "code": body.error.code,
            "message": body.error.message,
            "param": body.error.param,
            "error": body.error,
            "sequence_number": self.next,
        });
        Bytes::from(format!("event: error\ndata: {data}\n\n"))
    }
}
