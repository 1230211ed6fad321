//! One client connection. A generation whose client has left is dropped at once; other requests are
//! short, and a client that has only closed its sending side gets their answers.
//!
//! hyper sees a close by reading, and it does not read while a request is served. So the socket is also
//! watched for its end-of-stream flag, which needs no read. hyper's own timeout knows no difference
//! between an idle connection and half a header; `patience` does.

mod keep_alive;
mod patience;
mod reading;
mod refusal;
mod traffic;
mod watched_body;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};

use crate::http::HttpState;
use crate::http::request::error::RequestError;
use crate::http::response::error_shape::ErrorShape;
use crate::http::router::Routes;
use crate::http::transport::seats::HeldSeat;
use crate::http::transport::socket::{SharedSocket, Socket};
use crate::settings::HalfClosedGenerations;
use patience::{Due, Patience};
use reading::Reading;
pub(crate) use traffic::{ClientBound, InFlight};
use traffic::{Protocol, Seen, Traffic};
pub(crate) use watched_body::WatchedBody;

/// A slow reader's run is given up first, and its connection only this many times later: one that
/// reads on until then learns why its answer ended.
const SLOW_READER_GRACE: u32 = 4;

/// Answer bytes hyper holds before it waits for the socket; also bounds its read buffer, which must
/// hold a header.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client has to close its end after ours: closed with unread bytes a connection is reset,
/// and then the client may lose the last answer.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that was let in and has sent nothing yet may still begin to ask once the daemon is to end.
/// Closed at once, it would have no answer and not know why.
const FIRST_BYTE: Duration = Duration::from_secs(1);

/// How often a connection that is to be closed is looked at once more, because something has come. The
/// next turn of the reactor tells hyper of it.
const LAST_LOOKS: u32 = 100;

/// What a connection becomes when it is upgraded; it resolves when the connection is over.
type Upgraded = BoxFuture<'static, ()>;

/// Given to each request of a connection: what an upgrade makes of it is served by the connection's own
/// task, so that it counts as a connection, and is drained as one, until it ends.
#[derive(Clone)]
pub(crate) struct Upgrades {
    upgraded: mpsc::UnboundedSender<Upgraded>,
    closing: watch::Receiver<bool>,
}

impl Upgrades {
    /// Tells when the connection is to end.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.clone()
    }

    /// `serve` is told when to end.
    pub fn serve(self, serve: impl FnOnce(watch::Receiver<bool>) -> Upgraded) {
        // If the connection's task is gone, so is the connection.
        let _ = self.upgraded.send(serve(self.closing));
    }
}

/// Serves a connection to its end: the client's going, an error, or, once `closing` turns true,
/// the end of the request it is busy with.
pub(in crate::http) async fn serve(
    socket: Socket,
    seat: HeldSeat,
    state: Arc<HttpState>,
    routes: Routes,
    closing: watch::Receiver<bool>,
) {
    let (sender, mut upgraded) = mpsc::unbounded_channel();
    let upgrades = Upgrades {
        upgraded: sender,
        closing: closing.clone(),
    };
    let socket = Arc::new(socket);
    let end = speak_http((&socket, &seat), &state, routes, closing.clone(), upgrades).await;
    match end {
        End::Abandoned => return,
        End::Closed => {}
        End::Upgraded => match upgraded.recv().await {
            Some(upgraded) => {
                seat.is_busy(true);
                upgraded.await;
            }
            None => return,
        },
        End::Http2 => {
            let answer = ErrorShape::OpenAi.raw(&RequestError::Http2);
            let _ = tokio::time::timeout(LINGER, socket.last_word(&answer)).await;
        }
    }
    // A daemon that ends waits for no client.
    if !*closing.borrow() {
        let _ = tokio::time::timeout(LINGER, socket.linger()).await;
    }
}

/// Why HTTP is spoken no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything was answered, or what came was no request.
    Closed,
    /// Something else is spoken now.
    Upgraded,
    /// The client is gone, or did not say what it wanted.
    Abandoned,
    Http2,
}

async fn speak_http(
    (socket, seat): (&Arc<Socket>, &HeldSeat),
    state: &Arc<HttpState>,
    routes: Routes,
    closing: watch::Receiver<bool>,
    upgrades: Upgrades,
) -> End {
    let http = &state.http;
    let slow_reader = http.slow_reader_timeout.saturating_mul(SLOW_READER_GRACE);
    let Ok(endpoints) = socket.prepare(slow_reader, http.slow_reader_timeout) else {
        // The client is gone already.
        return End::Abandoned;
    };
    let half_closed_has_left = http.half_closed_generations == HalfClosedGenerations::Cancel;
    let traffic = Arc::new(Traffic::default());
    let service = service_fn(|request: Request<Incoming>| {
        let in_flight = InFlight::new(&traffic);
        let traffic = Arc::clone(&traffic);
        let routes = routes.clone();
        let closing = closing.clone();
        let kept = keep_alive::is_wanted(&request);
        let mut request = request.map(|body| WatchedBody::new(body, Arc::clone(&traffic)));
        request.extensions_mut().insert(upgrades.clone());
        async move {
            let mut answer = routes.answer(request, endpoints, in_flight).await?;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                traffic.speaks(Protocol::Upgraded);
            } else if kept && traffic.has_whole_body() && !*closing.borrow() {
                keep_alive::announce(&mut answer, http.keep_alive_timeout);
            } else if *closing.borrow() {
                keep_alive::end(&mut answer);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let stream = SharedSocket::new(Arc::clone(socket), slow_reader);
    let stream = Reading::new(stream, Arc::clone(&traffic));
    let mut connection = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_headers(http.max_header_fields)
            .max_header_size(http.header_limit_bytes)
            .max_buf_size(BUFFER_BYTES.max(http.header_limit_bytes))
            // Events are small: one copy costs less than a vectored write of three pieces.
            .writev(false)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let now = Instant::now();
    let mut patience = Patience::new(http.header_read_timeout, http.keep_alive_timeout, now);
    let mut timer = pin!(tokio::time::sleep(http.header_read_timeout));
    let mut timer_until = None;
    let mut peer_left = pin!(socket.closed());
    let mut reset = pin!(socket.reset());
    let mut closing = closing.clone();
    let mut asked_to_close = pin!(async move {
        // Without a listener it ends as well.
        let _ = closing.wait_for(|closing| *closing).await;
    });
    let mut first_byte = pin!(tokio::time::sleep(FIRST_BYTE));
    let mut wanted = pin!(seat.wanted());
    let mut evicted = false;
    let (mut left, mut gone, mut asked, mut closes) = (false, false, false, false);
    let mut last_looks = LAST_LOOKS;
    std::future::poll_fn(|cx| {
        traffic.task.register(cx.waker());
        loop {
            if let Poll::Ready(end) = connection.as_mut().poll(cx) {
                if let Err(error) = &end {
                    tracing::debug!(peer = %endpoints.peer, %error, "connection ended");
                }
                return Poll::Ready(match traffic.other_protocol() {
                    Some(Protocol::Http2) => End::Http2,
                    Some(Protocol::Upgraded) => End::Upgraded,
                    None if left || gone => End::Abandoned,
                    None => End::Closed,
                });
            }
            let seen = traffic.seen();
            seat.is_busy(seen.serving);
            evicted = evicted || wanted.as_mut().poll(cx).is_ready();
            if evicted && seen.begun == 0 {
                // hyper would wait for a first request.
                return match arrives_now(cx, socket, seen, &mut last_looks) {
                    true => Poll::Pending,
                    false => Poll::Ready(End::Abandoned),
                };
            }
            left = left || peer_left.as_mut().poll(cx).is_ready();
            gone = gone || reset.as_mut().poll(cx).is_ready() || left && socket.hung_up();
            let is_dropped = gone || traffic.is_given_up();
            if seen.serving && (is_dropped || left && seen.bound && half_closed_has_left) {
                return Poll::Ready(End::Abandoned);
            }
            if !asked && asked_to_close.as_mut().poll(cx).is_ready() {
                asked = true;
                let until = Instant::now() + FIRST_BYTE;
                first_byte.as_mut().reset(until.into());
            }
            // hyper would close it at once. A header that has begun has the time of one.
            let may_still_ask = asked
                && seen.begun == 0
                && !evicted
                && !left
                && (seen.arrived > 0 || first_byte.as_mut().poll(cx).is_pending());
            if (asked || evicted) && !closes && !may_still_ask {
                if arrives_now(cx, socket, seen, &mut last_looks) {
                    return Poll::Pending;
                }
                closes = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            patience.observe(seen, Instant::now());
            let Some((until, due)) = patience.due() else {
                return Poll::Pending;
            };
            if timer_until != Some(until) {
                timer_until = Some(until);
                timer.as_mut().reset(until.into());
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match due {
                Due::GiveUp => return Poll::Ready(End::Abandoned),
                Due::CloseIdle if closes => return Poll::Pending,
                Due::CloseIdle if arrives_now(cx, socket, seen, &mut last_looks) => {
                    return Poll::Pending;
                }
                Due::CloseIdle => {
                    closes = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    })
    .await
}

/// Whether a request, or the client's close, is there that hyper has not seen yet: then it is looked at
/// before the connection is closed. Not for ever: hyper does not read while its last answer waits for
/// the client.
fn arrives_now(cx: &Context<'_>, socket: &Socket, seen: Seen, looks: &mut u32) -> bool {
    let arrives = !seen.serving && *looks > 0 && socket.has_unread();
    if arrives {
        *looks -= 1;
        cx.waker().wake_by_ref();
    }
    arrives
}
