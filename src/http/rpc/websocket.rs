//! JSON-RPC on a WebSocket, a message a text frame. The connection is served by the task of the HTTP
//! connection it was, so that it counts among `max-connections` and is drained with the others.
//!
//! Close codes: the client's own where it closes, 1001 the daemon shuts down, 1002 a broken frame, 1003
//! a binary message, 1007 a text that is not UTF-8, 1008 the client did not read, or its key was revoked
//! or may do less than before, 1009 a message is too large, 1013 there is no memory for it now.

mod frames;
mod handshake;
mod metered;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error as WsError};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Rpc;
use super::charged_text::ChargedText;
use super::outgoing::Queue;
use super::post::refusal;
use super::pump::{End, Incoming, Source, pump};
use super::session::Session;
use crate::http::HttpState;
use crate::http::request::access::{self, Caller, Rule};
use crate::http::request::context::RequestContext;
use crate::http::transport::connection::Upgrades;
use crate::http::transport::origin;
use crate::memory::{Account, OverBudget};
use frames::Frames;
use metered::over_budget;

/// How long the last words of a connection that ends may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

type Socket = Frames<TokioIo<Upgraded>>;

/// JSON-RPC 2.0 on a WebSocket
///
/// A message a text frame, in both directions; handles die with the connection.
#[utoipa::path(get, path = "/rpc/ws", tag = "json-rpc",
    responses(
        (status = 101, description = "The connection is a WebSocket from now on"),
        (status = 400, description = "The key of the WebSocket's handshake is none", body = Object),
        (status = 403, description = "The page of another host asks", body = Object),
        (status = 426, description = "Not the handshake of a WebSocket, or of another version", body = Object)))]
pub(crate) async fn websocket(State(state): State<Arc<HttpState>>, request: Request) -> Response {
    let context = RequestContext::of(request.extensions());
    let (mut head, _) = request.into_parts();
    let (Some(upgrades), Some(upgrade)) = (
        head.extensions.remove::<Upgrades>(),
        head.extensions.remove::<OnUpgrade>(),
    ) else {
        return handshake::NoHandshake::NotAsked.into_response();
    };
    if !origin::is_own(&head.headers, &state.http) {
        return refusal(StatusCode::FORBIDDEN, "the page of another host asks");
    }
    let accept = match handshake::accepted(&head.headers) {
        Ok(accept) => accept,
        Err(refused) => return refused.into_response(),
    };
    // The router says it for every request.
    let rule = head.extensions.get().copied().unwrap_or(Rule::Keys);
    upgrades.serve(|closing| {
        Box::pin(async move {
            // The client may leave before it is answered.
            let Ok(upgraded) = upgrade.await else { return };
            let limit = state.rpc.settings.message_limit_bytes;
            let account = context.account();
            let socket = Frames::new(TokioIo::new(upgraded), limit, &account).await;
            let shut_out = access::shut_out(&state.keys, rule, &context.caller);
            let caller = (&context.caller, &account);
            serve(&socket, &state.rpc, caller, shut_out, closing).await;
        })
    });
    handshake::response(accept)
}

async fn serve(
    socket: &Socket,
    rpc: &Arc<Rpc>,
    (caller, account): (&Caller, &Account),
    shut_out: impl Future<Output = ()>,
    mut closing: watch::Receiver<bool>,
) {
    let (outgoing, queue) = rpc.outgoing(account);
    let mut messages = Messages {
        socket,
        silence: rpc.keep_alive.saturating_add(rpc.slow_reader),
        slow_reader: rpc.slow_reader,
        limit_bytes: rpc.settings.message_limit_bytes,
    };
    let mut writing = std::pin::pin!(write(socket, queue, rpc.keep_alive));
    let session = Session::of_connection(rpc, caller.clone(), outgoing.clone());
    let end = tokio::select! {
        end = pump(&mut messages, &session, &outgoing, &mut closing) => Some(end),
        () = shut_out => Some(End::ShutOut),
        // Nothing can be written any more.
        _ = &mut writing => None,
    };
    drop((session, outgoing));
    if let Some(end) = &end {
        let last_words = async {
            match close_frame(end) {
                Some(frame) => {
                    writing.await?;
                    socket.close(frame).await
                }
                // Messages that are still to be written would follow the answer to its close.
                None => socket.settle().await,
            }
        };
        let _ = timeout(LAST_WORDS, last_words).await;
    }
    tracing::debug!(?end, "WebSocket ended");
}

/// `None`: the client closed it, and is answered by the protocol.
fn close_frame(end: &End) -> Option<CloseFrame> {
    let (code, reason) = match end {
        End::ClientLeft => return None,
        End::ShuttingDown => (CloseCode::Away, "the daemon is shutting down"),
        End::Broken => (CloseCode::Protocol, "broken frame"),
        End::NotUtf8 => (CloseCode::Invalid, "messages are UTF-8"),
        End::NotText => (CloseCode::Unsupported, "messages are text"),
        End::SlowReader => (CloseCode::Policy, "the client did not read"),
        End::TooSlow { .. } => (CloseCode::Policy, "the message did not go on arriving"),
        End::ShutOut => (
            CloseCode::Policy,
            "the key was revoked or may do less now, or a key is needed now",
        ),
        End::TooLong { .. } | End::OverBudget(OverBudget::NeverFits { .. }) => {
            (CloseCode::Size, "the message is too large")
        }
        End::OverBudget(_) => (CloseCode::Again, "there is no memory for the message now"),
    };
    Some(CloseFrame {
        code,
        reason: reason.into(),
    })
}

/// Writes messages as they come, and a ping into silence, until no more can come.
async fn write(socket: &Socket, mut queue: Queue, keep_alive: Duration) -> Result<(), WsError> {
    let mut pings = tokio::time::interval(keep_alive);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        tokio::select! {
            message = queue.recv() => match message {
                Some(message) => {
                    let stall = message.stall();
                    let (pieces, _room) = message.into_pieces();
                    socket.write(pieces, stall).await?;
                }
                None => return Ok(()),
            },
            _ = pings.tick() => socket.ping().await?,
        }
    }
}

struct Messages<'a> {
    socket: &'a Socket,
    /// A client that does not even answer a ping within this time is gone.
    silence: Duration,
    /// One that takes no answer to its own pings for so long does not read.
    slow_reader: Duration,
    limit_bytes: usize,
}

impl Source for Messages<'_> {
    async fn next(&mut self) -> Incoming {
        loop {
            match timeout(self.slow_reader, self.socket.settle()).await {
                Err(_) => return Incoming::Unreadable(End::SlowReader),
                Ok(Err(_)) => return Incoming::Left,
                Ok(Ok(())) => {}
            }
            let frame = match timeout(self.silence, self.socket.read()).await {
                Err(_) | Ok(None) => return Incoming::Left,
                Ok(Some(Err(error))) => return Incoming::Unreadable(self.end_of(&error)),
                Ok(Some(Ok(frame))) => frame,
            };
            match frame {
                Message::Text(text) => {
                    let charge = self.socket.take_charge();
                    let text = text.into();
                    return Incoming::Message(ChargedText { text, charge });
                }
                Message::Binary(_) => return Incoming::Unreadable(End::NotText),
                Message::Close(_) => return Incoming::Left,
                // A ping is answered by the protocol's own layer; a lone frame is never read.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

impl Messages<'_> {
    fn end_of(&self, error: &WsError) -> End {
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => End::TooLong {
                limit_bytes: self.limit_bytes,
            },
            WsError::Io(error) if let Some(over) = over_budget(error) => End::OverBudget(over),
            WsError::Utf8(_) => End::NotUtf8,
            WsError::Protocol(_) => End::Broken,
            _ => End::ClientLeft,
        }
    }
}
