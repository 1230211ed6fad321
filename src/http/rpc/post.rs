//! `POST /rpc`: one message, one answer. Asked for an event stream, the answer is the notifications
//! of its calls and then the answer itself, an event each. A handle belongs to the client, because
//! each request is on its own; a client that goes away ends its request's runs.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;
use tokio::task::JoinHandle;

use super::origin;
use super::outgoing::Queue;
use super::protocol::{ErrorKind, Reply, RpcError};
use super::session::{Afterwards, Answer, Session};
use crate::http::openai::sse_body::Silence;
use crate::http::request_context::RequestContext;
use crate::http::status::verdict;
use crate::http::{HttpState, request_body, sse};

/// The connection asks for the next piece of an answer when it has written the one before.
const PIECE_BYTES: usize = 256 * 1024;

/// A JSON-RPC 2.0 message
///
/// The vendor's functions, one to one; `rpc.discover` describes them. With `Accept:
/// text/event-stream` the answer is a stream of events: the notifications of the message's calls,
/// then its answer. 204 when the message holds only notifications.
#[utoipa::path(post, path = "/rpc", tag = "json-rpc",
    request_body(content = Object, content_type = "application/json"),
    responses(
        (status = 200, description = "The answer, be it a result or an error", body = Object),
        (status = 204, description = "The message held only notifications"),
        (status = 403, description = "The page of another host asks", body = Object),
        (status = 413, description = "The message is too large", body = Object)))]
pub(crate) async fn post(State(state): State<Arc<HttpState>>, request: Request) -> Response {
    let context = RequestContext::of(request.extensions());
    let (head, body) = request.into_parts();
    let rpc = &state.rpc;
    if !origin::is_own(&head.headers, &state.http.allowed_hosts) {
        return refusal(StatusCode::FORBIDDEN, "the page of another host asks");
    }
    let limit = rpc.settings.message_limit_bytes;
    let stall = state.http.slow_reader_timeout;
    let text = match request_body::read(&head.headers, body, limit, stall).await {
        Ok(text) => text,
        Err(error) => return refusal(verdict(&error).status, &error.to_string()),
    };
    if !asks_for_events(&head.headers) {
        let session = Session::of_request(rpc, &context, None);
        let Answer { text, afterwards } = session.answer(text).await;
        return match text {
            Some(text) => {
                let body = Whole {
                    text: text.into(),
                    _until_sent: afterwards,
                };
                json(Body::new(body))
            }
            None => StatusCode::NO_CONTENT.into_response(),
        };
    }
    let (outgoing, queue) = rpc.outgoing();
    let session = Session::of_request(rpc, &context, Some(outgoing.clone()));
    let work = async move {
        let answer = session.answer(text).await;
        if let Some(text) = answer.text
            && outgoing.send_answer(text).await.is_err()
        {
            return;
        }
        session.in_background(answer.afterwards);
        session.finish().await;
    };
    sse::response(Body::new(Events {
        _work: AbortOnDrop(tokio::spawn(work)),
        queue,
        silence: Silence::new(rpc.keep_alive),
        _context: context,
    }))
}

fn asks_for_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter();
    accepts
        .filter_map(|accept| accept.to_str().ok())
        .any(|accept| accept.contains("text/event-stream"))
}

fn json(body: Body) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// An answer in one piece. What would begin after it is dropped with it, when it is written.
struct Whole {
    text: Bytes,
    _until_sent: Vec<Afterwards>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.text.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.text.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.text.split_to(piece)))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.text.len() as u64)
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let error = RpcError::new(ErrorKind::InvalidRequest, message);
    (status, json(Reply::error(&error).into())).into_response()
}

/// A message's notifications and its answer. Dropping it drops the calls.
struct Events {
    /// A task of its own: nobody asks a body for more while its reader does not read, and then the
    /// run has to end.
    _work: AbortOnDrop,
    /// Ends with the work.
    queue: Queue,
    silence: Silence,
    /// Keeps the connection watched and the log line open.
    _context: Arc<RequestContext>,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Poll::Ready(message) = this.queue.poll_recv(cx) {
            this.silence.broken();
            return Poll::Ready(message.map(|message| Ok(Frame::data(event(&message.text)))));
        }
        ready!(this.silence.poll(cx));
        this.silence.broken();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": \n\n")))))
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn event(text: &str) -> Bytes {
    format!("data: {text}\n\n").into()
}
