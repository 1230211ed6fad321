//! Asks the running daemon over its control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

/// A daemon that has not answered by then hangs, or its disk does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends a command, and waits for its outcome.
///
/// # Errors
///
/// No daemon listens there, it may not be asked, or it did not answer.
pub(super) fn ask<Outcome: DeserializeOwned>(path: &Path, command: &str) -> io::Result<Outcome> {
    let mut daemon = UnixStream::connect(path)?;
    daemon.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    writeln!(daemon, "{command}")?;
    let mut answer = String::new();
    BufReader::new(daemon).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::other("it ended before it answered"));
    }
    Ok(serde_json::from_str(&answer)?)
}

/// Whether an error says that no daemon runs.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

/// Whether an error says that a daemon runs and has not answered in time.
pub(super) fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
