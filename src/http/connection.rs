//! One client connection. As soon as its client is gone, the request it was serving is dropped,
//! and with it the generation.
//!
//! hyper sees a close by reading, and it stops reading while bytes of a pipelined request are
//! already buffered. So the socket is also watched for its end-of-stream flag, which needs no read.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::HttpState;
use super::router::Routes;

/// A slow reader's run is given up first, and its connection only this many times later: one that
/// reads on until then learns why its answer ended.
const SLOW_READER_GRACE: u32 = 4;

/// Largest request header, in bytes; the request line counts.
const HEADER_BYTES: usize = 32 * 1024;
const HEADER_FIELDS: usize = 100;
/// Answer bytes hyper holds before it waits for the socket; also bounds its read buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints {
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

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
    stream: TcpStream,
    state: Arc<HttpState>,
    routes: Routes,
    closing: watch::Receiver<bool>,
) {
    let (sender, mut upgraded) = mpsc::unbounded_channel();
    let upgrades = Upgrades {
        upgraded: sender,
        closing: closing.clone(),
    };
    serve_http(stream, state, routes, closing, upgrades).await;
    // Without an upgrade the senders went with the requests.
    if let Some(upgraded) = upgraded.recv().await {
        upgraded.await;
    }
}

async fn serve_http(
    stream: TcpStream,
    state: Arc<HttpState>,
    routes: Routes,
    mut closing: watch::Receiver<bool>,
    upgrades: Upgrades,
) {
    let Ok(endpoints) = prepare(&stream, state.http.slow_reader_timeout) else {
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
    let stream = Arc::new(stream);
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
            .serve_connection(TokioIo::new(SharedStream(Arc::clone(&stream))), service)
            .with_upgrades()
    );
    // Every socket is registered for its end-of-stream flag; of the interests that wait for it,
    // this is the one that ordinary data does not wake.
    let mut peer_left = pin!(stream.ready(Interest::PRIORITY));
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

/// Small writes leave at once. A client whose machine or network died, or that does not read its
/// answer, is given up after a multiple of `slow_reader_timeout`.
fn prepare(stream: &TcpStream, slow_reader_timeout: Duration) -> io::Result<Endpoints> {
    stream.set_nodelay(true)?;
    let patience = slow_reader_timeout.saturating_mul(SLOW_READER_GRACE);
    let timeout_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, timeout_ms)?;
    // The kernel counts these in whole seconds, from one on.
    let probe = slow_reader_timeout.max(Duration::from_secs(1));
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, probe)?;
    sockopt::set_tcp_keepintvl(stream, probe)?;
    Ok(Endpoints {
        local: stream.local_addr()?,
        peer: stream.peer_addr()?,
    })
}

/// A stream that can be watched while hyper reads and writes it.
struct SharedStream(Arc<TcpStream>);

impl AsyncRead for SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                done => return Poll::Ready(done.map(drop)),
            }
        }
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket buffers nothing on this side.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(
            rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write).map_err(io::Error::from),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that loses its power sends no end of its connections; only the kernel can tell.
    #[tokio::test]
    async fn the_kernel_looks_after_clients_that_vanish() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (server, _) = accepted.unwrap();
        let endpoints = prepare(&server, Duration::from_secs(30)).unwrap();
        assert_eq!(endpoints.peer, client.unwrap().local_addr().unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&server).unwrap(), 120_000);
        assert!(sockopt::socket_keepalive(&server).unwrap());
        let thirty = Duration::from_secs(30);
        assert_eq!(sockopt::tcp_keepidle(&server).unwrap(), thirty);
        assert_eq!(sockopt::tcp_keepintvl(&server).unwrap(), thirty);
        assert!(server.nodelay().unwrap());
    }
}
