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
use tokio::task::coop::consume_budget;

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
        let count = loop {
            stream.readable().await?;
            // However much there is, other tasks have their turn.
            consume_budget().await;
            let mut received = None;
            let tried = stream.try_io(Interest::READABLE, || {
                let (count, is_all) = receive_now(stream, &mut incoming[..], files)?;
                received = Some(count);
                match is_all {
                    // That more would have to be waited for is known without asking for it.
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Ok(()),
                }
            });
            match (received, tried) {
                (Some(count), _) => break count,
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(error.into());
                }
                (None, _) => {}
            }
        };
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

/// Takes what is there. Returns how many bytes, and whether these are all: of bytes without files as many as
/// have room come at once; behind files a further call may find more.
fn receive_now(
    stream: &UnixStream,
    bytes: &mut [u8],
    files: &mut VecDeque<OwnedFd>,
) -> io::Result<(usize, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let room = bytes.len();
    let mut parts = [IoSliceMut::new(bytes)];
    let received = rustix::net::recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut is_all = (1..room).contains(&received.bytes);
    for message in control.drain() {
        is_all = false;
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            files.extend(passed);
        }
    }
    Ok((received.bytes, is_all))
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

    /// Each write of a worker is seen, whether or not others came with it, and with files among them.
    #[tokio::test]
    async fn nothing_that_a_child_writes_is_overlooked() {
        let limit = std::time::Duration::from_secs(20);
        let (daemon, worker) = StdUnixStream::pair().unwrap();
        daemon.set_nonblocking(true).unwrap();
        let mut connection = Connection::<WorkerKind>::new(daemon).unwrap();
        let mut frame = Vec::new();
        ipc::encode(&Event::Heartbeat, &mut frame).unwrap();
        let passed = [worker.as_fd()];
        let write = |bytes: &[u8], has_file: bool| {
            let message = SendAncillaryMessage::ScmRights(&passed);
            let mut space = vec![MaybeUninit::uninit(); message.size()];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(!has_file || control.push(message));
            let parts = [IoSlice::new(bytes)];
            rustix::net::sendmsg(&worker, &parts, &mut control, SendFlags::empty()).unwrap();
        };
        // More than is read at once, and cut where that ends.
        let most = READ_BYTES / frame.len() + 1;
        let bytes = frame.repeat(most);
        write(&bytes[..READ_BYTES], false);
        write(&bytes[READ_BYTES..], false);
        for _ in 0..most {
            let event = tokio::time::timeout(limit, connection.next_event()).await;
            assert_eq!(event.expect("it is there").unwrap(), Event::Heartbeat);
        }
        for pieces in [
            &[(1, false)][..],
            &[(1, false), (2, false)],
            &[(1, false), (1, true), (1, false)],
            &[(1, true), (1, true), (3, false)],
            &[(most, false), (1, false)],
            &[(most, false), (most, true), (most, false)],
        ] {
            for &(frames, has_file) in pieces {
                write(&frame.repeat(frames), has_file);
            }
            for _ in 0..pieces.iter().map(|(frames, _)| frames).sum() {
                let event = tokio::time::timeout(limit, connection.next_event()).await;
                assert_eq!(event.expect("it is there").unwrap(), Event::Heartbeat);
            }
            while connection.incoming.take_file().is_some() {}
            // Nothing more comes, and then it does.
            let next = tokio::spawn(async move {
                let event = connection.next_event().await;
                (connection, event)
            });
            tokio::task::yield_now().await;
            write(&frame, false);
            let (back, event) = tokio::time::timeout(limit, next).await.unwrap().unwrap();
            assert_eq!(event.unwrap(), Event::Heartbeat);
            connection = back;
            // And that this was all is known without asking the kernel once more.
            let stream: &UnixStream = connection.incoming.stream.as_ref();
            let asked = stream.try_io(Interest::READABLE, || Ok(()));
            assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        drop(worker);
        let end = tokio::time::timeout(limit, connection.next_event()).await;
        assert!(matches!(end, Ok(Err(ConnectionError::Closed))), "{end:?}");
    }
}
