//! `rkllmd doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::board::Sysroot;
use crate::doctor::{self, Patient, Status};
use crate::settings::{CliOverrides, Settings, SettingsError};

/// The configuration in a copy of a board.
const CONFIG: &str = "/etc/rkllmd/rkllmd.toml";

pub(super) const EXAMPLES: &str = "\
Needs no daemon, writes nothing, and takes less than three seconds. The exit code is 0 when all is well,
1 when something is to be looked at, 2 when something is wrong.

Examples:
  rkllmd doctor
  sudo rkllmd doctor                       sees other users' processes and the keys, too
  rkllmd doctor --json | jq '.checks[] | select(.status == \"fail\")'
  rkllmd doctor --sysroot ./board          a copy of a board's /proc, /sys, /dev and /etc";

#[derive(Args)]
pub(super) struct DoctorArguments {
    /// Configuration file; its drop-ins are FILE.d/*.toml [default: /etc/rkllmd/rkllmd.toml, if it
    /// exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look at a copy of a board's files in this folder, its configuration included
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: DoctorArguments) -> Result<ExitCode, SettingsError> {
    let (sysroot, settings) = match arguments.sysroot {
        None => {
            let settings = super::load(arguments.config.as_deref(), &CliOverrides::default())?;
            (Sysroot::own(), settings)
        }
        Some(folder) if !folder.is_dir() => {
            eprintln!("error: {}: there is no such folder", folder.display());
            return Ok(ExitCode::from(2));
        }
        Some(folder) => {
            let sysroot = Sysroot::new(folder);
            let config = arguments.config.unwrap_or_else(|| sysroot.path(CONFIG));
            // The environment is this machine's and not the board's.
            let settings = if config.is_file() {
                Settings::load(Some(&config), [], &CliOverrides::default())?
            } else {
                Settings::default()
            };
            (sysroot, settings)
        }
    };
    let report = doctor::examine(Patient::new(sysroot, settings));
    let text = if arguments.json {
        report.to_json()
    } else {
        report.to_string()
    };
    Ok(super::print(
        &text,
        ExitCode::from(match report.worst() {
            Status::Ok | Status::Skip => 0,
            Status::Warn => 1,
            Status::Fail => 2,
        }),
    ))
}
