//! `rkllmd check`: whether a model will work on this machine, and why not. What its files say a reader tells, and
//! what its library does with it a worker; nothing of it is parsed or run in this process.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::control::{ask, is_absent};
use super::models::{EXIT_NO_MODEL, ModelsFolder, find, scan};
use super::print;
use crate::board::Sysroot;
use crate::daemon::{LOADED, LoadedModels, control_socket_path};
use crate::doctor::{self, Beside, Check, Patient, Report, Status};
use crate::models::{Catalog, InstalledModel};
use crate::printable::{printable, printable_json};
use crate::settings::{Settings, SettingsError};

pub(super) const EXAMPLES: &str = "\
Looks at the file's beginning and end, the board's chip, the library, the memory and the template, compares a pulled
file with its checksum, then loads the model once and lets it say a sentence, in a process of its own under the
deadlines of the settings. A daemon that runs is not stopped: what it has loaded shares the memory and the NPU with
the check, which says so.

The exit code is 0 when the model will work, 1 when something is to be looked at, 2 when it will not work or there
is none of this name, 78 when the configuration is wrong.

Examples:
  sudo -u rkllmd rkllmd check my-model
  rkllmd check ./Qwen3-0.6B-rk3588-w8a8.rkllm
  rkllmd check OWNER/NAME --quick --json | jq -r .sentence";

#[derive(Args)]
pub(super) struct CheckArguments {
    /// Id or alias of an installed model, or the path of a model's file
    model: String,
    #[command(flatten)]
    folder: ModelsFolder,
    /// Neither load the model nor read all of its file
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// It was loaded and answered.
    Works,
    /// Nothing speaks against it, but it was not tried.
    MayWork,
    /// Something is to be looked at.
    Doubtful,
    DoesNotWork,
}

#[derive(Serialize)]
struct Checked<'a> {
    model: &'a str,
    path: String,
    verdict: Verdict,
    sentence: String,
    checks: &'a [Check],
}

pub(super) fn run(arguments: &CheckArguments) -> Result<ExitCode, SettingsError> {
    let mut settings = arguments.folder.settings()?;
    let Some((catalog, model)) = found(arguments, &mut settings) else {
        return Ok(ExitCode::from(EXIT_NO_MODEL));
    };
    let patient = Patient::new(Sysroot::own(), settings.clone());
    let mut report = doctor::examine_model(&patient, &catalog, &model, !arguments.quick);
    if !arguments.quick {
        match doctor::try_model(&settings, &model, &beside()) {
            Ok(tried) => report.checks.extend(tried),
            Err(error) => {
                eprintln!("error: no worker can be started: {error}");
                return Ok(ExitCode::from(EXIT_NO_MODEL));
            }
        }
    }
    let verdict = Verdict::of(&report);
    let sentence = sentence(model.name(), verdict, &report);
    let text = match arguments.json {
        true => {
            let checked = Checked {
                model: model.name(),
                path: model.path.display().to_string(),
                verdict,
                sentence,
                checks: &report.checks,
            };
            let json = serde_json::to_string_pretty(&checked).unwrap_or_default();
            printable_json(&json).into_owned() + "\n"
        }
        false => format!("{report}{}\n", printable(&sentence)),
    };
    let code = match verdict {
        Verdict::Works | Verdict::MayWork => 0,
        Verdict::Doubtful => 1,
        Verdict::DoesNotWork => 2,
    };
    Ok(print(&text, ExitCode::from(code)))
}

/// What a daemon that runs has loaded.
fn beside() -> Beside {
    match ask::<LoadedModels>(&control_socket_path(), LOADED) {
        Ok(loaded) => Beside::Loaded(loaded.models),
        Err(error) if is_absent(&error) => Beside::NoDaemon,
        Err(error) => Beside::Unknown(error.to_string()),
    }
}

/// The model that is meant. A path that is no installed model's makes its folder the models folder.
fn found(
    arguments: &CheckArguments,
    settings: &mut Settings,
) -> Option<(Catalog, Arc<InstalledModel>)> {
    let path = Path::new(&arguments.model);
    let is_path = arguments.model.contains(['/', '.']) && path.is_file();
    if !is_path {
        let catalog = scan(settings)?;
        let model = find(&catalog, &arguments.model)?;
        return Some((catalog, model));
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let models = std::path::absolute(&settings.models.dir);
    if models.is_ok_and(|models| path.starts_with(models)) {
        // With what belongs to it in a folder of its own.
        let catalog = scan(settings)?;
        let is_it = |model: &&Arc<InstalledModel>| {
            std::path::absolute(&model.path).is_ok_and(|own| own == path)
        };
        let model = catalog.models().iter().find(is_it).cloned();
        if let Some(model) = model {
            return Some((catalog, model));
        }
    }
    settings.models.dir = path.parent()?.to_owned();
    let catalog = scan(settings)?;
    let mut models = catalog.models().iter();
    match models.find(|model| model.path == path).cloned() {
        Some(model) => Some((catalog, model)),
        None => {
            let mut problems = catalog.problems().iter();
            let reason = problems.find(|found| found.path == path);
            let reason = reason.map_or("it is no model's file", |found| found.problem.as_str());
            let path = path.display().to_string();
            eprintln!(
                "error: {} will not work: {}",
                printable(&path),
                printable(reason)
            );
            None
        }
    }
}

/// What names, first bytes and the daemon's models tell; a load that went well knows better.
const HINTS: [&str; 3] = ["model.format", "model.platform", "model.beside"];

impl Verdict {
    fn of(report: &Report) -> Self {
        let of = |id: &str| report.checks.iter().find(|check| check.id == id);
        let is_ok = |id: &str| of(id).is_some_and(|check| check.status == Status::Ok);
        let is_tried = is_ok("model.load") && is_ok("model.answer");
        let has = |status: Status| {
            let mut checks = report.checks.iter();
            checks.any(|check| {
                let is_refuted = is_tried && HINTS.contains(&check.id);
                check.status == status && !is_refuted
            })
        };
        if has(Status::Fail) {
            Self::DoesNotWork
        } else if has(Status::Warn) {
            Self::Doubtful
        } else if is_tried {
            Self::Works
        } else {
            Self::MayWork
        }
    }
}

/// In words; the first reason of the worst kind is named.
fn sentence(model: &str, verdict: Verdict, report: &Report) -> String {
    let reason = |status: Status| {
        let is_tried = report.checks.iter().any(|check| check.id == "model.answer");
        let mut found = report.checks.iter();
        let of_status = found.find(|check| {
            let is_hint = is_tried && HINTS.contains(&check.id);
            check.status == status && !is_hint
        });
        let any = || report.checks.iter().find(|check| check.status == status);
        of_status.or_else(any).map_or_else(String::new, |check| {
            format!("{}: {}", check.id, check.observed)
        })
    };
    match verdict {
        Verdict::Works => format!("{model} works here."),
        Verdict::MayWork => {
            format!("Nothing speaks against {model} here; it was not loaded.")
        }
        Verdict::Doubtful => format!("{model} may not work well here. {}", reason(Status::Warn)),
        Verdict::DoesNotWork => format!("{model} will not work here. {}", reason(Status::Fail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(found: &[(&'static str, Status)]) -> Report {
        let checks = found.iter().map(|&(id, status)| Check {
            id,
            status,
            observed: format!("{id} is {status:?}"),
            expected: None,
            remedy: None,
            doc: String::new(),
        });
        Report {
            checks: checks.collect(),
        }
    }

    #[test]
    fn a_verdict_follows_the_worst_but_a_trial_refutes_hints() {
        use Status::{Fail, Ok, Skip, Warn};
        let tried = [("model.load", Ok), ("model.answer", Ok)];
        for (found, verdict, words) in [
            (
                vec![("model.format", Ok)],
                Verdict::MayWork,
                "was not loaded",
            ),
            (
                vec![("model.format", Warn)],
                Verdict::Doubtful,
                "model.format is Warn",
            ),
            (tried.to_vec(), Verdict::Works, "m works here."),
            (
                [
                    &[("model.format", Warn), ("model.platform", Fail)][..],
                    &tried,
                ]
                .concat(),
                Verdict::Works,
                "m works here.",
            ),
            (
                [
                    &[("model.memory", Warn), ("model.toolkit", Skip)][..],
                    &tried,
                ]
                .concat(),
                Verdict::Doubtful,
                "model.memory is Warn",
            ),
            (
                vec![
                    ("model.platform", Fail),
                    ("model.load", Fail),
                    ("model.answer", Skip),
                ],
                Verdict::DoesNotWork,
                "model.load is Fail",
            ),
        ] {
            let report = report(&found);
            assert_eq!(Verdict::of(&report), verdict, "{found:?}");
            let said = sentence("m", verdict, &report);
            assert!(said.contains(words), "{said}");
        }
    }
}
