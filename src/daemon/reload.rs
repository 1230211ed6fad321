//! Takes over a changed configuration while the daemon serves: all of it that can be, or, when
//! anything is wrong with it, nothing. Nothing that is running is disturbed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;

use super::control::{Applied, ReloadOutcome};
use super::engine::LocalEngine;
use crate::http::{self, Engine, ExposedWithoutKeys};
use crate::models::Catalog;
use crate::settings::{CliOverrides, Settings};
use crate::supervisor::Supervisor;
use crate::telemetry;
use crate::tokenizers::Tokenizers;

/// Longest time to read the configuration and the models' folder; less than a client waits.
const READ_LIMIT: Duration = Duration::from_secs(50);

/// Where the settings came from at start, and come from again.
#[derive(Clone, Debug, Default)]
pub struct SettingsSource {
    pub config: Option<PathBuf>,
    pub overrides: CliOverrides,
}

/// What a reload reads and changes.
pub(super) struct Reloader {
    pub source: SettingsSource,
    /// What the daemon runs with.
    pub settings: Settings,
    /// Whether the listeners are those of `http.listen`.
    pub binds_listen: bool,
    pub engine: Arc<LocalEngine>,
    pub supervisor: Supervisor,
}

impl Reloader {
    pub async fn reload(&mut self) -> ReloadOutcome {
        let outcome = self.take_over().await;
        match &outcome {
            ReloadOutcome::Applied(applied) => {
                for line in applied.lines() {
                    tracing::info!("reloaded: {line}");
                }
            }
            ReloadOutcome::Refused { problems } => {
                for problem in problems {
                    tracing::error!("reload refused: {problem}");
                }
            }
        }
        outcome
    }

    async fn take_over(&mut self) -> ReloadOutcome {
        let Read {
            settings: new,
            catalog,
            exposure,
        } = match read_apart(self.source.clone()).await {
            Ok(read) => read,
            Err(problems) => return ReloadOutcome::Refused { problems },
        };
        let settings = self.settings.reloaded(&new);
        let metrics = &self.engine.metrics;
        let tokenizers = match Tokenizers::start(&settings, &catalog, metrics) {
            Ok(tokenizers) => tokenizers,
            Err(error) => {
                let problems = vec![format!("starting the tokenizers: {error}")];
                return ReloadOutcome::Refused { problems };
            }
        };
        // The last thing that may refuse, and the first that changes something.
        if let Err(error) = telemetry::set_log_filter(&settings.log) {
            let problems = vec![error.to_string()];
            return ReloadOutcome::Refused { problems };
        }
        let mut applied = compare(&self.engine.catalog(), &catalog);
        applied.keys = self.settings.changed_keys(&new);
        if let Some(exposure) = exposure.filter(|_| self.binds_listen) {
            applied
                .problems
                .push(format!("the next start would fail: {exposure}"));
        }
        let catalog = Arc::new(catalog);
        self.supervisor
            .reload(&settings, Arc::clone(&catalog))
            .await;
        let models = catalog
            .models()
            .iter()
            .map(|model| model.id.clone())
            .collect();
        self.engine
            .admission
            .reload(settings.queue.clone(), &models);
        self.engine.set_models(Arc::clone(&catalog), tokenizers);
        for name in &settings.models.preload {
            match catalog.find(name) {
                Some(model) => self.supervisor.preload(model.id.clone()),
                None => applied
                    .problems
                    .push(format!("models.preload: {name} is not installed")),
            }
        }
        self.settings = settings;
        ReloadOutcome::Applied(applied)
    }
}

/// What a reload finds on disk.
struct Read {
    settings: Settings,
    catalog: Catalog,
    /// Why a daemon with these settings would not start.
    exposure: Option<ExposedWithoutKeys>,
}

/// Reads on a thread of its own: a folder on a disk or a server that hangs must not hold the daemon
/// up.
async fn read_apart(source: SettingsSource) -> Result<Read, Vec<String>> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("reload".to_owned());
    let failed = |reason: String| {
        vec![format!(
            "reading the configuration and the models: {reason}"
        )]
    };
    thread
        .spawn(move || drop(done.send(read(&source))))
        .map_err(|error| failed(error.to_string()))?;
    match tokio::time::timeout(READ_LIMIT, result).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) => Err(failed("it ended without a result".to_owned())),
        Err(_) => Err(failed(format!("no end after {} s", READ_LIMIT.as_secs()))),
    }
}

fn read(source: &SettingsSource) -> Result<Read, Vec<String>> {
    let environment = std::env::vars_os();
    let settings = Settings::load(source.config.as_deref(), environment, &source.overrides)
        .map_err(|error| {
            error
                .problems()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        })?;
    let folder = &settings.models.dir;
    let catalog = Catalog::scan(folder)
        .with_context(|| format!("reading the models folder {}", folder.display()))
        .map_err(|error| vec![format!("{error:#}")])?;
    Ok(Read {
        exposure: http::exposure(&settings.http),
        settings,
        catalog,
    })
}

fn compare(old: &Catalog, new: &Catalog) -> Applied {
    let mut applied = Applied::default();
    for model in new.models() {
        match old.models().iter().find(|known| known.id == model.id) {
            None => applied.added.push(model.id.to_string()),
            Some(known) if !known.is_loaded_like(model) => {
                applied.changed.push(model.id.to_string())
            }
            Some(_) => {}
        }
    }
    for model in old.models() {
        if !new.models().iter().any(|known| known.id == model.id) {
            applied.removed.push(model.id.to_string());
        }
    }
    applied.problems = new
        .problems()
        .iter()
        .map(|problem| format!("{}: {}", problem.path.display(), problem.problem))
        .collect();
    applied
}
