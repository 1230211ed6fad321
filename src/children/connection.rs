//! The daemon's end of a child's IPC socket.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::ChildKind;
use crate::ipc::{self, DaemonHello, FrameError, FrameReader, PROTOCOL_VERSION};

#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the child closed its connection")]
    Closed,
    #[error("the connection to the child failed: {0}")]
    Io(Arc<io::Error>),
    #[error("the child sent something unreadable: {0}")]
    Frame(#[from] FrameError),
    #[error("the child speaks protocol {theirs}, this daemon {PROTOCOL_VERSION}")]
    Protocol { theirs: u32 },
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Read at once at most.
const READ_BYTES: usize = 16 * 1024;
/// More files than an event can have.
const MOST_FILES: usize = 253;

/// Frames in both directions. Every read can be cancelled without losing bytes.
#[derive(Debug)]
pub struct Connection<K> {
    incoming: Incoming<K>,
    stream: OwnedWriteHalf,
    outgoing: Vec<u8>,
}

/// What the child says.
#[derive(Debug)]
pub struct Incoming<K> {
    stream: OwnedReadHalf,
    reader: FrameReader,
    bytes: Box<[u8; READ_BYTES]>,
    /// Files that came with events, in order.
    files: VecDeque<OwnedFd>,
    kind: PhantomData<fn() -> K>,
}

impl<K: ChildKind> Connection<K> {
    pub fn new(socket: StdUnixStream) -> io::Result<Self> {
        let (read, write) = UnixStream::from_std(socket)?.into_split();
        Ok(Self {
            incoming: Incoming {
                stream: read,
                reader: FrameReader::with_limit(K::EVENT_LIMIT_BYTES),
                bytes: Box::new([0; READ_BYTES]),
                files: VecDeque::new(),
                kind: PhantomData,
            },
            stream: write,
            outgoing: Vec::new(),
        })
    }

    /// Its two ends: what the child says, and where commands are written, as frames.
    pub fn into_split(self) -> (Incoming<K>, OwnedWriteHalf) {
        (self.incoming, self.stream)
    }

    /// Exchanges protocol versions.
    pub async fn handshake(&mut self) -> Result<(), ConnectionError> {
        ipc::encode(
            &DaemonHello {
                protocol: PROTOCOL_VERSION,
            },
            &mut self.outgoing,
        )?;
        self.flush().await?;
        match K::protocol(&self.next_event().await?) {
            Some(PROTOCOL_VERSION) => Ok(()),
            other => Err(ConnectionError::Protocol {
                theirs: other.unwrap_or(0),
            }),
        }
    }

    pub async fn send(&mut self, command: &K::Command) -> Result<(), ConnectionError> {
        ipc::encode(command, &mut self.outgoing)?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ConnectionError> {
        let sent = self.stream.write_all(&self.outgoing).await;
        ipc::empty(&mut self.outgoing);
        Ok(sent?)
    }

    pub async fn next_event(&mut self) -> Result<K::Event, ConnectionError> {
        self.incoming.next_event().await
    }
}

impl<K: ChildKind> Incoming<K> {
    /// The next event that has already arrived.
    pub fn buffered_event(&mut self) -> Result<Option<K::Event>, ConnectionError> {
        Ok(self.reader.next_message()?)
    }

    pub async fn next_event(&mut self) -> Result<K::Event, ConnectionError> {
        loop {
            if let Some(event) = self.buffered_event()? {
                return Ok(event);
            }
            self.receive().await?;
        }
    }

    /// The next of the files that came with the events taken so far.
    pub fn take_file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }

    /// Waits for bytes and takes them, with the files that came along.
    pub async fn receive(&mut self) -> Result<(), ConnectionError> {
        let stream: &UnixStream = self.stream.as_ref();
        let (incoming, files) = (&mut self.bytes, &mut self.files);
        let count = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut parts = [IoSliceMut::new(&mut incoming[..])];
                let received = rustix::net::recvmsg(
                    stream,
                    &mut parts,
                    &mut control,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(passed) = message {
                        files.extend(passed);
                    }
                }
                Ok(received.bytes)
            })
            .await?;
        // Those of an event that is not whole yet, and what came with more of it.
        if self.files.len() > 2 * MOST_FILES {
            return Err(io::Error::other("more files than its events have").into());
        }
        if count == 0 {
            return Err(ConnectionError::Closed);
        }
        self.reader.buffer().extend_from_slice(&self.bytes[..count]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::Event;
    use crate::supervisor::WorkerKind;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    /// What holds a descriptor is no part of any event.
    #[tokio::test]
    async fn a_child_cannot_fill_the_daemon_with_descriptors() {
        let (daemon, worker) = StdUnixStream::pair().unwrap();
        daemon.set_nonblocking(true).unwrap();
        let mut connection = Connection::<WorkerKind>::new(daemon).unwrap();
        let mut frame = Vec::new();
        ipc::encode(&Event::Heartbeat, &mut frame).unwrap();
        for sent in 0.. {
            let passed = [worker.as_fd(); 100];
            let message = SendAncillaryMessage::ScmRights(&passed);
            let mut space = vec![MaybeUninit::uninit(); message.size()];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(message));
            let parts = [IoSlice::new(&frame)];
            rustix::net::sendmsg(&worker, &parts, &mut control, SendFlags::empty()).unwrap();
            match connection.next_event().await {
                Ok(Event::Heartbeat) => {
                    assert!(sent < 6, "{} files", connection.incoming.files.len())
                }
                Err(ConnectionError::Io(_)) => return,
                other => panic!("{other:?}"),
            }
        }
    }
}
