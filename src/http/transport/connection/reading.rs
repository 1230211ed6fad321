//! A connection's socket as hyper gets it: its bytes are counted, and one that begins with HTTP/2's
//! preface is told apart and seems to be at its end, before any of it is taken for a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::refusal;
use super::traffic::{Protocol, Traffic};
use crate::http::transport::socket::SharedSocket;

/// The first line a client sends that takes it for granted that HTTP/2 is spoken.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

pub(super) struct Reading {
    socket: SharedSocket,
    traffic: Arc<Traffic>,
    beginning: Beginning,
    /// Of the request whose header is arriving.
    request: refusal::Beginning,
    /// What is left to write of a refusal of ours in place of hyper's.
    refusal: Vec<u8>,
}

/// The connection's first bytes.
enum Beginning {
    /// So many bytes of the preface have come; they are kept back.
    Preface(usize),
    Known,
}

impl Reading {
    pub fn new(socket: SharedSocket, traffic: Arc<Traffic>) -> Self {
        Self {
            socket,
            traffic,
            beginning: Beginning::Preface(0),
            request: refusal::Beginning::default(),
            refusal: Vec::new(),
        }
    }

    /// Remembers what has come of a request's header.
    fn remember(&mut self, bytes: &[u8]) {
        let seen = self.traffic.seen();
        if !seen.serving {
            self.request.arrived(bytes, seen.begun);
        }
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buffer.filled().len();
        loop {
            let before = match this.beginning {
                Beginning::Preface(kept) => {
                    buffer.set_filled(start);
                    buffer.put_slice(&PREFACE[..kept]);
                    start + kept
                }
                Beginning::Known => start,
            };
            let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
            let came = buffer.filled().len() - before;
            this.traffic.arrived(came);
            if matches!(this.beginning, Beginning::Known) {
                this.remember(&buffer.filled()[before..]);
                return read;
            }
            if !matches!(read, Poll::Ready(Ok(()))) {
                buffer.set_filled(start);
                return read;
            }
            let first = &buffer.filled()[start..];
            if first.starts_with(PREFACE) {
                this.traffic.speaks(Protocol::Http2);
                buffer.set_filled(start);
                return Poll::Ready(Ok(()));
            }
            if came > 0 && PREFACE.starts_with(first) {
                this.beginning = Beginning::Preface(first.len());
                buffer.set_filled(start);
                continue;
            }
            this.beginning = Beginning::Known;
            this.remember(&buffer.filled()[start..]);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Reading {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refusal.is_empty() && !this.traffic.seen().serving {
            this.refusal = this.request.refusal(bytes).unwrap_or_default();
        }
        if this.refusal.is_empty() {
            return Pin::new(&mut this.socket).poll_write(cx, bytes);
        }
        while !this.refusal.is_empty() {
            let written = ready!(Pin::new(&mut this.socket).poll_write(cx, &this.refusal))?;
            this.refusal.drain(..written);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.traffic.other_protocol() == Some(Protocol::Http2) {
            // Its refusal is still to be written.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::http::transport::socket::Socket;

    async fn read(pieces: &[&[u8]]) -> (Vec<u8>, Option<Protocol>) {
        let (server, mut client) = UnixStream::pair().unwrap();
        let socket = SharedSocket::new(Arc::new(Socket::Unix(server)), Duration::from_secs(20));
        let traffic = Arc::new(Traffic::default());
        let mut reading = Reading::new(socket, Arc::clone(&traffic));
        let sending = async move {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let mut all = Vec::new();
        let (_, end) = tokio::join!(sending, reading.read_to_end(&mut all));
        end.unwrap();
        (all, traffic.other_protocol())
    }

    #[tokio::test]
    async fn whatever_is_no_preface_is_handed_on_as_it_came() {
        for pieces in [
            &[&b"GET / HTTP/1.1\r\n"[..], b"host: a\r\n\r\n"][..],
            &[b"P", b"R", b"I", b" * HTTP/1.1\r\n\r\n"],
            &[b"P", b"OST / HTTP/1.1\r\n\r\n"],
            &[b"PRI * HTTP/2.0\r"],
            &[b""],
        ] {
            assert_eq!(read(pieces).await, (pieces.concat(), None));
        }
    }

    #[tokio::test]
    async fn a_preface_is_known_however_it_is_cut() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for cut in 1..PREFACE.len() {
            let (first, second) = preface.split_at(cut);
            let read = read(&[first, second]).await;
            assert_eq!(read, (Vec::new(), Some(Protocol::Http2)));
        }
    }
}
