//! JSON-RPC on a WebSocket, a message a text frame. The connection is served by the task of the HTTP
//! connection it was, so that it counts among `max-connections` and is drained with the others.
//!
//! Close codes: 1000 the client left, 1001 the daemon shuts down, 1002 a broken frame, 1003 a binary
//! message, 1008 the client did not read, or its key was revoked or may do less than before, 1009 a
//! message is too large.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;
use tungstenite::error::{CapacityError, Error as WsError};

use super::outgoing::{Queue, Queued};
use super::pump::{End, Incoming, Source, pump};
use super::session::Session;
use super::{Rpc, origin};
use crate::http::HttpState;
use crate::http::access::{self, Caller, Rule};
use crate::http::connection::Upgrades;
use crate::http::request_context::RequestContext;

/// How long the last words of a connection that ends may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// JSON-RPC 2.0 on a WebSocket
///
/// A message a text frame, in both directions; handles die with the connection.
#[utoipa::path(get, path = "/rpc/ws", tag = "json-rpc",
    responses(
        (status = 101, description = "The connection is a WebSocket from now on"),
        (status = 400, description = "Not the handshake of a WebSocket"),
        (status = 403, description = "The page of another host asks"),
        (status = 426, description = "The connection cannot be upgraded")))]
pub(crate) async fn websocket(State(state): State<Arc<HttpState>>, request: Request) -> Response {
    let context = RequestContext::of(request.extensions());
    let Some(upgrades) = request.extensions().get::<Upgrades>().cloned() else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    if !origin::is_own(request.headers(), &state.http.allowed_hosts) {
        return StatusCode::FORBIDDEN.into_response();
    }
    // The router says it for every request.
    let rule = request.extensions().get().copied().unwrap_or(Rule::Keys);
    let (mut head, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut head, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let limit = state.rpc.settings.message_limit_bytes;
    upgrade
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(async move |socket| {
            upgrades.serve(|closing| {
                Box::pin(async move {
                    let shut_out = access::shut_out(&state.keys, rule, &context.caller);
                    serve(socket, (&state.rpc, &context.caller), shut_out, closing).await;
                })
            });
        })
}

async fn serve(
    socket: WebSocket,
    (rpc, caller): (&Arc<Rpc>, &Caller),
    shut_out: impl Future<Output = ()>,
    mut closing: watch::Receiver<bool>,
) {
    let (sink, stream) = socket.split();
    let (outgoing, queue) = rpc.outgoing();
    let mut frames = Frames {
        stream,
        silence: rpc.keep_alive.saturating_add(rpc.slow_reader),
        limit_bytes: rpc.settings.message_limit_bytes,
    };
    let (farewell, last_frame) = oneshot::channel();
    let mut writing = std::pin::pin!(write(sink, queue, rpc.keep_alive, last_frame));
    let session = Session::of_connection(rpc, caller.clone(), outgoing.clone());
    let end = tokio::select! {
        end = pump(&mut frames, &session, &outgoing, &mut closing) => end,
        // The client is gone.
        () = &mut writing => End::ClientLeft,
        () = shut_out => End::ShutOut,
    };
    drop((session, outgoing));
    let _ = farewell.send(close_frame(&end));
    let _ = tokio::time::timeout(LAST_WORDS, writing).await;
    tracing::debug!(?end, "WebSocket ended");
}

fn close_frame(end: &End) -> CloseFrame {
    let (code, reason) = match end {
        End::ClientLeft => (close_code::NORMAL, ""),
        End::ShuttingDown => (close_code::AWAY, "the daemon is shutting down"),
        End::Broken => (close_code::PROTOCOL, "broken frame"),
        End::NotText => (close_code::UNSUPPORTED, "messages are text"),
        End::SlowReader => (close_code::POLICY, "the client did not read"),
        End::ShutOut => (
            close_code::POLICY,
            "the key was revoked or may do less now, or a key is needed now",
        ),
        End::TooLong { .. } => (close_code::SIZE, "the message is too large"),
    };
    CloseFrame {
        code,
        reason: reason.into(),
    }
}

/// Writes messages as they come, and a ping into silence.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut queue: Queue,
    keep_alive: Duration,
    last_frame: oneshot::Receiver<CloseFrame>,
) {
    let mut pings = tokio::time::interval(keep_alive);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let (frame, _room) = tokio::select! {
            message = queue.recv() => match message {
                Some(Queued { text, room }) => (Message::Text(text.into()), Some(room)),
                None => break,
            },
            _ = pings.tick() => (Message::Ping(Default::default()), None),
        };
        if sink.send(frame).await.is_err() {
            return;
        }
    }
    if let Ok(frame) = last_frame.await {
        let _ = sink.send(Message::Close(Some(frame))).await;
    }
}

struct Frames {
    stream: SplitStream<WebSocket>,
    /// A client that does not even answer a ping within this time is gone.
    silence: Duration,
    limit_bytes: usize,
}

impl Source for Frames {
    async fn next(&mut self) -> Incoming {
        loop {
            let frame = match tokio::time::timeout(self.silence, self.stream.next()).await {
                Err(_) | Ok(None) => return Incoming::Left,
                Ok(Some(Err(error))) => return Incoming::Unreadable(self.end_of(error)),
                Ok(Some(Ok(frame))) => frame,
            };
            match frame {
                Message::Text(text) => return Incoming::Message(text.as_bytes().to_vec()),
                Message::Binary(_) => return Incoming::Unreadable(End::NotText),
                Message::Close(_) => return Incoming::Left,
                // A ping is answered by the protocol's own layer.
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    }
}

impl Frames {
    fn end_of(&self, error: axum::Error) -> End {
        match error.into_inner().downcast_ref::<WsError>() {
            Some(WsError::Capacity(CapacityError::MessageTooLong { .. })) => End::TooLong {
                limit_bytes: self.limit_bytes,
            },
            Some(WsError::Protocol(_) | WsError::Utf8(_)) => End::Broken,
            _ => End::ClientLeft,
        }
    }
}
