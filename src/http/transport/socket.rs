//! A client's socket, TCP or Unix, that can be watched while hyper reads and writes it.
//!
//! A client that reads nothing is given up by the kernel on TCP, and by a timer here on a Unix
//! socket, where the kernel has none.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use crate::generation::ClientKey;

/// An accepted connection.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints {
    /// The address that was connected to; `None` on a Unix socket.
    pub local: Option<IpAddr>,
    pub peer: Peer,
}

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Address(SocketAddr),
    /// A process of this machine, by its user id as the kernel tells it.
    User(u32),
}

impl Peer {
    /// Whose turn in the queue a request of this peer takes, when no key says so.
    pub fn client(&self) -> ClientKey {
        ClientKey::new(match self {
            Self::Address(address) => address.ip().to_canonical().to_string(),
            Self::User(uid) => format!("uid {uid}"),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(uid) => write!(f, "uid {uid}"),
        }
    }
}

impl Socket {
    /// Small writes leave at once. A client whose machine or network died is given up after
    /// `patience`, and looked for after `probe` of silence.
    pub fn prepare(&self, patience: Duration, probe: Duration) -> io::Result<Endpoints> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                let timeout_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
                sockopt::set_tcp_user_timeout(stream, timeout_ms)?;
                // The kernel counts these in whole seconds, from one on.
                let probe = probe.max(Duration::from_secs(1));
                sockopt::set_socket_keepalive(stream, true)?;
                sockopt::set_tcp_keepidle(stream, probe)?;
                sockopt::set_tcp_keepintvl(stream, probe)?;
                Ok(Endpoints {
                    local: Some(stream.local_addr()?.ip()),
                    peer: Peer::Address(stream.peer_addr()?),
                })
            }
            Self::Unix(stream) => Ok(Endpoints {
                local: None,
                peer: Peer::User(stream.peer_cred()?.uid()),
            }),
        }
    }

    /// Resolves when the client has closed its end.
    pub async fn closed(&self) {
        // Every socket is registered for its end-of-stream flag; of the interests that wait for it,
        // this is the one that ordinary data does not wake.
        let _ = match self {
            Self::Tcp(stream) => stream.ready(Interest::PRIORITY).await,
            Self::Unix(stream) => stream.ready(Interest::PRIORITY).await,
        };
    }

    /// Resolves when the connection was reset: the client reads nothing any more.
    pub async fn reset(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.ready(Interest::ERROR).await,
            Self::Unix(stream) => stream.ready(Interest::ERROR).await,
        };
    }

    /// Whether the client can neither write nor read. After a mere close of its end only a Unix
    /// socket knows; on TCP it shows by what the next bytes for it meet.
    pub fn hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self, PollFlags::empty())];
        let now = Timespec::default();
        rustix::event::poll(&mut polled, Some(&now)).is_ok()
            && polled[0]
                .revents()
                .intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Whether something of the client's has come that was not read, be it known to the reactor or not.
    pub fn has_unread(&self) -> bool {
        let mut polled = [PollFd::new(self, PollFlags::IN)];
        let now = Timespec::default();
        rustix::event::poll(&mut polled, Some(&now)).is_ok()
            && polled[0].revents().contains(PollFlags::IN)
    }

    /// Writes as much as has room, when no other task writes any more.
    pub async fn last_word(&self, bytes: &[u8]) {
        if std::future::poll_fn(|cx| self.poll_write_ready(cx))
            .await
            .is_ok()
        {
            // A client that does not get it has gone.
            let _ = self.try_write(bytes);
        }
    }

    /// Closes this end and waits until the client has closed its own. What it sends is thrown away.
    pub async fn linger(&self) {
        if rustix::net::shutdown(self, rustix::net::Shutdown::Write).is_err() {
            return;
        }
        let mut space = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            if std::future::poll_fn(|cx| self.poll_read_ready(cx))
                .await
                .is_err()
            {
                return;
            }
            match self.try_read_buf(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn try_read_buf(&self, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A socket's reading and writing end; others may watch it.
pub(crate) struct SharedSocket {
    socket: Arc<Socket>,
    /// How long a write may wait. `None`: the kernel sees to it.
    patience: Option<Duration>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl SharedSocket {
    pub fn new(socket: Arc<Socket>, patience: Duration) -> Self {
        let patience = match &*socket {
            Socket::Tcp(_) => None,
            Socket::Unix(_) => Some(patience),
        };
        Self {
            socket,
            patience,
            stalled: None,
        }
    }

    /// Nothing can be written now: waits, up to the end of patience.
    fn stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(patience) = self.patience else {
            return Poll::Pending;
        };
        let end = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(end.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                done => return Poll::Ready(done.map(drop)),
            }
        }
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.socket.poll_write_ready(cx)?.is_pending() {
                return self.stall(cx);
            }
            match self.socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                done => {
                    self.stalled = None;
                    return Poll::Ready(done);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket buffers nothing on this side.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(
            rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Write)
                .map_err(io::Error::from),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A machine that loses its power sends no end of its connections; only the kernel can tell.
    #[tokio::test]
    async fn the_kernel_looks_after_clients_that_vanish() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let server = Socket::Tcp(accepted.unwrap().0);
        let thirty = Duration::from_secs(30);
        let endpoints = server.prepare(4 * thirty, thirty).unwrap();
        assert_eq!(
            endpoints.peer,
            Peer::Address(client.unwrap().local_addr().unwrap())
        );
        assert_eq!(sockopt::tcp_user_timeout(&server).unwrap(), 120_000);
        assert!(sockopt::socket_keepalive(&server).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&server).unwrap(), thirty);
        assert_eq!(sockopt::tcp_keepintvl(&server).unwrap(), thirty);
        assert!(sockopt::tcp_nodelay(&server).unwrap());
    }

    #[tokio::test]
    async fn a_unix_client_that_reads_nothing_is_given_up_and_one_that_reads_is_not() {
        let patience = Duration::from_millis(200);
        let (server, mut client) = UnixStream::pair().unwrap();
        let mut server = SharedSocket::new(Arc::new(Socket::Unix(server)), patience);
        let bytes = vec![0; 64 * 1024];
        let mut taken = vec![0; 64 * 1024];
        for _ in 0..64 {
            server.write_all(&bytes).await.unwrap();
            client.read_exact(&mut taken).await.unwrap();
        }
        let error = loop {
            if let Err(error) = server.write_all(&bytes).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_unix_client_that_closes_is_noticed_though_it_sent_something_before() {
        let (server, mut client) = UnixStream::pair().unwrap();
        let server = Socket::Unix(server);
        client.write_all(b"unread").await.unwrap();
        let mut closed = std::pin::pin!(server.closed());
        let early = tokio::time::timeout(Duration::from_millis(50), closed.as_mut()).await;
        assert!(early.is_err(), "data is no end");
        drop(client);
        let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
        assert!(closed.is_ok());
    }
}
