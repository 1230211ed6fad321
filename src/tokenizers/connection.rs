//! A tokenizer process and the socket to it. Dropping it ends the process.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;

use crate::generation::ModelId;
use crate::ipc::{self, FrameReader, PROTOCOL_VERSION, TokenizerCommand, TokenizerEvent};
use crate::supervisor::{PrintedLines, Spawned};

/// Why a process is of no more use.
pub(super) enum Failure {
    Deadline,
    Ended(String),
}

pub(super) struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    /// Killed when it is dropped.
    _child: Child,
}

impl Connection {
    pub fn new(spawned: Spawned, model: &ModelId) -> io::Result<Self> {
        let pid = spawned.child.id().unwrap_or_default();
        PrintedLines::drain(spawned.printed, ModelId::clone(model), pid)?;
        Ok(Self {
            stream: UnixStream::from_std(spawned.socket)?,
            reader: FrameReader::default(),
            _child: spawned.child,
        })
    }

    /// One question and its answer. After an error, or when it was not waited for, the two are out
    /// of step and the process must not be asked again.
    pub async fn ask(&mut self, command: &TokenizerCommand) -> io::Result<TokenizerEvent> {
        let mut frame = Vec::new();
        ipc::encode(command, &mut frame).map_err(io::Error::other)?;
        self.stream.write_all(&frame).await?;
        loop {
            if let Some(event) = self.reader.next_message().map_err(io::Error::other)? {
                return Ok(event);
            }
            if self.stream.read_buf(self.reader.buffer()).await? == 0 {
                return Err(io::Error::other("it closed its connection"));
            }
        }
    }
}

pub(super) fn open_command(tokenizer_json: &Path) -> TokenizerCommand {
    TokenizerCommand::Open {
        protocol: PROTOCOL_VERSION,
        tokenizer_json: tokenizer_json.to_owned(),
    }
}
