//! `rkllmd bench`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::bench;
use crate::printable::printable;
use crate::settings::{CliOverrides, SettingsError};

use super::ConfigArgument;

pub(super) const EXAMPLES: &str = "\
Needs no daemon; one that runs should be stopped, because both would share the NPU. The model runs in worker
processes with the daemon's deadlines, for some minutes. The exit code is 1 when the model made no answer.

Examples:
  rkllmd bench board-facts --model my-model > board-facts.json";

#[derive(Args)]
pub(super) struct BenchArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure what only a board can tell of the vendor's library, and print it as JSON to send
    #[command(after_help = EXAMPLES)]
    BoardFacts(BoardFactsArguments),
}

#[derive(Args)]
struct BoardFactsArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Id or alias of an installed model
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Folder of models (models.dir)
    #[arg(long, value_name = "DIR")]
    models: Option<String>,
}

pub(super) fn run(arguments: BenchArguments) -> Result<ExitCode, SettingsError> {
    let What::BoardFacts(arguments) = arguments.what;
    let overrides = CliOverrides {
        models: arguments.models,
        ..CliOverrides::default()
    };
    let settings = super::load(arguments.config.config.as_deref(), &overrides)?;
    let progress = |what: &str| eprintln!("measuring {what}");
    Ok(
        match bench::board_facts(settings, &arguments.model, progress) {
            Ok(facts) => {
                let code = if facts.is_measured() {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                };
                super::print(&facts.to_json(), code)
            }
            Err(error) => {
                eprintln!("error: {}", printable(&error.to_string()));
                ExitCode::FAILURE
            }
        },
    )
}
