//! `rkllmd reload`: asks the running daemon and waits for the outcome.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::EXIT_BAD_CONFIG;
use crate::daemon::{RELOAD, ReloadOutcome, control_socket_path};
use crate::printable::printable;

/// A daemon that has not answered by then hangs, or its disk does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) const EXAMPLES: &str = "\
Waits for the outcome. The exit code is 78 when the daemon refuses the new configuration, which it then
names; the old one stays in force. Models that are new, changed or gone are taken over too, and nothing
that is being answered is disturbed. What can only change with a restart is printed as such.

The daemon is found by $RUNTIME_DIRECTORY/control.sock, or else /run/rkllmd/control.sock; only its own
user and root may ask it. SIGHUP makes it reload as well, without an answer.

Examples:
  sudo rkllmd reload
  sudo systemctl reload rkllmd";

pub(super) fn run() -> ExitCode {
    let path = control_socket_path();
    match ask(&path) {
        Ok(ReloadOutcome::Applied(applied)) => {
            let lines: Vec<_> = applied
                .lines()
                .iter()
                .map(|l| printable(l).into_owned())
                .collect();
            super::print(&(lines.join("\n") + "\n"), ExitCode::SUCCESS)
        }
        Ok(ReloadOutcome::Refused { problems }) => {
            for problem in problems {
                eprintln!("error: {}", printable(&problem));
            }
            ExitCode::from(EXIT_BAD_CONFIG)
        }
        Err(error) => {
            eprintln!("error: asking the daemon at {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn ask(path: &Path) -> io::Result<ReloadOutcome> {
    let mut daemon = UnixStream::connect(path)?;
    daemon.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    writeln!(daemon, "{RELOAD}")?;
    let mut answer = String::new();
    BufReader::new(daemon).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::other("it ended before it answered"));
    }
    Ok(serde_json::from_str(&answer)?)
}
