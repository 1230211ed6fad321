//! `rkllmd worker-self-test`: gives up what a worker gives up and tries what must not work then, for checks on
//! machines whose kernel and service manager differ.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::walls;
use crate::confinement::Landlock;
use crate::ipc::Command;

/// What every worker needs.
const NEEDED: [&str; 3] = ["/proc/meminfo", "/usr", "/dev/null"];

/// Prints a line for each try; success if nothing of `hidden` can be read any more that could be before, and
/// what is needed can. `first`: what a worker would be told.
pub fn run(first: &Command, hidden: &[PathBuf]) -> ExitCode {
    if let Landlock::Missing(reason) = Landlock::of_this_machine() {
        println!("not tried: no Landlock: {reason}");
        return ExitCode::FAILURE;
    }
    let before: Vec<_> = hidden.iter().map(|path| read(path)).collect();
    if let Err(error) = walls::rules_for(first).and_then(walls::enter) {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let mut holds = true;
    for (path, before) in hidden.iter().zip(before) {
        let after = read(path);
        let is_hidden = after.as_ref().is_err_and(is_refusal);
        holds &= is_hidden && before.is_ok();
        let told =
            |read: io::Result<()>| read.map_or_else(|error| error.to_string(), |()| "read".into());
        println!(
            "{}: before: {}, in a worker: {}",
            path.display(),
            told(before),
            told(after)
        );
    }
    for path in NEEDED.map(Path::new) {
        if let Err(error) = read(path) {
            println!("{}: needed, in a worker: {error}", path.display());
            holds = false;
        }
    }
    match holds {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn read(path: &Path) -> io::Result<()> {
    match path.is_dir() {
        true => fs::read_dir(path).map(drop),
        false => File::open(path).map(drop),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
