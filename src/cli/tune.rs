//! `rkllmd tune`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::board::{Sysroot, Tuning, TuningChange};
use crate::printable::printable;

pub(super) const EXAMPLES: &str = "\
Sets the governors of CPU, NPU and memory to `performance`, so that no answer waits for a frequency to rise,
and remembers in /run/rkllmd-tune what they were. Either all that can be set are, or none. A governor
`userspace` is left as it is: the frequency was set by hand. The exit code is 1 when one is not as it should
be.

The unit rkllmd-tune.service, which ships disabled, does it at every start and undoes it when it is stopped.

Examples:
  rkllmd tune --dry-run                    what would be set
  sudo rkllmd tune                         until the next start of the machine
  sudo rkllmd tune --restore               what was before
  sudo systemctl enable --now rkllmd-tune  at every start";

#[derive(Args)]
pub(super) struct TuneArguments {
    /// Put the governors back that were set
    #[arg(long)]
    restore: bool,
    /// Say what would be set, and set nothing
    #[arg(long)]
    dry_run: bool,
    /// Work on a copy of a board's files in this folder
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
}

pub(super) fn run(arguments: TuneArguments) -> ExitCode {
    let sysroot = match arguments.sysroot {
        None => Sysroot::own(),
        Some(folder) if folder.is_dir() => Sysroot::new(folder),
        Some(folder) => {
            let shown = folder.display().to_string();
            eprintln!("error: {}: there is no such folder", printable(&shown));
            return ExitCode::from(2);
        }
    };
    let change = if arguments.dry_run {
        TuningChange::Tell
    } else {
        TuningChange::Make
    };
    let tuning = Tuning::new(&sysroot, change);
    let done = if arguments.restore {
        tuning.restore()
    } else {
        tuning.tune()
    };
    match done {
        Ok(tuned) => {
            let lines = tuned.lines.iter();
            let text: String = lines.map(|line| format!("{}\n", printable(line))).collect();
            let code = if tuned.is_failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
            super::print(&text, code)
        }
        Err(error) => {
            eprintln!("error: {}", printable(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}
