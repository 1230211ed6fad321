//! `rkllmd doctor`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::board::Sysroot;
use crate::doctor::{self, COPYS_CONFIG, Patient, Status, Whose};
use crate::durable_write::{LockedFolder, Readers};
use crate::printable::printable;
use crate::settings::{CliOverrides, Settings, SettingsError};

use super::own_process::{self, Told};

pub(super) const EXAMPLES: &str = "\
Needs no daemon, writes nothing but the file of --collect, and takes less than three seconds without that.
The exit code is 0 when all is well, 1 when something is to be looked at, 2 when something is wrong; with
--collect it is 0 when the file is written, 1 when it is not.

Examples:
  rkllmd doctor
  sudo rkllmd doctor                       sees other users' processes and the keys, too
  rkllmd doctor --json | jq '.checks[] | select(.status == \"fail\")'
  rkllmd doctor --sysroot ./board          a copy of a board's /proc, /sys, /dev and /etc
  sudo rkllmd doctor --collect board.tar.gz
                                           such a copy, to send: no keys, serial numbers, addresses or
                                           names of hosts; tar -xpzf board.tar.gz -C ./board unpacks it";

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
    /// Pack the board's files that are looked at, and the report, into this file (.tar.gz)
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    collect: Option<PathBuf>,
    /// Replace the file of --collect where it exists
    #[arg(long, requires = "collect")]
    force: bool,
    /// In this very process
    #[arg(long, hide = true)]
    inside: bool,
}

/// Nothing that hangs keeps the command from ending.
pub(super) fn run(arguments: DoctorArguments) -> Result<ExitCode, SettingsError> {
    let is_inside = arguments.inside;
    if !is_inside && let Some(code) = own_process::run_with("--inside") {
        return Ok(code);
    }
    if is_inside {
        own_process::follow();
    }
    let told = examined(arguments)?;
    Ok(match is_inside {
        true => own_process::tell(&told),
        false => super::print(&told.text, ExitCode::from(told.code)),
    })
}

fn examined(arguments: DoctorArguments) -> Result<Told, SettingsError> {
    let whose = match arguments.sysroot.is_none() && arguments.config.is_some() {
        true => Whose::Other,
        false => Whose::Service,
    };
    let (sysroot, settings) = match arguments.sysroot {
        None => {
            let settings = super::load(arguments.config.as_deref(), &CliOverrides::default())?;
            (Sysroot::own(), settings)
        }
        Some(folder) if !folder.is_dir() => {
            eprintln!("error: {}: there is no such folder", folder.display());
            return Ok(Told::new("", 2));
        }
        Some(folder) => {
            let sysroot = Sysroot::new(folder);
            let config = arguments
                .config
                .unwrap_or_else(|| sysroot.path(COPYS_CONFIG));
            // The environment is this machine's and not the board's.
            let settings = if config.is_file() {
                Settings::load(Some(&config), [], &CliOverrides::default())?
            } else {
                Settings::default()
            };
            (sysroot, settings)
        }
    };
    let mut patient = Patient::new(sysroot, settings);
    patient.whose = whose;
    if let Some(file) = arguments.collect {
        return Ok(collect(patient, &file, arguments.force));
    }
    let report = doctor::examine(patient);
    let text = if arguments.json {
        report.to_json()
    } else {
        report.to_string()
    };
    let code = match report.worst() {
        Status::Ok | Status::Skip => 0,
        Status::Warn => 1,
        Status::Fail => 2,
    };
    Ok(Told::new(text, code))
}

/// Writes a copy of the board. It is its owner's to read: of a board's administrator, who decides whom to send it.
fn collect(patient: Patient, file: &Path, replaces: bool) -> Told {
    let shown = printable(&file.display().to_string()).into_owned();
    let refused = |why: &dyn std::fmt::Display| {
        eprintln!("error: {shown}: {why}");
        Told::new("", 1)
    };
    // Before the board is looked at, and once more before it is written.
    if !replaces && file.symlink_metadata().is_ok() {
        return refused(&"it exists; --force replaces it");
    }
    let report = doctor::examine(patient.clone());
    let collected = match doctor::collect(patient, &report) {
        Ok(collected) => collected,
        Err(error) => return refused(&format!("it cannot be made: {error}")),
    };
    if let Err(error) = write(file, &collected.archive, replaces) {
        return refused(&error);
    }
    let mut text = format!(
        "{shown}: {} files of the board, and the report\n",
        collected.files
    );
    for left_out in &collected.left_out {
        text.push_str(&format!("left out: {}\n", printable(left_out)));
    }
    Told::new(text, 0)
}

fn write(file: &Path, content: &[u8], replaces: bool) -> io::Result<()> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::other("it has no name that is text"))?;
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let folder = LockedFolder::lock(folder)?;
    if !replaces && file.symlink_metadata().is_ok() {
        return Err(io::Error::other("it exists; --force replaces it"));
    }
    folder.replace(name, content, Readers::OwnerOnly)
}
