//! Takes over a changed configuration while the daemon serves: all of it that can be, or, when
//! anything is wrong with it, nothing. Nothing that is running is disturbed.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};

use super::control::{Applied, ReloadOutcome, ReloadRequest};
use super::engine::LocalEngine;
use crate::apart::{self, Subject};
use crate::chat::Engine;
use crate::http::{self, ExposedWithoutKeys};
use crate::hub::Problems;
use crate::models::{Catalog, Unread, unlisted};
use crate::printable::printable;
use crate::service_manager::Notifier;
use crate::settings::{CliOverrides, Settings};
use crate::supervisor::Supervisor;
use crate::telemetry::{self, Change};

/// Longest time to read the configuration; with that of the models, less than a client waits.
const READ_LIMIT: Duration = Duration::from_secs(10);

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
    /// The same, for others.
    pub running: watch::Sender<Arc<Settings>>,
    /// Whether the listeners are those of `http.listen`.
    pub binds_listen: bool,
    pub engine: Arc<LocalEngine>,
    pub supervisor: Supervisor,
    /// What the start has left to be read.
    pub unread: Option<Unread>,
}

/// By whom a reload may be asked for.
pub(super) struct Asked {
    pub hangup: Signal,
    pub requests: mpsc::Receiver<ReloadRequest>,
    /// Pulls that have put something into the models folder.
    pub to_be_served: mpsc::Receiver<oneshot::Sender<Result<Problems, String>>>,
}

/// Reloads whenever SIGHUP or a control client asks for it, and serves what was pulled, until the daemon is to
/// end, also in the middle of a reload.
pub(super) async fn reload_until(
    end: impl Future<Output = ()>,
    reloader: &mut Reloader,
    notifier: &Notifier,
    mut asked: Asked,
) {
    let mut end = pin!(end);
    loop {
        let reply = tokio::select! {
            () = &mut end => return,
            _ = asked.hangup.recv() => None,
            Some(reply) = asked.requests.recv() => Some(reply),
            Some(reply) = asked.to_be_served.recv() => {
                let served = tokio::select! {
                    () = &mut end => return,
                    served = reloader.rescan() => served,
                };
                // The client that has pulled it may have left.
                let _ = reply.send(served);
                continue;
            }
            catalog = reloader.read_on() => {
                reloader.take_in(catalog).await;
                continue;
            }
        };
        notifier.reloading();
        let outcome = tokio::select! {
            () = &mut end => return,
            outcome = reloader.reload() => outcome,
        };
        notifier.ready();
        if let Some(reply) = reply {
            // The client may have gone; the log has the outcome too.
            let _ = reply.send(outcome);
        }
    }
}

impl Reloader {
    pub async fn reload(&mut self) -> ReloadOutcome {
        let outcome = self.take_over().await;
        self.engine
            .metrics
            .changes()
            .tell(|| Change::from(&outcome));
        match &outcome {
            ReloadOutcome::Applied(applied) => {
                for line in applied.lines() {
                    tracing::info!("reloaded: {}", printable(&line));
                }
            }
            ReloadOutcome::Refused { problems } => {
                for problem in problems {
                    tracing::error!("reload refused: {}", printable(problem));
                }
            }
        }
        outcome
    }

    async fn take_over(&mut self) -> ReloadOutcome {
        let Read {
            settings: new,
            exposure,
        } = match read_apart(self.source.clone()).await {
            Ok(read) => read,
            Err(problems) => return ReloadOutcome::Refused { problems },
        };
        let settings = self.settings.reloaded(&new);
        let readers = &self.engine.readers;
        let folder = &settings.models.dir;
        let catalog = match Catalog::scan_beside_requests(readers, &settings).await {
            Ok(catalog) => catalog.with_what_was_known(&self.engine.catalog()),
            Err(error) => {
                let problems = vec![unlisted(folder, &error)];
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
        self.settings = settings;
        self.running.send_replace(Arc::new(self.settings.clone()));
        let missing = self.serve(catalog).await;
        self.engine.readers.reload(&self.settings);
        if let Some(pulls) = &self.engine.pulls {
            pulls.reload(&self.settings);
        }
        let text = |name| format!("models.preload: {name} is not installed");
        applied.problems.extend(missing.into_iter().map(text));
        ReloadOutcome::Applied(applied)
    }

    /// Reads the models folder again, in which a pull has put something, and serves what is in it.
    pub async fn rescan(&mut self) -> Result<Problems, String> {
        let readers = &self.engine.readers;
        let scanned = Catalog::scan_beside_requests(readers, &self.settings).await;
        let catalog = scanned.map_err(|error| format!("it could not be read: {error}"))?;
        let catalog = catalog.with_what_was_known(&self.engine.catalog());
        let problems = catalog.problems().iter();
        let problems: Problems = problems
            .map(|it| (it.path.clone(), it.problem.clone()))
            .collect();
        for name in self.serve(catalog).await {
            tracing::warn!(model = name, "the model to preload is not installed");
        }
        let text = |(path, problem): &(PathBuf, String)| format!("{}: {problem}", path.display());
        self.engine.metrics.changes().tell(|| Change::Reloaded {
            is_applied: true,
            problems: problems.iter().map(text).collect(),
        });
        Ok(problems)
    }

    /// Goes on reading what the start has left; for ever where there is nothing.
    pub async fn read_on(&self) -> Catalog {
        match &self.unread {
            Some(unread) => unread.read_on(&self.engine.readers, &self.settings).await,
            None => std::future::pending().await,
        }
    }

    /// Serves what the start has left, too.
    pub async fn take_in(&mut self, catalog: Catalog) {
        super::first_look::log_catalog(&catalog);
        for name in self.serve(catalog).await {
            tracing::error!(model = name, "the model to preload is not installed");
        }
    }

    /// Serves these models, the whole folder's; gives the names to be preloaded that are none of them.
    async fn serve(&mut self, catalog: Catalog) -> Vec<String> {
        self.unread = None;
        let (settings, catalog) = (&self.settings, Arc::new(catalog));
        self.supervisor.reload(settings, Arc::clone(&catalog)).await;
        let models = catalog.models().iter().map(|model| model.id.clone());
        let models = models.collect();
        self.engine
            .admission
            .reload(settings.queue.clone(), &models);
        self.engine.models.installed(Arc::clone(&catalog), settings);
        self.supervisor.prefixes().keep_models(&catalog);
        let mut missing = Vec::new();
        for name in &settings.models.preload {
            match catalog.look_up(name) {
                Ok(model) => self.supervisor.preload(model.id.clone()),
                Err(_) => missing.push(name.clone()),
            }
        }
        missing
    }
}

impl From<&ReloadOutcome> for Change {
    fn from(outcome: &ReloadOutcome) -> Self {
        let (is_applied, problems) = match outcome {
            ReloadOutcome::Applied(applied) => (true, &applied.problems),
            ReloadOutcome::Refused { problems } => (false, problems),
        };
        Self::Reloaded {
            is_applied,
            problems: problems.clone(),
        }
    }
}

/// What a reload finds on disk.
struct Read {
    settings: Settings,
    /// Why a daemon with these settings would not start.
    exposure: Option<ExposedWithoutKeys>,
}

/// Its files may be on a disk or a server that hangs.
async fn read_apart(source: SettingsSource) -> Result<Read, Vec<String>> {
    let read = apart::ask(Subject::Configuration, READ_LIMIT, move || read(&source));
    read.await.unwrap_or_else(|| {
        let limit = READ_LIMIT.as_secs();
        let problem = format!("reading the configuration: no answer within {limit} s");
        Err(vec![problem])
    })
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
    Ok(Read {
        exposure: http::exposure(&settings.http),
        settings,
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
