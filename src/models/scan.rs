//! Reads the models folder with readers: one names what is there, then each model gets one of its own.
//! One that hangs, dies or takes too long is a problem of that model.

mod jobs;
mod texts;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::time::{timeout, timeout_at};

use super::{Catalog, InstalledModel, ModelProblem};
use crate::children::ChildProcess;
use crate::generation::ModelId;
use crate::ipc::TemplateState;
use crate::printable::printable;
use crate::reader::{
    LocationAnswer, OpenedModel, Patience, Readers, TOKENIZER, TemplateSource, check_name, some_of,
};
use crate::reply::ModelReply;
use crate::settings::{ModelSettings, Settings};
use crate::telemetry::Metrics;
use jobs::{Job, jobs};
use texts::{manifest_name, problem, shortened};

/// Models that are read at the same time while no client is served.
pub const SCANS_AT_ONCE: usize = 2;
/// The same beside requests: a reader is left to them.
const SCANS_BESIDE_REQUESTS: usize = 1;

/// Folders of one publisher that are looked at.
const MOST_FOLDERS: usize = 256;
/// Notes and problems of one model.
const MOST_TEXTS: usize = 32;

#[derive(Clone, Default)]
struct Found {
    models: Vec<InstalledModel>,
    problems: Vec<ModelProblem>,
    /// What is to be read again, and by which process it was not read in time.
    late: Vec<(Job, Option<ChildProcess>)>,
    /// Places that there was no time to read.
    unread: Vec<PathBuf>,
    /// Folders in this one that were looked at.
    folders: usize,
}

/// What every job needs.
#[derive(Clone, Copy)]
struct Scan<'a> {
    readers: &'a Readers,
    /// Places that are not read by then are left out.
    until: Instant,
    limit: Duration,
    /// For one location.
    patience: Patience,
}

/// A models folder of which a part is still to be read.
#[derive(Clone)]
pub struct Unread {
    /// By the locations that were looked at.
    found: Vec<(PathBuf, Found)>,
    problems: Vec<ModelProblem>,
}

impl Catalog {
    /// Reads the folder. A broken entry becomes a problem, never an error of the whole.
    pub async fn scan(readers: &Readers, settings: &Settings, at_once: usize) -> io::Result<Self> {
        let scan = Scan::of(readers, settings, Patience::Endless);
        let read = scan.read_all(&settings.models.dir, at_once).await?;
        Ok(read.into_catalog(&settings.models))
    }

    /// As `scan`, beside requests: what is being read gives way to the request of a model that has served
    /// none yet, and is read again after it.
    pub async fn scan_beside_requests(readers: &Readers, settings: &Settings) -> io::Result<Self> {
        let scan = Scan::of(readers, settings, Patience::UntilWanted);
        let folder = &settings.models.dir;
        let mut read = scan.read_all(folder, SCANS_BESIDE_REQUESTS).await?;
        scan.read_late(&mut read, settings.deadlines.kill).await;
        Ok(read.into_catalog(&settings.models))
    }

    /// As `scan`, but leaves out what takes longer than `deadlines.reader-at-start`; it is to be read on
    /// beside requests.
    pub async fn first_look(
        readers: &Readers,
        settings: &Settings,
    ) -> io::Result<(Self, Option<Unread>)> {
        let patience = Patience::For(settings.deadlines.reader_at_start);
        let scan = Scan::of(readers, settings, patience);
        let read = scan.read_all(&settings.models.dir, SCANS_AT_ONCE).await?;
        let is_late = read.found.iter().any(|(_, found)| !found.late.is_empty());
        let unread = is_late.then(|| read.clone());
        let catalog = read.into_catalog(&settings.models);
        Ok(match unread {
            None => (catalog, None),
            Some(unread) => (catalog.in_part(), Some(unread)),
        })
    }

    /// As `scan`, for a program that serves no client; with the readers of `program`, where this is no
    /// `rkllmd`.
    pub fn scan_apart(settings: &Settings, program: Option<PathBuf>) -> io::Result<Self> {
        let settings = settings.clone();
        let scanned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let metrics = Metrics::new();
                let readers = match program {
                    None => Readers::start(&settings, metrics)?,
                    Some(program) => Readers::start_with_readers_of(program, &settings, metrics)?,
                };
                Self::scan(&readers, &settings, SCANS_AT_ONCE).await
            })
        });
        let panicked = |_| io::Error::other("reading the models failed");
        scanned.join().map_err(panicked)?
    }
}

impl Unread {
    /// Reads what was late, while no request of a model that is known waits for it, and gives the whole.
    pub async fn read_on(&self, readers: &Readers, settings: &Settings) -> Catalog {
        let scan = Scan::of(readers, settings, Patience::UntilWanted);
        let mut read = self.clone();
        scan.read_late(&mut read, settings.deadlines.kill).await;
        read.into_catalog(&settings.models)
    }

    fn into_catalog(mut self, settings: &ModelSettings) -> Catalog {
        self.found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (mut models, mut unread) = (Vec::new(), Vec::new());
        for (_, found) in self.found {
            models.extend(found.models);
            unread.extend(found.unread);
            self.problems.extend(found.problems);
        }
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
        for model in &models {
            if let Some(TemplateSource::FileName(family)) = &model.facts.template_source {
                tracing::info!(
                    model = %model.id,
                    %family,
                    "no chat template is installed, the file's name tells the family"
                );
            }
        }
        let catalog = Catalog::new(models, self.problems).without(unread);
        catalog.with_aliases(&settings.aliases)
    }
}

impl<'a> Scan<'a> {
    fn of(readers: &'a Readers, settings: &Settings, patience: Patience) -> Self {
        let limit = settings.deadlines.models_read;
        Self {
            readers,
            until: Instant::now() + limit,
            limit,
            patience,
        }
    }

    async fn read_all(self, folder: &Path, at_once: usize) -> io::Result<Unread> {
        let (entries, more) = self.readers.list(folder).await?;
        let (jobs, mut problems) = jobs(folder, &entries);
        if more {
            let text = format!("only {} of its entries were looked at", entries.len());
            problems.push(problem(folder, &text));
        }
        let found = stream::iter(jobs)
            .map(|job| async move {
                let path = job.path.clone();
                (path, self.read(job).await)
            })
            .buffer_unordered(at_once)
            .collect()
            .await;
        Ok(Unread { found, problems })
    }
}

impl Scan<'_> {
    /// Reads what was not read in time, as often as it takes.
    async fn read_late(self, read: &mut Unread, kill: Duration) {
        for (_, found) in &mut read.found {
            let mut late = std::mem::take(&mut found.late);
            while let Some((job, reader)) = late.pop() {
                if let Some(reader) = reader {
                    // It was killed. One that is still there would be two that hang in the kernel.
                    let gone = timeout(kill, reader.exited()).await;
                    if gone.is_err() {
                        let text = "a process that reads it hangs in the kernel";
                        found.problems.push(problem(&job.path, text));
                        continue;
                    }
                }
                let more = self.read(job).await;
                found.models.extend(more.models);
                found.unread.extend(more.unread);
                found.problems.extend(more.problems);
                late.extend(more.late);
            }
        }
    }

    async fn read(self, job: Job) -> Found {
        let mut found = Found::default();
        let mut jobs = vec![job];
        // In order, and no deeper than two.
        while let Some(job) = jobs.pop() {
            let inner = self.read_one(job, &mut found).await;
            jobs.extend(inner.into_iter().rev());
        }
        found
    }

    /// Reads one location; returns the folders in it that are to be read too.
    async fn read_one(self, mut job: Job, found: &mut Found) -> Vec<Job> {
        let id = ModelId::from(&*printable(&job.name));
        let reading = async {
            let mut answer = self
                .readers
                .location(&id, &job.location, self.patience)
                .await;
            if let Ok(LocationAnswer::NeedsFile(name)) = answer {
                job.location.template_file = Some(name);
                answer = self
                    .readers
                    .location(&id, &job.location, self.patience)
                    .await;
            }
            answer
        };
        let Ok(answer) = timeout_at(self.until.into(), reading).await else {
            let text = format!(
                "it was not read: the models folder took longer than {} s \
                 (deadlines.models-read)",
                self.limit.as_secs()
            );
            found.problems.push(problem(&job.path, &text));
            found.unread.extend(job.paths());
            return Vec::new();
        };
        match answer {
            Ok(LocationAnswer::Model(opened)) => self.take_in(&job, *opened, found),
            Ok(LocationAnswer::Nothing) => {}
            Ok(LocationAnswer::Late(process)) => found.late.push((job, process)),
            Ok(LocationAnswer::Folders(folders)) if job.depth < 2 => {
                let prefix = format!("{}/", job.name);
                let room = MOST_FOLDERS.saturating_sub(found.folders);
                found.folders += folders.len().min(room);
                if folders.len() > room {
                    let text = format!("only {room} of its folders were looked at");
                    found.problems.push(problem(&job.path, &text));
                }
                let inner = folders.iter().take(room).map(|name| {
                    Job::of_folder(job.path.join(name.to_path()), prefix.clone(), job.depth + 1)
                });
                return inner.collect();
            }
            Ok(LocationAnswer::Folders(folders)) => {
                let names: Vec<_> = folders
                    .iter()
                    .map(|name| name.to_path().display().to_string())
                    .collect();
                let text = format!(
                    "no model file stands in it, and folders this deep are not looked at: {}",
                    some_of(&names)
                );
                found.problems.push(problem(&job.path, &text));
            }
            Ok(LocationAnswer::Unusable {
                file,
                problem: text,
            }) => {
                let path = match file {
                    Some(name) => job.location.folder.to_path().join(name.to_path()),
                    None => job.path,
                };
                found.problems.push(problem(&path, &text));
            }
            Ok(LocationAnswer::NeedsFile(_)) => {
                let text = "its model.toml changed while it was read";
                found.problems.push(problem(&job.path, text));
            }
            Err(error) => found.problems.push(problem(&job.path, &error.to_string())),
        }
        Vec::new()
    }

    fn take_in(self, job: &Job, opened: OpenedModel, found: &mut Found) {
        let OpenedModel {
            report,
            template,
            replies,
        } = opened;
        let folder = job.location.folder.to_path();
        let path = folder.join(&report.file);
        let id = report.id.as_deref().unwrap_or(&job.name);
        if let Err(text) = check_name(id) {
            found.problems.push(problem(&path, &text));
            return;
        }
        let mut notes: Vec<String> = report
            .notes
            .iter()
            .take(MOST_TEXTS)
            .map(|n| shortened(n))
            .collect();
        let of_source = report
            .facts
            .template_source
            .as_ref()
            .map_or_else(String::new, |source| format!(" from {source}"));
        match &template {
            TemplateState::None => notes.push(format!(
                "no chat template was found; name one in {} to serve chat requests",
                manifest_name(&job.location)
            )),
            TemplateState::Usable {
                failed_probe: None, ..
            } => {}
            TemplateState::Usable {
                failed_probe: Some(error),
                ..
            } => notes.push(shortened(&format!(
                "its chat template{of_source} failed on a plain question: {error}"
            ))),
            TemplateState::Broken { reason } => found.problems.push(ModelProblem {
                serves: true,
                ..problem(
                    &path,
                    &format!("its chat template{of_source} cannot be used: {reason}"),
                )
            }),
        }
        found
            .problems
            .extend(
                report
                    .problems
                    .into_iter()
                    .take(MOST_TEXTS)
                    .map(|found| ModelProblem {
                        serves: true,
                        ..problem(&folder.join(&found.file), &found.problem)
                    }),
            );
        if let TemplateState::Usable { shared, .. } = &template {
            let told = shared.problems.iter().map(|text| shortened(text));
            notes.extend(told.take(MOST_TEXTS));
        }
        let reply = replies.map(|found| Arc::new(ModelReply::new(found)));
        if let Some(reply) = &reply {
            let of_format = reply.found.notes.iter().take(MOST_TEXTS);
            notes.extend(of_format.map(ToString::to_string));
        }
        if let Some(reason) = reply.as_ref().and_then(|reply| reply.unused.as_ref()) {
            found.problems.push(ModelProblem {
                serves: true,
                ..problem(
                    &path,
                    &format!("all of its replies is content, because of their form: {reason}"),
                )
            });
        }
        found.models.push(InstalledModel {
            id: id.into(),
            named_by_manifest: report.id.is_some(),
            facts: report.facts,
            adapted: None,
            variant: None,
            location: Some(job.location.clone()),
            template,
            reply,
            tokenizer_json: report.has_tokenizer.then(|| folder.join(TOKENIZER)),
            notes,
            path,
        });
    }
}
