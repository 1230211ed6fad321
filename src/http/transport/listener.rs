//! The accept loop. It never spins: with all places taken by connections that are busy it leaves clients
//! in the kernel's backlog, and after an error of its own (no descriptors left) it pauses. When it returns, none of
//! its connections is left. A client that was let in before the end, by the kernel or here, is served.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection;
use crate::http::HttpState;
use crate::http::request::access::Rule;
use crate::http::router::Routes;
use crate::http::transport::seats::HeldSeat;
use crate::http::transport::socket::Socket;

/// How long accepting rests after an error that the next attempt would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// As many connections as are taken over from the backlog of a listener that ends.
const MOST_OF_BACKLOG: usize = 1024;

/// A bound socket that accepts connections.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: ListenerAddress,
    /// The next daemon finds in its backlog what this one has not accepted.
    outlives_the_daemon: bool,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Where a listener is bound, which decides whether it asks for keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerAddress {
    Tcp(SocketAddr),
    /// `None`: it has no path.
    Unix(Option<PathBuf>),
}

impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
        }
    }
}

impl Listener {
    /// # Errors
    ///
    /// The kernel's, asked for the bound address.
    pub fn tcp(listener: TcpListener) -> io::Result<Self> {
        let address = ListenerAddress::Tcp(listener.local_addr()?);
        let kind = Kind::Tcp(listener);
        Ok(Self {
            kind,
            address,
            outlives_the_daemon: false,
        })
    }

    /// # Errors
    ///
    /// The kernel's, asked for the bound path.
    pub fn unix(listener: UnixListener) -> io::Result<Self> {
        let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
        Ok(Self {
            kind: Kind::Unix(listener),
            address: ListenerAddress::Unix(path),
            outlives_the_daemon: false,
        })
    }

    /// The same, held by the service manager too.
    #[must_use]
    pub fn outliving_the_daemon(self) -> Self {
        Self {
            outlives_the_daemon: true,
            ..self
        }
    }

    pub fn address(&self) -> ListenerAddress {
        self.address.clone()
    }

    /// Accepts nothing more. What the kernel has accepted for a listener that ends here is handed over: those
    /// clients are connected, as far as they know.
    fn close(self) -> Vec<Socket> {
        let mut backlog = Vec::new();
        if self.outlives_the_daemon {
            return backlog;
        }
        // Asked of the kernel itself: the reactor may not have told of the last ones yet.
        let mut accept: Box<dyn FnMut() -> io::Result<Socket>> = match self.kind {
            Kind::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else {
                    return backlog;
                };
                Box::new(move || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Socket::Tcp(TcpStream::from_std(stream)?))
                })
            }
            Kind::Unix(listener) => {
                let Ok(listener) = listener.into_std() else {
                    return backlog;
                };
                Box::new(move || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Socket::Unix(UnixStream::from_std(stream)?))
                })
            }
        };
        while backlog.len() < MOST_OF_BACKLOG {
            match accept() {
                Ok(socket) => backlog.push(socket),
                Err(error) if has_given_up(&error) => {}
                Err(_) => break,
            }
        }
        backlog
    }

    async fn accept(&self) -> io::Result<Socket> {
        match &self.kind {
            Kind::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Socket::Tcp(stream)),
            Kind::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

/// Serves one listener until `shutdown` resolves; then the requests under way get the drain
/// deadline to end. May be called for several listeners with the same state.
pub async fn serve(listener: Listener, state: Arc<HttpState>, shutdown: impl Future<Output = ()>) {
    let address = listener.address();
    let rule = Rule::of(&address, &state.http);
    let routes = Routes::new(Arc::clone(&state), rule);
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let seats = match listener.kind {
        Kind::Tcp(_) => Arc::clone(&state.seats),
        Kind::Unix(_) => Arc::clone(&state.unix_seats),
    };
    let served = Served {
        state: Arc::clone(&state),
        routes,
        closing,
    };
    // A connection without a place. Further ones stay in the kernel's backlog.
    let mut waiting = None;
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => report_panic(ended),
            socket = accept(&listener), if waiting.is_none() => waiting = Some(socket),
            seat = seats.admit(address_of(waiting.as_ref())), if waiting.is_some() => {
                let (Some(socket), Some(seat)) = (waiting.take(), seat) else {
                    // Its address has its share: closed by being dropped.
                    continue;
                };
                connections.spawn(served.begin(socket, seat));
            }
        }
    }
    let mut let_in: VecDeque<Socket> = waiting.into_iter().chain(listener.close()).collect();
    close.send_replace(true);
    let drained = tokio::time::timeout(state.drain, async {
        loop {
            tokio::select! {
                Some(ended) = connections.join_next(), if !connections.is_empty() => report_panic(ended),
                seat = seats.admit(address_of(let_in.front())), if !let_in.is_empty() => {
                    if let (Some(socket), Some(seat)) = (let_in.pop_front(), seat) {
                        connections.spawn(served.begin(socket, seat));
                    }
                }
                else => break,
            }
        }
    })
    .await;
    if drained.is_err() {
        let open = connections.len() + let_in.len();
        tracing::warn!(%address, open, "drain deadline passed, closing connections");
        connections.shutdown().await;
    }
}

/// What each connection of a listener is served with.
struct Served {
    state: Arc<HttpState>,
    routes: Routes,
    closing: watch::Receiver<bool>,
}

impl Served {
    fn begin(&self, socket: Socket, seat: HeldSeat) -> impl Future<Output = ()> + use<> {
        let (routes, closing) = (self.routes.clone(), self.closing.clone());
        connection::serve(socket, seat, Arc::clone(&self.state), routes, closing)
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

/// Whose share a connection counts in.
fn address_of(socket: Option<&Socket>) -> Option<IpAddr> {
    match socket? {
        Socket::Tcp(stream) => Some(stream.peer_addr().ok()?.ip().to_canonical()),
        Socket::Unix(_) => None,
    }
}

/// The client did, between its SYN and our accept.
fn has_given_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// The next connection.
async fn accept(listener: &Listener) -> Socket {
    loop {
        match listener.accept().await {
            Ok(socket) => return socket,
            Err(error) if has_given_up(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
