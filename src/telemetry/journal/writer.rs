//! The journal's socket as the log's destination.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::entry;
use crate::telemetry::log_writer::{Destination, LogWriter};

struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

/// Starts writing to the journal's socket at `path`.
///
/// # Errors
///
/// No journal listens there, or the thread cannot be started.
pub fn start(path: &Path) -> io::Result<LogWriter> {
    let socket = UnixDatagram::unbound()?;
    // The journal ignores an empty entry; this only shows that it listens.
    UnixDatagram::unbound()?.connect(path)?;
    let path = path.to_owned();
    LogWriter::start(Journal { socket, path })
}

impl Destination for Journal {
    const NAME: &'static str = "journal";

    fn write(&mut self, entry: &[u8]) -> io::Result<()> {
        // By path each time: a journal that was restarted may listen on a new socket.
        self.socket.send_to(entry, &self.path).map(drop)
    }

    fn of_dropped(&self, count: u64) -> Vec<u8> {
        entry::of_dropped(count)
    }
}
