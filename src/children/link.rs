//! A child's end of its IPC socket, read by one thread.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ipc::{self, DaemonHello, FrameError, FrameReader, PROTOCOL_VERSION};

const READ_BYTES: usize = 16 * 1024;

/// The daemon is of another build.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the daemon speaks protocol {theirs}, this process {PROTOCOL_VERSION}")]
pub struct OtherProtocol {
    theirs: u32,
}

#[derive(Debug)]
pub struct ChildLink {
    socket: UnixStream,
    frames: FrameReader,
}

impl ChildLink {
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            frames: FrameReader::default(),
        }
    }

    /// Reads the daemon's hello, which is to be answered with ours also if the two differ.
    pub fn daemons_hello(&mut self) -> anyhow::Result<Result<(), OtherProtocol>> {
        let Some(hello) = self.receive::<DaemonHello>()? else {
            anyhow::bail!("the daemon closed the connection before its hello");
        };
        let theirs = hello.protocol;
        Ok((theirs == PROTOCOL_VERSION)
            .then_some(())
            .ok_or(OtherProtocol { theirs }))
    }

    /// A further handle to write with, on another thread.
    pub fn writer(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    /// Blocks until a whole message has arrived; `None` at the end of the stream.
    pub fn receive<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let mut chunk = [0; READ_BYTES];
        loop {
            if let Some(message) = self.frames.next_message()? {
                return Ok(Some(message));
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.frames.buffer().extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends one message.
    pub fn send<T: Serialize>(&mut self, message: &T) -> anyhow::Result<()> {
        let mut frame = Vec::new();
        ipc::encode(message, &mut frame)?;
        Ok(self.socket.write_all(&frame)?)
    }

    /// Sends one message, or gives how many bytes it would have, where that is more than `limit_bytes`.
    pub fn send_within<T: Serialize>(
        &mut self,
        message: &T,
        limit_bytes: usize,
    ) -> anyhow::Result<Result<(), usize>> {
        let mut frame = Vec::new();
        match ipc::encode(message, &mut frame) {
            Ok(()) if frame.len() <= limit_bytes => Ok(Ok(self.socket.write_all(&frame)?)),
            Ok(()) => Ok(Err(frame.len())),
            Err(FrameError::TooLarge(bytes)) => Ok(Err(bytes)),
            Err(error) => Err(error.into()),
        }
    }
}
