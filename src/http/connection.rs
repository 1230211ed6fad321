//! One client connection. As soon as its client is gone, the request it was serving is dropped,
//! and with it the generation.
//!
//! hyper sees a close by reading, and it stops reading while bytes of a pipelined request are
//! already buffered. So the socket is also watched for its end-of-stream flag, which needs no read.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, watch};

use super::HttpState;
use super::router::Routes;
use super::socket::{SharedSocket, Socket};

/// A slow reader's run is given up first, and its connection only this many times later: one that
/// reads on until then learns why its answer ended.
const SLOW_READER_GRACE: u32 = 4;

/// Largest request header, in bytes; the request line counts.
const HEADER_BYTES: usize = 32 * 1024;
const HEADER_FIELDS: usize = 100;
/// Answer bytes hyper holds before it waits for the socket; also bounds its read buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// Held by each request that is being served on a connection.
pub(crate) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

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
    /// `serve` is told when to end.
    pub fn serve(self, serve: impl FnOnce(watch::Receiver<bool>) -> Upgraded) {
        // If the connection's task is gone, so is the connection.
        let _ = self.upgraded.send(serve(self.closing));
    }
}

/// Serves a connection to its end: the client's going, an error, or, once `closing` turns true,
/// the end of the request it is busy with.
pub(crate) async fn serve(
    socket: Socket,
    state: Arc<HttpState>,
    routes: Routes,
    closing: watch::Receiver<bool>,
) {
    let (sender, mut upgraded) = mpsc::unbounded_channel();
    let upgrades = Upgrades {
        upgraded: sender,
        closing: closing.clone(),
    };
    serve_http(socket, state, routes, closing, upgrades).await;
    // Without an upgrade the senders went with the requests.
    if let Some(upgraded) = upgraded.recv().await {
        upgraded.await;
    }
}

async fn serve_http(
    socket: Socket,
    state: Arc<HttpState>,
    routes: Routes,
    mut closing: watch::Receiver<bool>,
    upgrades: Upgrades,
) {
    let slow_reader_timeout = state.http.slow_reader_timeout;
    let patience = slow_reader_timeout.saturating_mul(SLOW_READER_GRACE);
    let Ok(endpoints) = socket.prepare(patience, slow_reader_timeout) else {
        // The client is gone already.
        return;
    };
    let in_flight = Arc::new(AtomicUsize::new(0));
    let service = service_fn(|mut request| {
        let in_flight = InFlight::new(&in_flight);
        let routes = routes.clone();
        request.extensions_mut().insert(upgrades.clone());
        async move { routes.answer(request, endpoints, in_flight).await }
    });
    let socket = Arc::new(socket);
    let stream = SharedSocket::new(Arc::clone(&socket), patience);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(state.http.header_read_timeout)
            .max_headers(HEADER_FIELDS)
            .max_header_size(HEADER_BYTES)
            .max_buf_size(BUFFER_BYTES)
            // Events are small: one copy costs less than a vectored write of three pieces.
            .writev(false)
            .half_close(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut peer_left = pin!(socket.closed());
    let mut closing = pin!(closing.wait_for(|closing| *closing));
    let (mut left, mut asked_to_close) = (false, false);
    std::future::poll_fn(|cx| {
        if !asked_to_close && closing.as_mut().poll(cx).is_ready() {
            asked_to_close = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(end) = connection.as_mut().poll(cx) {
            if let Err(error) = end {
                tracing::debug!(peer = %endpoints.peer, %error, "connection ended");
            }
            return Poll::Ready(());
        }
        if !left {
            left = peer_left.as_mut().poll(cx).is_ready();
        }
        if left && in_flight.load(Ordering::Relaxed) > 0 {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}
