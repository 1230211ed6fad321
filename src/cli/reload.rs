//! `rkllmd reload`: asks the running daemon and waits for the outcome.

use std::process::ExitCode;

use super::EXIT_BAD_CONFIG;
use super::control::ask;
use crate::daemon::{RELOAD, ReloadOutcome, control_socket_path};
use crate::printable::printable;

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
    match ask(&path, RELOAD) {
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
