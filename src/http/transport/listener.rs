//! The accept loop. It never spins: with all places taken by connections that are busy it leaves clients
//! in the kernel's backlog, and after an error of its own (no descriptors left) it pauses. When it returns, none of
//! its connections is left.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection;
use crate::http::HttpState;
use crate::http::request::access::Rule;
use crate::http::router::Routes;
use crate::http::transport::socket::Socket;

/// How long accepting rests after an error that the next attempt would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that accepts connections.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: ListenerAddress,
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
        Ok(Self { kind, address })
    }

    /// # Errors
    ///
    /// The kernel's, asked for the bound path.
    pub fn unix(listener: UnixListener) -> io::Result<Self> {
        let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
        Ok(Self {
            kind: Kind::Unix(listener),
            address: ListenerAddress::Unix(path),
        })
    }

    pub fn address(&self) -> ListenerAddress {
        self.address.clone()
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
                let (state, routes, closing) = (Arc::clone(&state), routes.clone(), closing.clone());
                connections.spawn(async move {
                    connection::serve(socket, seat, state, routes, closing).await;
                });
            }
        }
    }
    drop(listener);
    close.send_replace(true);
    let drained = tokio::time::timeout(state.drain, async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    })
    .await;
    if drained.is_err() {
        tracing::warn!(%address, open = connections.len(), "drain deadline passed, closing connections");
        connections.shutdown().await;
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

/// The next connection.
async fn accept(listener: &Listener) -> Socket {
    loop {
        match listener.accept().await {
            Ok(socket) => return socket,
            // The client gave up between its SYN and our accept.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
