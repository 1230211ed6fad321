//! A request's body that tells its connection when it has been read to its end: hyper closes a connection
//! whose request it could not read whole, and nothing else may be announced then.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::traffic::Traffic;

pub(crate) struct WatchedBody {
    body: Incoming,
    traffic: Arc<Traffic>,
}

impl WatchedBody {
    pub(super) fn new(body: Incoming, traffic: Arc<Traffic>) -> Self {
        traffic.body_is_whole(body.is_end_stream());
        Self { body, traffic }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.traffic.body_is_whole(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
