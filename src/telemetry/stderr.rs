//! Standard error as the log's destination, and the one place from which the running daemon writes to
//! it: a pipe without a reader, or a terminal that was stopped, holds up the thread that writes.

use std::io::{self, ErrorKind, Write};

use rustix::event::{PollFd, PollFlags, poll};

use super::log_writer::{Destination, LogWriter};

pub(super) struct Stderr;

impl Destination for Stderr {
    const NAME: &'static str = "log";

    fn write(&mut self, mut entry: &[u8]) -> io::Result<()> {
        // Not through the standard library: other threads would wait for its lock.
        let stderr = rustix::stdio::stderr();
        while !entry.is_empty() {
            match rustix::io::write(stderr, entry).map_err(io::Error::from) {
                Ok(written) => entry = &entry[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A process that shares it made it so.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn of_dropped(&self, count: u64) -> Vec<u8> {
        format!("rkllmd: {count} log entries were dropped while they were not read\n").into_bytes()
    }
}

/// Takes each call of `write` as one entry.
pub(super) struct Entries<'a>(pub &'a LogWriter);

impl Write for Entries<'_> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.0.submit(entry.to_vec());
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
