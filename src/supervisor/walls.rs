//! What each worker may reach, where the kernel has Landlock and the settings do not say otherwise: its model and
//! its library to read, folders of its own to write, and nothing of the daemon's, of other models' or of other
//! tenants'. The worker finds its library and model itself (`worker/walls.rs`), and gives the rest up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::handle::{ADAPTERS, PROMPT_CACHES};
use super::prefixes::{Hatch, Prefixes};
use crate::confinement::{Landlock, Reach, Right};
use crate::ipc::{Command, WorkerDeadlines, WorkerWalls};
use crate::settings::Settings;

/// `None`: workers are not confined.
#[derive(Clone, Debug, Default)]
pub struct Walls(Option<Arc<Places>>);

/// Where things lie.
#[derive(Clone, Debug)]
struct Places {
    hidden: Vec<PathBuf>,
    /// Where workers make folders of their own; `None`: they make none.
    state_dir: Option<PathBuf>,
    prefixes: Option<PathBuf>,
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
}

impl Walls {
    pub fn of(settings: &Settings, prefixes: &Prefixes) -> Self {
        let wanted = &settings.confinement;
        if !wanted.workers || Landlock::of_this_machine().version().is_none() {
            return Self(None);
        }
        let prefixes = prefixes.folder().map(Path::to_owned);
        Self(Some(Arc::new(Places {
            hidden: hidden(settings).chain(prefixes.clone()).collect(),
            state_dir: Some(settings.library.state_dir.clone()),
            prefixes,
            reads: wanted.worker_reads.clone(),
            writes: wanted.worker_writes.clone(),
        })))
    }

    /// The same of a program that may be another user than the daemon's, and whose handles name no files: in the
    /// state folder nothing is made.
    pub fn without_state(self) -> Self {
        Self(self.0.map(|places| {
            let places = Arc::unwrap_or_clone(places);
            Arc::new(Places {
                state_dir: None,
                ..places
            })
        }))
    }

    /// Of a worker that opens a library and has no model.
    pub fn of_library(&self) -> Option<WorkerWalls> {
        Some(self.0.as_ref()?.walls(Vec::new()))
    }

    /// Of one that serves requests, with its folders among the prefixes, where these are kept.
    pub fn of_requests(&self) -> (Option<WorkerWalls>, Option<Hatch>) {
        let Some(places) = &self.0 else {
            return (None, None);
        };
        let hatch = places.prefixes.as_deref().map(Hatch::beneath);
        let own = hatch
            .as_ref()
            .map(|hatch| [(hatch.given(), Right::Read), (hatch.saved(), Right::Write)]);
        let walls = places.walls(own.into_iter().flatten().collect());
        (Some(walls), hatch)
    }

    /// Of one that is a client's handle: it names adapters and prompt caches, which all such clients share.
    pub fn of_client(&self) -> Option<WorkerWalls> {
        let places = self.0.as_ref()?;
        let own = places.state_dir.as_ref().map(|state_dir| {
            [
                (state_dir.join(ADAPTERS), Right::Read),
                (state_dir.join(PROMPT_CACHES), Right::Write),
            ]
        });
        Some(places.walls(own.into_iter().flatten().collect()))
    }
}

/// What the worker of `rkllmd worker-self-test` is told, and what it must not reach then.
pub fn for_self_test(settings: &Settings) -> (Command, Vec<PathBuf>) {
    let walls = Walls::of(settings, &Prefixes::default()).of_library();
    let first = Command::Describe {
        library: settings.runtime.npu_library.clone(),
        assume_family: None,
        deadlines: Box::new(WorkerDeadlines::from(&settings.deadlines)),
        walls: walls.map(Box::new),
    };
    let hidden = [
        &settings.http.keys_file,
        &settings.library.state_dir,
        &settings.models.dir,
    ];
    (first, hidden.map(PathBuf::clone).into())
}

/// What is the daemon's, or other models'.
fn hidden(settings: &Settings) -> impl Iterator<Item = PathBuf> + use<> {
    let always = [
        settings.http.keys_file.clone(),
        settings.library.state_dir.clone(),
        settings.models.dir.clone(),
    ];
    let named = [
        settings.hub.token_file.clone(),
        settings.prefixes.folder.clone(),
    ];
    always.into_iter().chain(named.into_iter().flatten())
}

impl Places {
    /// `own`: folders that the worker makes for itself.
    fn walls(&self, own: Vec<(PathBuf, Right)>) -> WorkerWalls {
        let mut reach = Reach::of_library(self.hidden.iter().cloned());
        for path in &self.reads {
            reach.owns(path, Right::Run);
        }
        for path in &self.writes {
            reach.owns(path, Right::Write);
        }
        WorkerWalls { reach, own }
    }
}
