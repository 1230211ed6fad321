//! Where commands are written, without ever waiting for the worker.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::unix::OwnedWriteHalf;

use super::Shared;
use crate::children::ConnectionError;
use crate::ipc::{self, Command};

/// What the socket has no room for waits here, in order.
#[derive(Debug)]
pub(super) struct Commands {
    stream: OwnedWriteHalf,
    waiting: Mutex<Waiting>,
}

/// Frames, of which so many bytes are written.
#[derive(Debug, Default)]
struct Waiting {
    frames: Vec<u8>,
    written: usize,
}

impl Shared {
    pub(super) fn send(self: &Arc<Self>, command: &Command) -> Result<(), ConnectionError> {
        let mut frame = Vec::new();
        ipc::encode(command, &mut frame)?;
        let mut waiting = self.commands.lock();
        if !waiting.frames.is_empty() {
            waiting.frames.extend_from_slice(&frame);
            return Ok(());
        }
        waiting.frames = frame;
        if !self.commands.write_some(&mut waiting)? {
            tokio::spawn(write_rest(Arc::clone(self)));
        }
        Ok(())
    }
}

impl Commands {
    pub fn new(stream: OwnedWriteHalf) -> Self {
        Self {
            stream,
            waiting: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what the socket has room for. Returns whether that was all.
    fn write_some(&self, waiting: &mut Waiting) -> io::Result<bool> {
        while waiting.written < waiting.frames.len() {
            match self.stream.try_write(&waiting.frames[waiting.written..]) {
                Ok(count) => waiting.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        *waiting = Waiting::default();
        Ok(true)
    }
}

/// Writes what waits, until nothing does. That the worker is gone the reading task notices, too.
async fn write_rest(shared: Arc<Shared>) {
    let commands = &shared.commands;
    while commands.stream.writable().await.is_ok() {
        if !matches!(commands.write_some(&mut commands.lock()), Ok(false)) {
            return;
        }
    }
}
