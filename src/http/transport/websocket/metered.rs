//! A client's stream whose bytes are charged as they arrive: a message is in memory before it is whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::memory::{Charge, OverBudget};

pub(super) struct Metered<S> {
    stream: S,
    /// For what was read and not taken.
    charge: Charge,
}

/// Why reading failed, where it was for want of memory.
pub(super) fn over_budget(error: &io::Error) -> Option<OverBudget> {
    error.get_ref()?.downcast_ref().copied()
}

impl<S> Metered<S> {
    pub fn new(stream: S, charge: Charge) -> Self {
        Self { stream, charge }
    }

    pub fn take_charge(&mut self) -> Charge {
        self.charge.split(self.charge.bytes())
    }

    /// So many of the bytes are not kept.
    pub fn forget(&mut self, bytes: usize) {
        drop(self.charge.split(bytes));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        let charged = self.charge.grow(read).map_err(io::Error::other);
        Poll::Ready(charged)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
