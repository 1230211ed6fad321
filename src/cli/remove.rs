//! `rkllmd rm`: takes an installed model out of the models folder. A running daemon unloads it first.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::control::{ask, is_absent, is_late};
use super::models::{EXIT_NO_MODEL, ModelsFolder, find, scan};
use super::{EXIT_IN_USE, print};
use crate::daemon::{RESCAN, RescanOutcome, UNLOAD, UnloadOutcome, control_socket_path};
use crate::hub::{Removal, RemovalError};
use crate::models::{InstalledModel, readable_size};
use crate::printable::printable;
use crate::settings::SettingsError;

pub(super) const EXAMPLES: &str = "\
Shows what goes, and asks. A running daemon that has loaded the model unloads it first, and serves it no more; a
model that is in use stays. Links in the models folder are removed, and never what they lead to.

The exit code is 0 when the model is gone, 1 when it cannot be removed, 2 when there is none of this name, 75 when
it is in use, 78 when the configuration is wrong.

Examples:
  sudo -u rkllmd rkllmd rm my-model
  rkllmd rm OWNER/NAME --models ~/models --yes";

#[derive(Args)]
pub(super) struct RemoveArguments {
    /// Id or alias of an installed model
    model: String,
    #[command(flatten)]
    folder: ModelsFolder,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(arguments: &RemoveArguments) -> Result<ExitCode, SettingsError> {
    let settings = arguments.folder.settings()?;
    let Some(catalog) = scan(&settings) else {
        return Ok(ExitCode::FAILURE);
    };
    let Some(model) = find(&catalog, &arguments.model) else {
        return Ok(ExitCode::from(EXIT_NO_MODEL));
    };
    if model.adapted.is_some() {
        let (id, base) = (printable(model.name()), printable(&model.id));
        eprintln!("error: {id} is a part of {base}: take it out of [[adapters]] in the model.toml");
        return Ok(ExitCode::FAILURE);
    }
    let models = &settings.models.dir;
    let removal = match model.location.as_ref().map(|it| Removal::of(models, it)) {
        Some(Ok(removal)) => removal,
        Some(Err(error)) => return Ok(failed(&error)),
        None => return Ok(ExitCode::FAILURE),
    };
    if !arguments.yes && !confirmed(&model, &removal) {
        eprintln!("error: nothing was removed; `--yes` removes it without asking");
        return Ok(ExitCode::FAILURE);
    }
    let is_served = match unloaded(&model.path) {
        Ok(is_served) => is_served,
        Err(code) => return Ok(code),
    };
    let removed = removal.remove();
    // It may be gone from its place also where the rest failed.
    if is_served {
        rescan();
    }
    Ok(match removed {
        Ok(()) => {
            let text = format!("{} is removed\n", printable(&model.id));
            print(&text, ExitCode::SUCCESS)
        }
        Err(error) => failed(&error),
    })
}

/// Asks the user at the terminal. Without one nothing is confirmed.
fn confirmed(model: &InstalledModel, removal: &Removal) -> bool {
    let size = readable_size(model.facts.size_bytes);
    eprintln!("{} ({size}) goes:", printable(&model.id));
    for path in removal.paths() {
        eprintln!("  {}", printable(&path.display().to_string()));
    }
    if !io::stdin().is_terminal() {
        return false;
    }
    eprint!("Remove it? [y/N] ");
    let mut answer = String::new();
    let read = io::stderr()
        .flush()
        .and_then(|()| io::stdin().lock().read_line(&mut answer));
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Has a running daemon unload it, and says whether that serves it; an exit code where it must stay.
fn unloaded(path: &Path) -> Result<bool, ExitCode> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Ok(path) = serde_json::to_string(&path) else {
        // A path that JSON cannot tell is none of the daemon's models'.
        return Ok(false);
    };
    match ask(&control_socket_path(), &format!("{UNLOAD}{path}")) {
        Ok(UnloadOutcome::Unloaded) => Ok(true),
        Ok(UnloadOutcome::NotServed) => Ok(false),
        Ok(UnloadOutcome::InUse) => {
            eprintln!("error: the daemon is loading or using it: try again when it is idle");
            Err(ExitCode::from(EXIT_IN_USE))
        }
        Ok(UnloadOutcome::Failed { reason }) => {
            eprintln!("error: the daemon cannot unload it: {}", printable(&reason));
            Err(ExitCode::FAILURE)
        }
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) if is_late(&error) => {
            eprintln!("error: the daemon does not answer, and may have it loaded");
            Err(ExitCode::FAILURE)
        }
        Err(error) => {
            eprintln!(
                "note: the daemon could not be asked to unload it ({error}): one that has it loaded goes on \
                 with it until `rkllmd reload`"
            );
            Ok(false)
        }
    }
}

/// So that the model is not listed any more; the configuration stays as it is.
fn rescan() {
    let reason = match ask(&control_socket_path(), RESCAN) {
        Ok(RescanOutcome::Served) => return,
        Ok(RescanOutcome::Failed { reason }) => reason,
        Err(error) if is_absent(&error) => return,
        Err(error) => error.to_string(),
    };
    let reason = printable(&reason);
    eprintln!("note: the daemon lists it until `rkllmd reload`: {reason}");
}

fn failed(error: &RemovalError) -> ExitCode {
    eprintln!("error: {}", printable(&error.to_string()));
    match error {
        RemovalError::InUse { .. } => ExitCode::from(EXIT_IN_USE),
        _ => ExitCode::FAILURE,
    }
}
