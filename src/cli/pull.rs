//! `rkllmd pull`: brings a model into the models folder, in this very process, which gives up all else before.
//! No daemon needs to run; one that does serves it after a reload.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::progress::Progress;
use super::{EXIT_IN_USE, load, print};
use crate::board::{Soc, Sysroot};
use crate::hub::{Job, KnownFor, PullError, Pulled, pull_confined};
use crate::printable::printable;
use crate::settings::{CliOverrides, SettingsError};

pub(super) const EXAMPLES: &str = "\
MODEL is OWNER/NAME of a repository of the hub, with @REVISION and :FILE or :VARIANT behind it where that is
wanted. Without a file, the one is chosen that suits this machine's chip, library and memory; where none does,
what there is is listed. A pull that was cut off goes on where it was.

The exit code is 0 when the model is there, 1 when it cannot be, 2 when MODEL names none, 75 when trying again
later may help, 78 when the configuration is wrong.

Examples:
  sudo -u rkllmd rkllmd pull GatekeeperZA/Qwen3-4B-RKLLM-v1.2.3
  rkllmd pull c01zaut/Qwen2.5-3B-Instruct-RK3588-1.1.4:w8a8_g128 --models ~/models
  rkllmd pull OWNER/NAME:model-Q4_K_M.gguf --name small
  rkllmd pull --known                     repositories that others have published for this chip
  sudo rkllmd reload                      has the daemon serve it";

/// As wrong command lines are told.
const EXIT_USAGE: u8 = 2;

#[derive(Args)]
pub(super) struct PullArguments {
    /// OWNER/NAME[@REVISION][:FILE or VARIANT]
    #[arg(required_unless_present = "known")]
    model: Option<String>,
    /// Only list repositories with models for this machine's chip that others have published; none was ever checked
    /// on a board by this project
    #[arg(long, conflicts_with_all = ["model", "name", "force", "models", "config"])]
    known: bool,
    /// Configuration file; its drop-ins are FILE.d/*.toml [default: /etc/rkllmd/rkllmd.toml, if it
    /// exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder that it is put into (models.dir)
    #[arg(long, value_name = "DIR")]
    models: Option<String>,
    /// What its folder is called instead of as its repository
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take what MODEL names although it does not suit this machine
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &PullArguments) -> Result<ExitCode, SettingsError> {
    let Some(model) = arguments.model.as_ref().filter(|_| !arguments.known) else {
        let soc = Soc::of(&Sysroot::own());
        return Ok(print(&KnownFor(soc).to_string(), ExitCode::SUCCESS));
    };
    let overrides = CliOverrides {
        models: arguments.models.clone(),
        ..CliOverrides::default()
    };
    let settings = load(arguments.config.as_deref(), &overrides)?;
    let job = Job {
        name: arguments.name.clone(),
        force: arguments.force,
        ..Job::new(model, &settings)
    };
    let mut progress = Progress::new(io::stderr().is_terminal());
    let pulled = pull_confined(&job, &mut |told| progress.show(&told));
    progress.end();
    Ok(match pulled {
        Ok(Ok(pulled)) => finished(&pulled),
        Ok(Err(error)) => failed(&error),
        Err(error) => {
            eprintln!("error: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    })
}

fn finished(pulled: &Pulled) -> ExitCode {
    for note in &pulled.notes {
        eprintln!("note: {}", printable(note));
    }
    let (id, folder) = (printable(&pulled.id), printable(&pulled.folder));
    let text = match pulled.was_there {
        true => format!("{id} was there already, in {folder}\n"),
        false => format!("{id} is in {folder}\n"),
    };
    print(&text, ExitCode::SUCCESS)
}

fn failed(error: &PullError) -> ExitCode {
    // A list of what there is has lines of its own.
    for line in error.to_string().lines() {
        let line = printable(line);
        match line.starts_with(' ') {
            true => eprintln!("{line}"),
            false => eprintln!("error: {line}"),
        }
    }
    match error {
        PullError::BadName { .. } => ExitCode::from(EXIT_USAGE),
        error if error.may_pass() => ExitCode::from(EXIT_IN_USE),
        _ => ExitCode::FAILURE,
    }
}
