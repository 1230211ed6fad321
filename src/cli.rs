//! Decides which program this process is: the daemon, a child of it, or a command that answers and ends.
//!
//! It decides before any thread or async runtime starts. Commands that need no daemon are complete
//! here. Nothing here exits the process, so that `main` alone returns the exit code.

mod bench;
mod check;
mod control;
mod doctor;
mod keys;
mod models;
mod own_process;
mod progress;
mod prune;
mod pull;
mod reload;
mod remove;
mod tune;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::children::ChildArguments;
use crate::daemon::SettingsSource;
use crate::http;
use crate::reader;
use crate::settings::{CliOverrides, HttpSettings, Settings, SettingsError, known_keys};
use crate::supervisor;
use crate::worker;

/// `EX_CONFIG` of sysexits.h: the configuration is wrong. Starting again will not help, and the unit's
/// `RestartPreventExitStatus` says so to systemd.
pub const EXIT_BAD_CONFIG: u8 = 78;

/// `EX_TEMPFAIL` of sysexits.h: another daemon uses the state folder, and may end.
pub const EXIT_IN_USE: u8 = 75;

/// What is left to do after the command line was read.
#[derive(Debug)]
pub enum Program {
    /// Be the daemon.
    Serve {
        settings: Box<Settings>,
        /// The sources of the settings, for a reload.
        source: SettingsSource,
    },
    /// Be a worker; the supervisor started it.
    Worker(ChildArguments),
    /// Read models' files; the daemon started it.
    Reader(ChildArguments),
    /// Transfer a model; the daemon started it.
    Transfer(ChildArguments),
    /// The command is done.
    Finished(ExitCode),
}

/// Serves language models on Rockchip NPUs over an OpenAI-style HTTP API.
#[derive(Parser)]
#[command(name = "rkllmd", version, after_help = EXAMPLES, propagate_version = false)]
struct Arguments {
    #[command(subcommand)]
    command: CommandLine,
}

#[derive(Subcommand)]
enum CommandLine {
    /// Run the daemon
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArguments),
    /// Check the configuration; exit code 78 if it is wrong
    #[command(after_help = CHECK_CONFIG_EXAMPLES)]
    CheckConfig(ConfigArgument),
    /// Make the running daemon read its configuration and models again
    #[command(after_help = reload::EXAMPLES)]
    Reload,
    /// List the installed models, where they come from, and what is wrong with any of them
    #[command(visible_alias = "models", after_help = models::EXAMPLES)]
    List(models::ListArguments),
    /// Show what is known of an installed model
    #[command(after_help = models::SHOW_EXAMPLES)]
    Show(models::ShowArguments),
    /// Say whether a model will work on this machine, and why not
    #[command(after_help = check::EXAMPLES)]
    Check(check::CheckArguments),
    /// Bring a model from a hub into the models folder
    #[command(after_help = pull::EXAMPLES)]
    Pull(pull::PullArguments),
    /// Remove an installed model
    #[command(after_help = remove::EXAMPLES)]
    Rm(remove::RemoveArguments),
    /// Remove what pulls and removals have left in the models folder
    #[command(after_help = prune::EXAMPLES)]
    Prune(prune::PruneArguments),
    /// Look at what the daemon needs of this machine, and say what to type where something is wrong
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArguments),
    /// Measure what only this board can tell
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::BenchArguments),
    /// Keep CPU, NPU and memory at full speed, or put back what they were set to
    #[command(after_help = tune::EXAMPLES)]
    Tune(tune::TuneArguments),
    /// Add, list and revoke the keys that clients need
    #[command(after_help = keys::EXAMPLES)]
    Keys(keys::KeysArguments),
    #[command(hide = true)]
    Worker(ChildArguments),
    #[command(hide = true)]
    Reader(ChildArguments),
    #[command(hide = true)]
    Transfer(ChildArguments),
    /// Try what a worker must not be able to reach
    #[command(hide = true)]
    WorkerSelfTest(ConfigArgument),
    /// Try what a process that reads models' files must not be able to do
    #[command(hide = true)]
    ReaderSelfTest {
        /// In this very process
        #[arg(long)]
        inside: bool,
    },
}

#[derive(Args)]
struct ConfigArgument {
    /// Configuration file; its drop-ins are FILE.d/*.toml [default: /etc/rkllmd/rkllmd.toml, if it
    /// exists]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct ServeArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    overrides: CliOverrides,
}

const EXAMPLES: &str = "\
Examples:
  rkllmd serve --models ~/models          serve a folder of .rkllm and .gguf files
  rkllmd list --models ~/models           what is in it, and what is wrong with it
  rkllmd pull OWNER/NAME                  bring a model that suits this machine
  rkllmd check MODEL                      will it work here, and why not?
  rkllmd doctor                           what is wrong with this machine, and what to type
  rkllmd check-config                     is /etc/rkllmd/rkllmd.toml right?
  rkllmd keys add laptop                  a key for a client in the network

`rkllmd serve --help` lists every setting with its environment variable and default.";

const SERVE_EXAMPLES: &str = "\
Examples:
  rkllmd serve --models ~/models --preload my-model
  rkllmd serve --listen 0.0.0.0:8080 --listen '[::]:8080'
  rkllmd serve --config ./rkllmd.toml --log info,rkllmd::supervisor=debug
  RKLLMD_QUEUE__CAPACITY=8 rkllmd serve";

const CHECK_CONFIG_EXAMPLES: &str = "\
The environment counts too, as it does for `rkllmd serve`.

Examples:
  rkllmd check-config
  rkllmd check-config --config ./rkllmd.toml";

/// Reads this process's command line and environment, and does what needs no daemon.
pub fn parse() -> Program {
    match arguments(env::args_os()) {
        Ok(arguments) => dispatch(arguments.command),
        Err(error) => {
            // Usage errors and --help alike. Where printing fails there is no reader.
            let _ = error.print();
            Program::Finished(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
        }
    }
}

/// The whole command line, with its help. Manual pages and shell completions are made of it too.
pub fn command() -> clap::Command {
    Arguments::command().mut_subcommand("serve", |serve| {
        let help = format!("{SERVE_EXAMPLES}\n\n{}", settings_help());
        serve.after_long_help(help)
    })
}

fn arguments(raw: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let matches = command().try_get_matches_from(raw)?;
    Arguments::from_arg_matches(&matches)
}

fn dispatch(command: CommandLine) -> Program {
    match command {
        CommandLine::Worker(arguments) => Program::Worker(arguments),
        CommandLine::Reader(arguments) => Program::Reader(arguments),
        CommandLine::Transfer(arguments) => Program::Transfer(arguments),
        CommandLine::WorkerSelfTest(argument) => Program::Finished(
            match load(argument.config.as_deref(), &CliOverrides::default()) {
                Ok(settings) => {
                    let (first, hidden) = supervisor::worker_self_test(&settings);
                    worker::self_test(&first, &hidden)
                }
                Err(error) => bad_config(&error),
            },
        ),
        CommandLine::ReaderSelfTest { inside } => Program::Finished(reader::self_test(inside)),
        CommandLine::Serve(ServeArguments { config, overrides }) => {
            match load(config.config.as_deref(), &overrides) {
                Ok(settings) => Program::Serve {
                    settings: Box::new(settings),
                    source: SettingsSource {
                        config: config.config,
                        overrides,
                    },
                },
                Err(error) => Program::Finished(bad_config(&error)),
            }
        }
        CommandLine::CheckConfig(config) => Program::Finished(
            match load(config.config.as_deref(), &CliOverrides::default()) {
                Ok(settings) => {
                    note_exposure(&settings.http);
                    print("OK\n", ExitCode::SUCCESS)
                }
                Err(error) => bad_config(&error),
            },
        ),
        CommandLine::Keys(arguments) => Program::Finished(
            match load(arguments.config.config.as_deref(), &CliOverrides::default()) {
                Ok(settings) => keys::run(arguments.command, &settings.http),
                Err(error) => bad_config(&error),
            },
        ),
        CommandLine::Doctor(arguments) => finished(doctor::run(arguments)),
        CommandLine::Bench(arguments) => finished(bench::run(arguments)),
        CommandLine::Tune(arguments) => Program::Finished(tune::run(arguments)),
        CommandLine::Reload => Program::Finished(reload::run()),
        CommandLine::Pull(arguments) => finished(pull::run(&arguments)),
        CommandLine::List(arguments) => finished(models::list(&arguments)),
        CommandLine::Show(arguments) => finished(models::show(&arguments)),
        CommandLine::Check(arguments) => finished(check::run(&arguments)),
        CommandLine::Rm(arguments) => finished(remove::run(&arguments)),
        CommandLine::Prune(arguments) => finished(prune::run(&arguments)),
    }
}

fn finished(outcome: Result<ExitCode, SettingsError>) -> Program {
    Program::Finished(outcome.unwrap_or_else(|error| bad_config(&error)))
}

fn load(config: Option<&Path>, overrides: &CliOverrides) -> Result<Settings, SettingsError> {
    Settings::load(config, env::vars_os(), overrides)
}

/// Says beforehand why `serve` would not start.
fn note_exposure(settings: &HttpSettings) {
    if let Some(exposure) = http::exposure(settings) {
        eprintln!("note: `rkllmd serve` would end at once: {exposure}");
    }
}

fn bad_config(error: &SettingsError) -> ExitCode {
    for problem in error.problems() {
        eprintln!("error: {problem}");
    }
    ExitCode::from(EXIT_BAD_CONFIG)
}

/// Prints to stdout. A reader that has gone (`rkllmd models | head`) is no error.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => code,
    }
}

/// Every setting as its environment variable, with its default.
fn settings_help() -> String {
    let keys = known_keys();
    let width = keys
        .iter()
        .map(|key| key.variable().len())
        .max()
        .unwrap_or(0);
    let mut help = "\
Settings as environment variables, with their defaults. Lists are separated by commas. In the file,
RKLLMD_HTTP__HEADER_DELAY is `header-delay` of the section [http].
"
    .to_owned();
    for key in keys {
        let default = match &key.default {
            serde_json::Value::Null => "(unset)".to_owned(),
            serde_json::Value::Array(items) if items.is_empty() => "(empty)".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(items) => items
                .iter()
                .filter_map(serde_json::Value::as_str)
                .collect::<Vec<_>>()
                .join(","),
            other => other.to_string(),
        };
        help.push_str(&format!("  {:width$}  {default}\n", key.variable()));
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
