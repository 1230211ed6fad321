//! The daemon's end of a worker's IPC socket.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

/// Frames in both directions. Every read can be cancelled without losing bytes.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    outgoing: Vec<u8>,
}

impl Connection {
    pub fn new(socket: StdUnixStream) -> io::Result<Self> {
        Ok(Self {
            stream: UnixStream::from_std(socket)?,
            reader: FrameReader::default(),
            outgoing: Vec::new(),
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
            if self.stream.read_buf(self.reader.buffer()).await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }
}
