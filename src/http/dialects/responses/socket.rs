//! Responses on a WebSocket: each message asks for one, and its events come as messages, the same as those of its
//! stream. One response is made at a time; messages that name a stream wait for it in the order in which they came. It
//! ends with the socket, and waits for a client that does not read; one that reads nothing for
//! `http.slow-reader-timeout` is closed.

mod events;
mod message;
mod turns;

use std::collections::{HashSet, VecDeque};
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;
use tungstenite::error::Error as WsError;

use super::error;
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::request::access::{self, Rule};
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::response::error_body::ErrorBody;
use crate::http::transport::messages::{End, Incoming, Source, asked_to_close};
use crate::http::transport::origin;
use crate::http::transport::websocket::{Frames, Messages, NoHandshake, Socket, Upgradable, close};
use turns::{OfStream, Turns};

/// How long what is told of an end may wait for its reader; so much is kept of the time for draining.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Responses on a WebSocket
///
/// Each message of the client's is a text, the body of `POST /v1/responses` with `"type": "response.create"`, and is
/// answered with the events of its stream, each the JSON of a ResponseEvent in a text. Not more than one response is made
/// at a time; a message with a `stream_id`, which its events repeat, waits for those before it. What is refused is told by
/// an event `error` with `status`, `error` and `headers`. With `generate: false` the prompt is evaluated for a later message
/// to go on from, and the response is completed without an item.
#[utoipa::path(get, path = "/v1/responses", tag = "openai", operation_id = "responses_on_a_websocket",
    responses(
        (status = 101, description = "The connection is a WebSocket from now on"),
        (status = 400, description = "The handshake is of another version, or its key is none", body = ErrorBody),
        (status = 403, description = "The page of another host asks", body = ErrorBody),
        (status = 405, description = "Not the handshake of a WebSocket", body = ErrorBody)))]
pub(crate) async fn open(
    State(state): State<Arc<HttpState>>,
    Extension(rule): Extension<Rule>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let (mut head, _) = request.into_parts();
    let Some(upgradable) = Upgradable::of(&mut head) else {
        return Ok(not_asked(&head));
    };
    origin::check(&head.headers, &state.http)?;
    let accepted = upgradable.accept(&head.headers, move |upgraded, closing| {
        Box::pin(async move {
            // With less memory than the limit of a body, the memory is the limit.
            let account = context.account();
            let limit_bytes = state.http.body_limit_bytes.min(account.most_bytes());
            let socket = Frames::new(upgraded, limit_bytes, &account).await;
            serve(&socket, limit_bytes, (state, rule, context), closing).await;
        })
    });
    match accepted {
        Ok(response) => Ok(response),
        Err(NoHandshake::NotAsked) => Ok(not_asked(&head)),
        Err(refused @ NoHandshake::Version) => {
            Ok(wrong(refused, "sec-websocket-version", "must be 13"))
        }
        Err(refused @ NoHandshake::Key) => {
            let requirement = "must be there once, 16 bytes in base64";
            Ok(wrong(refused, "sec-websocket-key", requirement))
        }
    }
}

fn wrong(refused: NoHandshake, header: &str, requirement: &'static str) -> Response {
    let mut response = error::response(&RequestError::out_of_range(header, requirement));
    refused.add_headers(response.headers_mut());
    response
}

/// A GET that asks for nothing else is one to a path that takes none.
fn not_asked(head: &Parts) -> Response {
    let mut refused = error::response(&RequestError::MethodNotAllowed {
        method: quote(head.method.as_str()),
        path: quote(head.uri.path()),
    });
    let post = HeaderValue::from_static("POST");
    refused.headers_mut().insert(header::ALLOW, post);
    refused
}

async fn serve(
    socket: &Socket,
    limit_bytes: usize,
    (state, rule, opened): (Arc<HttpState>, Rule, Arc<RequestContext>),
    closing: watch::Receiver<bool>,
) {
    let http = &state.http;
    let mut messages = Messages {
        socket,
        silence: http.keep_alive.saturating_add(http.slow_reader_timeout),
        slow_reader: http.slow_reader_timeout,
        limit_bytes,
    };
    let (sending, waiting) = events::queue();
    let turns = Turns::new(&state, &opened, sending);
    let writing = events::write(socket, waiting, http.keep_alive, http.slow_reader_timeout);
    let mut writing = pin!(writing);
    let (end, is_writing) = tokio::select! {
        end = pump(&mut messages, &turns, closing) => (end, true),
        () = access::shut_out(&state.keys, rule, &opened.caller) => (End::ShutOut, true),
        written = &mut writing => (written.err().unwrap_or(End::ClientLeft), false),
    };
    // With it goes the way to the writer, which then comes to its end.
    drop(turns);
    match is_writing {
        true => {
            let rest = writing.map(|written| written.map_err(|_| WsError::ConnectionClosed));
            close(socket, &end, rest).await;
        }
        false if end == End::ClientLeft => {}
        false => close(socket, &end, async { Ok(()) }).await,
    }
    tracing::debug!(?end, "WebSocket ended");
}

/// Answers messages until the connection ends.
async fn pump(
    messages: &mut Messages<'_>,
    turns: &Turns,
    mut closing: watch::Receiver<bool>,
) -> End {
    let state = turns.state();
    let mut turn: Option<BoxFuture<'_, ()>> = None;
    // Messages that name a stream, behind it.
    let mut waiting: VecDeque<OfStream> = VecDeque::new();
    let mut streams: HashSet<Arc<str>> = HashSet::new();
    let most = state.max_socket_streams;
    // Sent beside the turn.
    let mut refusal: Option<BoxFuture<'_, ()>> = None;
    let mut too_old = pin!(tokio::time::sleep(state.max_socket_age));
    let drain = state.drain.saturating_sub(LAST_WORDS).max(state.drain / 2);
    let mut drained = pin!(tokio::time::sleep(drain));
    // Why it ends when the response that is made has come to its end.
    let mut end = None;
    loop {
        if turn.is_none()
            && let Some(end) = end.take()
        {
            let limit = state.max_socket_age;
            let error = match end {
                End::TooOld => RequestError::SocketTooOld { limit },
                _ => shutting_down(),
            };
            let last_words = async {
                if let Some(refusal) = refusal {
                    refusal.await;
                }
                for message in waiting {
                    turns.refuse(message, error.clone()).await;
                }
                if end == End::TooOld {
                    turns.tell(&error).await;
                }
            };
            let _ = timeout(LAST_WORDS, last_words).await;
            return end;
        }
        if turn.is_none()
            && let Some(next) = waiting.pop_front()
        {
            turn = Some(turns.take(next).boxed());
        }
        let is_shutting_down = end == Some(End::ShuttingDown);
        tokio::select! {
            biased;
            () = under_way(&mut turn) => turn = None,
            () = under_way(&mut refusal) => refusal = None,
            () = asked_to_close(&mut closing), if !is_shutting_down => {
                drained.as_mut().reset(tokio::time::Instant::now() + drain);
                end = Some(End::ShuttingDown);
            }
            () = &mut too_old, if end.is_none() => end = Some(End::TooOld),
            () = &mut drained, if is_shutting_down => {
                turn = None;
                let _ = timeout(LAST_WORDS, turns.tell(&shutting_down())).await;
            }
            // A client that does not read its refusals is not listened to.
            incoming = messages.next(), if refusal.is_none() => match incoming {
                Incoming::Message(message) => {
                    let stream = message::stream_of(&message.text);
                    let is_named = stream.is_some();
                    let is_one_too_many = (stream.as_ref())
                        .is_some_and(|name| !streams.contains(name) && streams.len() >= most);
                    let message = (stream, message);
                    if is_one_too_many {
                        let error = RequestError::TooManyStreams { most };
                        refusal = Some(turns.refuse(message, error).boxed());
                        continue;
                    }
                    streams.extend(message.0.clone());
                    if turn.is_none() {
                        turn = Some(turns.take(message).boxed());
                    } else if is_named && waiting.len() < most {
                        waiting.push_back(message);
                    } else {
                        let error = RequestError::ResponseInFlight;
                        refusal = Some(turns.refuse(message, error).boxed());
                    }
                }
                Incoming::Left => return End::ClientLeft,
                Incoming::Unreadable(end) => {
                    drop(turn);
                    let error = match &end {
                        End::TooLong { limit_bytes } => Some(RequestError::BodyTooLarge {
                            limit_bytes: *limit_bytes,
                        }),
                        End::OverBudget(over) => Some((*over).into()),
                        _ => None,
                    };
                    if let Some(error) = error {
                        let _ = timeout(LAST_WORDS, turns.tell(&error)).await;
                    }
                    return end;
                }
            },
        }
    }
}

fn shutting_down() -> RequestError {
    RequestError::Generation {
        error: GenerationError::ShuttingDown,
        prompt_param: "",
    }
}

async fn under_way(work: &mut Option<BoxFuture<'_, ()>>) {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}
