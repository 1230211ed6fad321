//! `rkllmd list` and `rkllmd show`: what is installed, as readers tell it. No daemon needs to run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::{load, print};
use crate::models::{Catalog, InstalledModel, Listing, NoModel, unlisted};
use crate::printable::{printable, printable_json};
use crate::settings::{CliOverrides, Settings, SettingsError};
use crate::supervisor;

pub(super) const EXAMPLES: &str = "\
Reads files only; no daemon needs to run. `rkllmd models` is another name of it. The exit code is 1 when
something is wrong with a model.

Examples:
  rkllmd list
  rkllmd list --models ~/models --json";

pub(super) const SHOW_EXAMPLES: &str = "\
Reads files only; no daemon needs to run. The exit code is 1 when something is wrong with the model, 2 when
there is none of this name.

Examples:
  rkllmd show my-model
  rkllmd show my-model --json | jq .models[0].source";

/// There is no such model.
pub(super) const EXIT_NO_MODEL: u8 = 2;

/// Where models are looked for.
#[derive(Args)]
pub(super) struct ModelsFolder {
    /// Configuration file; its drop-ins are FILE.d/*.toml [default: /etc/rkllmd/rkllmd.toml, if it
    /// exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder that is looked into (models.dir)
    #[arg(long, value_name = "DIR")]
    models: Option<String>,
}

#[derive(Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    folder: ModelsFolder,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ShowArguments {
    /// Id or alias of an installed model
    model: String,
    #[command(flatten)]
    folder: ModelsFolder,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ModelsFolder {
    pub fn settings(&self) -> Result<Settings, SettingsError> {
        let overrides = CliOverrides {
            models: self.models.clone(),
            ..CliOverrides::default()
        };
        load(self.config.as_deref(), &overrides)
    }
}

/// What is installed; an error is told.
pub(super) fn scan(settings: &Settings) -> Option<Catalog> {
    match Catalog::scan_apart(settings, None) {
        Ok(catalog) => Some(catalog),
        Err(error) => {
            let why = unlisted(&settings.models.dir, &error);
            eprintln!("error: {}", printable(&why));
            None
        }
    }
}

/// The model that is meant; that there is none is told, with what is wrong with what might be it.
pub(super) fn find(catalog: &Catalog, name: &str) -> Option<Arc<InstalledModel>> {
    match catalog.look_up(name) {
        Ok(model) => Some(Arc::clone(model)),
        Err(NoModel::Unknown | NoModel::Unread) => {
            eprintln!("error: no model `{}` is installed", printable(name));
            for found in catalog.problems().iter().filter(|found| !found.serves) {
                let path = found.path.display().to_string();
                let (path, problem) = (printable(&path), printable(&found.problem));
                eprintln!("note: {path} serves no model: {problem}");
            }
            None
        }
    }
}

pub(super) fn list(arguments: &ListArguments) -> Result<ExitCode, SettingsError> {
    let settings = arguments.folder.settings()?;
    let Some(catalog) = scan(&settings) else {
        return Ok(ExitCode::FAILURE);
    };
    let listing = Listing::of(&catalog, supervisor::slot_limits(&settings));
    let text = match arguments.json {
        true => json(&listing),
        false => listing.to_string(),
    };
    let is_well = catalog.problems().is_empty();
    Ok(print(&text, code(is_well)))
}

pub(super) fn show(arguments: &ShowArguments) -> Result<ExitCode, SettingsError> {
    let settings = arguments.folder.settings()?;
    let Some(catalog) = scan(&settings) else {
        return Ok(ExitCode::FAILURE);
    };
    let Some(model) = find(&catalog, &arguments.model) else {
        return Ok(ExitCode::from(EXIT_NO_MODEL));
    };
    let listing = Listing::of_model(&catalog, &model, supervisor::slot_limits(&settings));
    let text = match arguments.json {
        true => json(&listing),
        false => listing.in_detail(),
    };
    Ok(print(&text, code(!listing.has_problems())))
}

fn code(is_well: bool) -> ExitCode {
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn json(listing: &Listing) -> String {
    // Its keys are texts and its values plain, so that it can always be written.
    let json = serde_json::to_string_pretty(listing).unwrap_or_default();
    printable_json(&json).into_owned() + "\n"
}
