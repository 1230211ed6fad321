//! `rkllmd prune`: removes what pulls and removals have left in the models folder.

use std::process::ExitCode;

use clap::Args;

use super::models::ModelsFolder;
use super::print;
use crate::hub::{Leftover, LeftoverKind, leftovers};
use crate::models::readable_size;
use crate::printable::{printable, printable_json};
use crate::settings::SettingsError;

pub(super) const EXAMPLES: &str = "\
What has come of pulls that were cut off goes too: such a pull begins anew then. What is being pulled or removed
just now stays, and so does every model.

Examples:
  rkllmd prune --dry-run
  sudo -u rkllmd rkllmd prune";

#[derive(Args)]
pub(super) struct PruneArguments {
    #[command(flatten)]
    folder: ModelsFolder,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &PruneArguments) -> Result<ExitCode, SettingsError> {
    let settings = arguments.folder.settings()?;
    let found = match leftovers(&settings.models.dir, !arguments.dry_run) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("error: {}", printable(&error.to_string()));
            return Ok(ExitCode::FAILURE);
        }
    };
    let text = match arguments.json {
        true => {
            let json = serde_json::to_string_pretty(&found).unwrap_or_default();
            printable_json(&json).into_owned() + "\n"
        }
        false => told(&found, arguments.dry_run),
    };
    Ok(print(&text, ExitCode::SUCCESS))
}

fn told(found: &[Leftover], dry_run: bool) -> String {
    let mut text = String::new();
    let verb = match dry_run {
        true => "would remove",
        false => "removed",
    };
    for leftover in found {
        let what = match leftover.kind {
            LeftoverKind::Pull => "a pull that was cut off",
            LeftoverKind::Removal => "a removal that was cut off",
            LeftoverKind::Beside => "what came beside a model that is gone",
        };
        let verb = match leftover.in_use {
            true => "in use, stays:",
            false => verb,
        };
        let path = leftover.path.display().to_string();
        let size = readable_size(leftover.bytes);
        text += &format!("{verb} {} ({size}): {what}\n", printable(&path));
    }
    let gone = found.iter().filter(|leftover| !leftover.in_use);
    let bytes: u64 = gone.map(|leftover| leftover.bytes).sum();
    text + &format!("{verb} {} in all\n", readable_size(bytes))
}
