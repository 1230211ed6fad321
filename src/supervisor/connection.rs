//! The daemon's end of a worker's IPC socket.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::ipc::{self, Command, DaemonHello, Event, FrameError, FrameReader, PROTOCOL_VERSION};

#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the worker closed its connection")]
    Closed,
    #[error("the connection to the worker failed: {0}")]
    Io(#[from] io::Error),
    #[error("the worker sent something unreadable: {0}")]
    Frame(#[from] FrameError),
    #[error("the worker read nothing for {} ms", limit.as_millis())]
    NotRead { limit: Duration },
    #[error("the worker speaks protocol {theirs}, this daemon {PROTOCOL_VERSION}")]
    Protocol { theirs: u32 },
}

/// Read at once at most.
const READ_BYTES: usize = 16 * 1024;
/// More files than an event can have.
const MOST_FILES: usize = 253;

/// Frames in both directions. Every read can be cancelled without losing bytes.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    outgoing: Vec<u8>,
    incoming: Box<[u8; READ_BYTES]>,
    /// Files that came with events, in order.
    files: VecDeque<OwnedFd>,
}

impl Connection {
    pub fn new(socket: StdUnixStream) -> io::Result<Self> {
        Ok(Self {
            stream: UnixStream::from_std(socket)?,
            reader: FrameReader::default(),
            outgoing: Vec::new(),
            incoming: Box::new([0; READ_BYTES]),
            files: VecDeque::new(),
        })
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
        match self.next_event().await? {
            Event::Hello { protocol } if protocol == PROTOCOL_VERSION => Ok(()),
            Event::Hello { protocol } => Err(ConnectionError::Protocol { theirs: protocol }),
            _ => Err(ConnectionError::Protocol { theirs: 0 }),
        }
    }

    pub async fn send(&mut self, command: &Command) -> Result<(), ConnectionError> {
        ipc::encode(command, &mut self.outgoing)?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ConnectionError> {
        let sent = self.stream.write_all(&self.outgoing).await;
        self.outgoing.clear();
        Ok(sent?)
    }

    /// The next event that has already arrived.
    pub fn buffered_event(&mut self) -> Result<Option<Event>, ConnectionError> {
        Ok(self.reader.next_message()?)
    }

    pub async fn next_event(&mut self) -> Result<Event, ConnectionError> {
        loop {
            if let Some(event) = self.buffered_event()? {
                return Ok(event);
            }
            if self.receive().await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }

    /// The next of the files that came with the events taken so far.
    pub fn take_file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }

    /// Waits for bytes and takes them, with the files that came along.
    async fn receive(&mut self) -> io::Result<usize> {
        let (stream, incoming, files) = (&self.stream, &mut self.incoming, &mut self.files);
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
            return Err(io::Error::other("more files than its events have"));
        }
        self.reader
            .buffer()
            .extend_from_slice(&self.incoming[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::io::IoSlice;
    use std::os::fd::AsFd;

    /// What holds a descriptor is no part of any event.
    #[tokio::test]
    async fn a_worker_cannot_fill_the_daemon_with_descriptors() {
        let (daemon, worker) = StdUnixStream::pair().unwrap();
        daemon.set_nonblocking(true).unwrap();
        let mut connection = Connection::new(daemon).unwrap();
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
                Ok(Event::Heartbeat) => assert!(sent < 6, "{} files", connection.files.len()),
                Err(ConnectionError::Io(_)) => return,
                other => panic!("{other:?}"),
            }
        }
    }
}
