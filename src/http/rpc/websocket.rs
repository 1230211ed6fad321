//! JSON-RPC on a WebSocket, a message a text frame.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};
use tungstenite::error::Error as WsError;

use super::Rpc;
use super::outbound::Pieces;
use super::outgoing::Queue;
use super::post::refusal;
use super::pump::pump;
use super::session::Session;
use crate::http::HttpState;
use crate::http::request::access::{self, Caller, Rule};
use crate::http::request::context::RequestContext;
use crate::http::transport::messages::End;
use crate::http::transport::origin;
use crate::http::transport::websocket::{
    FragmentPosition, Frames, Messages, NoHandshake, Socket, Upgradable, close,
};
use crate::memory::Account;

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
    let Some(upgradable) = Upgradable::of(&mut head) else {
        return no_handshake(NoHandshake::NotAsked);
    };
    if !origin::is_own(&head.headers, &state.http) {
        return refusal(StatusCode::FORBIDDEN, "the page of another host asks");
    }
    // The router says it for every request.
    let rule = head.extensions.get().copied().unwrap_or(Rule::Keys);
    let accepted = upgradable.accept(&head.headers, move |upgraded, closing| {
        Box::pin(async move {
            let limit = state.rpc.settings.message_limit_bytes;
            let account = context.account();
            let socket = Frames::new(upgraded, limit, &account).await;
            let shut_out = access::shut_out(&state.keys, rule, &context.caller);
            let caller = (&context.caller, &account);
            serve(&socket, &state.rpc, caller, shut_out, closing).await;
        })
    });
    accepted.unwrap_or_else(no_handshake)
}

fn no_handshake(refused: NoHandshake) -> Response {
    let status = match refused {
        NoHandshake::NotAsked | NoHandshake::Version => StatusCode::UPGRADE_REQUIRED,
        NoHandshake::Key => StatusCode::BAD_REQUEST,
    };
    let mut response = refusal(status, &refused.to_string());
    refused.add_headers(response.headers_mut());
    response
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
        close(socket, end, writing).await;
    }
    tracing::debug!(?end, "WebSocket ended");
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
                    write_pieces(socket, pieces, stall).await?;
                }
                None => return Ok(()),
            },
            _ = pings.tick() => socket.ping().await?,
        }
    }
}

/// Writes a text message to the socket, a fragment each piece. One with tensors fails when the client
/// takes no piece for the time of `stall`.
async fn write_pieces(socket: &Socket, mut pieces: Pieces, stall: Duration) -> Result<(), WsError> {
    let is_long = pieces.has_tensors();
    let mut is_first = true;
    loop {
        let fragment = pieces.next_piece()?.unwrap_or_default();
        let is_last = pieces.is_empty();
        let sent = socket.fragment(fragment, FragmentPosition { is_first, is_last });
        match is_long {
            false => sent.await?,
            true => timeout(stall, sent).await.map_err(io::Error::from)??,
        }
        if is_last {
            return Ok(());
        }
        is_first = false;
    }
}
