//! `POST /rpc`: one message, one answer. Asked for an event stream, the answer is the notifications
//! of its calls and then the answer itself, an event each. A handle belongs to the client, because
//! each request is on its own; a client that goes away ends its request's runs.

use std::io;
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

use super::outbound::Pieces;
use super::outgoing::{self, Queue, Queued, Room};
use super::protocol::{ErrorKind, Reply, RpcError};
use super::session::{Afterwards, Answered, Session};
use crate::http::HttpState;
use crate::http::request::body;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::response::charged_body::ChargedByItself;
use crate::http::response::error_body::add_headers;
use crate::http::response::silence::Silence;
use crate::http::response::sse;
use crate::http::status::PublicError;
use crate::http::transport::accept;
use crate::http::transport::messages::ChargedText;
use crate::memory::Charge;

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
    let limit = rpc.settings.message_limit_bytes;
    let text = match body::read(&context, &head.headers, body, limit, rpc.slowest_pace).await {
        Ok(text) => text,
        Err(error) => return refused(&error),
    };
    // Once it is read it goes, and what is charged for it.
    let text = match context.hand_over(text.len().max(context.held())) {
        Ok(charge) => ChargedText { text, charge },
        Err(over) => return refused(&over.into()),
    };
    if !asks_for_events(&head.headers) {
        let session = Session::of_request(rpc, &context, None);
        let Answered {
            message,
            afterwards,
        } = session.answer_or_refuse(text).await;
        let Some(mut message) = message else {
            return StatusCode::NO_CONTENT.into_response();
        };
        let mut charge = message.take_charge().unwrap_or(session.account.open());
        if let Err(over) = charge.grow_to(message.held_bytes()) {
            return refused(&over.into());
        }
        let patience = rpc.slow_reader.saturating_mul(outgoing::LAST_WORD);
        let pieces = message
            .into_pieces()
            .within(patience, rpc.settings.slowest_bytes_per_second);
        let length = pieces.length();
        let mut answer = json(Body::new(Whole {
            left: length,
            pieces,
            _charge: charge,
            _until_sent: afterwards,
        }));
        answer.extensions_mut().insert(ChargedByItself);
        return answer;
    }
    let (outgoing, queue) = rpc.outgoing(&context.account());
    let session = Session::of_request(rpc, &context, Some(outgoing.clone()));
    let work = async move {
        let answer = session.answer_or_refuse(text).await;
        if let Some(message) = answer.message
            && outgoing.send_answer(message).await.is_err()
        {
            return;
        }
        session.in_background(answer.afterwards);
        session.finish().await;
    };
    sse::response(Body::new(Events {
        _work: AbortOnDrop(tokio::spawn(work)),
        queue,
        event: None,
        silence: Silence::new(rpc.keep_alive),
        _context: context,
    }))
}

fn asks_for_events(headers: &HeaderMap) -> bool {
    accept::wish(headers, ("text", "event-stream"), |_| true).is_some_and(|wish| wish.by_name)
}

fn json(body: Body) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// The one answer. What would begin after it is dropped with it, when it is written.
struct Whole {
    pieces: Pieces,
    /// Bytes that are not yet given, where that is known.
    left: Option<usize>,
    _charge: Charge,
    _until_sent: Vec<Afterwards>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = self.pieces.next_piece().transpose();
        if let (Some(left), Some(Ok(piece))) = (&mut self.left, &piece) {
            *left = left.saturating_sub(piece.len());
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.left {
            Some(left) => http_body::SizeHint::with_exact(left as u64),
            None => http_body::SizeHint::default(),
        }
    }
}

/// An error of the request as a whole, found before or while it was read.
pub(in crate::http) fn refused(error: &RequestError) -> Response {
    let public = PublicError::of(error);
    let mut response = match error {
        RequestError::OverBudget(over) => {
            let error = RpcError::of_budget(*over);
            (public.status, json(Reply::error(&error).into())).into_response()
        }
        error => refusal(public.status, &error.to_string()),
    };
    add_headers(response.headers_mut(), &public);
    response
}

pub(super) fn refusal(status: StatusCode, message: &str) -> Response {
    (status, json(refusal_text(message).into())).into_response()
}

/// The body of a refusal.
pub(in crate::http) fn refusal_text(message: &str) -> String {
    Reply::error(&RpcError::new(ErrorKind::InvalidRequest, message))
}

/// A message's notifications and its answer. Dropping it drops the calls.
struct Events {
    /// A task of its own: hyper asks a body for no more while its client does not read, and then the run has to
    /// end.
    _work: AbortOnDrop,
    /// Ends with the work.
    queue: Queue,
    /// What is left of the event that is being written.
    event: Option<(Pieces, Room)>,
    silence: Silence,
    /// Keeps the connection watched and the log line open.
    _context: Arc<RequestContext>,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        loop {
            if let Some((pieces, _)) = &mut this.event {
                let piece = pieces.next_piece().transpose();
                // The connection takes the last piece as it takes any.
                if piece.is_none() || pieces.is_empty() {
                    this.event = None;
                }
                if let Some(piece) = piece {
                    this.silence.broken();
                    return Poll::Ready(Some(piece.map(Frame::data)));
                }
            }
            match this.queue.poll_recv(cx) {
                Poll::Ready(Some(message)) => this.event = Some(event(message)),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
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

fn event(message: Queued) -> (Pieces, Room) {
    let message = message.framed(|message| {
        message.begin_with("data: ");
        message.push_str("\n\n");
    });
    message.into_pieces()
}
