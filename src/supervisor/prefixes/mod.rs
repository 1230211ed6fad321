//! Prefixes of conversations on disk: where more of them take turns than there are slots, what a slot is
//! about to lose is written with the library's own prompt cache, and read when its conversation goes on.
//!
//! ```text
//!  marks   what a text begins with        policy  what pays            daily  what a day has written
//!  index   what there is, what goes first state   what is done for a turn           (all pure)
//!  folder  files: a prefix is there when its record is   swap   the calls on a worker's slot
//!  pinned  what models' owners have named is brought into slots before it is asked for
//! ```
//!
//! Nothing of it lies on a token's way: a load and a save come before a run, and whatever follows an
//! answer comes behind its last event. It is never needed: with whatever goes wrong the prompt is
//! evaluated, as it is without.

mod daily;
mod folder;
mod hatch;
mod index;
mod marks;
pub(super) mod pinned;
mod pinnings;
mod policy;
mod record;
mod state;
pub(super) mod swap;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::worker::Worker;
use crate::apart::{self, Subject};
use crate::children::memory::HeldBytes;
use crate::generation::ModelId;
use crate::models::{AdapterFacts, Catalog, InstalledModel};
use crate::settings::Settings;
use crate::telemetry::{Metrics, PrefixFigures};
use folder::Folder;
pub use hatch::Hatch;
use index::PrefixId;
pub use pinnings::NotPinned;
use pinnings::Pinnings;
use record::{AdapterIdentity, Identity};
use state::{Bounds, Fault, Installed, Named, State};

/// Beneath the state folder, where no other is set.
const FOLDER: &str = "prefixes";
const DEFAULT_LIMIT_BYTES: u64 = 2 << 30;
/// Of what is free.
const DEFAULT_LIMIT_PERCENT: u64 = 10;
/// How long a disk that had no room or failed is left alone.
const REST: Duration = Duration::from_secs(600);
/// Numbers of runs that save, apart from those of requests, of handles and of probes.
const FIRST_RUN: u64 = 1 << 62;

/// All prefixes of the daemon; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Prefixes(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    folder: Folder,
    state: Mutex<State>,
    metrics: Metrics,
    /// What the folder takes of the machine's memory.
    memory: Option<HeldBytes>,
    runs: AtomicU64,
    /// Memory that workers take for saves and loads that are under way.
    in_use: AtomicU64,
    pinnings: Pinnings,
}

impl Prefixes {
    /// Opens the folder. Where that is not wanted or cannot be, prefixes are not swapped, which is
    /// said. Waits for the disk.
    pub fn open(settings: &Settings, metrics: Metrics, memory: HeldBytes) -> Self {
        let wanted = &settings.prefixes;
        if wanted.limit_bytes == Some(0) {
            return Self(None);
        }
        let default = settings.library.state_dir.join(FOLDER);
        let path = wanted.folder.as_deref().unwrap_or(&default);
        let (folder, contents) = match Folder::open(path) {
            Ok(opened) => opened,
            Err(error) => {
                let what = "prefixes of conversations are not kept: their folder cannot be used";
                // A daemon that somebody tries out may have no state folder.
                match wanted.folder {
                    Some(_) => tracing::warn!(path = %path.display(), %error, "{what}"),
                    None => tracing::info!(path = %path.display(), %error, "{what}"),
                }
                return Self(None);
            }
        };
        let in_memory = folder.is_in_memory();
        if in_memory && wanted.folder.is_none() {
            tracing::info!(path = %path.display(),
                "prefixes of conversations are not kept: the folder lies in memory (prefixes.folder)");
            return Self(None);
        }
        let bounds = Bounds {
            files_bytes: wanted.limit_bytes.unwrap_or_else(|| default_limit(&folder)),
            daily_bytes: wanted.written_per_day_bytes,
            least_tokens: wanted.least_tokens,
        };
        let mut state = State::new(bounds, contents.records, contents.daily);
        folder.remove(&state.trim());
        tracing::info!(path = %folder.path().display(), limit_bytes = bounds.files_bytes,
            files = state.files(), bytes = state.bytes(), "prefixes of conversations are kept");
        let this = Inner {
            folder,
            state: Mutex::new(state),
            metrics,
            memory: in_memory.then_some(memory),
            runs: AtomicU64::new(first_run()),
            in_use: AtomicU64::new(0),
            pinnings: Pinnings::default(),
        };
        this.tell_memory();
        Self(Some(Arc::new(this)))
    }

    /// Files of models that are not installed as they were go.
    pub fn keep_models(&self, catalog: &Catalog) {
        let Some(this) = &self.0 else { return };
        // A folder that hangs has lost none.
        if catalog.is_unread() {
            return;
        }
        let installed = catalog.models().iter().map(|model| Installed {
            id: model.id.clone(),
            file: file_of(model),
            shared: model
                .shared_prefixes()
                .iter()
                .map(|text| Named::from(text.as_str()))
                .collect(),
            pinned: model
                .pinned_prompts()
                .iter()
                .map(|pinned| Named::from(pinned.text.as_str()))
                .collect(),
            adapters: model.facts.adapters.iter().map(identity_of).collect(),
        });
        // With their marks, before the lock is taken.
        let installed: Vec<_> = installed.collect();
        let going = this.lock().set_installed(installed);
        this.remove(going);
    }

    /// What came from a key goes with it. `keys`: clients that have one, in the words of their names.
    pub fn keep_keys(&self, keys: &HashSet<String>) {
        let Some(this) = &self.0 else { return };
        let clients = keys.iter().map(|name| marks::hash(name)).collect();
        let going = this.lock().set_keys(clients);
        this.remove(going);
    }

    /// Nothing is done for no request any more.
    pub fn end(&self) {
        if let Some(this) = &self.0 {
            this.pinnings.end();
        }
    }

    /// Ends the pinning of a model's prompts, whose worker serves nothing by it then. None is begun while what is
    /// returned lives.
    pub async fn stop_pinning(&self, model: &ModelId) -> Option<NotPinned> {
        let this = self.0.as_ref()?;
        Some(this.pinnings.stop(model).await)
    }

    /// Where they lie; `None`: nothing is kept.
    pub fn folder(&self) -> Option<&Path> {
        Some(self.0.as_ref()?.folder.path())
    }

    /// What there is now; `None`: nothing is kept.
    pub fn figures(&self) -> Option<PrefixFigures> {
        let state = self.0.as_ref()?.lock();
        Some(PrefixFigures {
            files: state.files(),
            bytes: state.bytes(),
        })
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::Relaxed)
    }

    fn subject(&self) -> Subject {
        Subject::File(self.folder.path().to_owned())
    }

    fn remove(&self, ids: Vec<PrefixId>) {
        self.tell_memory();
        if ids.is_empty() {
            return;
        }
        let folder = self.folder.clone();
        apart::begin(self.subject(), move || folder.remove(&ids));
    }

    fn tell_memory(&self) {
        if let Some(memory) = &self.memory {
            memory.set(self.lock().bytes());
        }
    }

    /// It was not done.
    fn failed(&self, of: &Identity, what: &'static str, reason: &str, fault: Fault) {
        self.metrics.prefix_failed(&of.model, what);
        let is_off = self.lock().failed(of, fault);
        if is_off {
            tracing::warn!(
                model = &*of.model,
                runtime = of.runtime,
                what,
                reason,
                "prefixes of this model are not kept any more: its library does not do it"
            );
        } else {
            tracing::debug!(model = &*of.model, what, reason, "a prefix was not kept");
        }
    }

    /// The disk does not answer: no worker is to wait for it.
    fn disk_hangs(&self) {
        self.lock().leave_unread(Instant::now(), REST);
        self.rest("the disk does not answer");
    }

    /// The disk has no room, or failed.
    fn rest(&self, reason: &str) {
        if self.lock().rest(Instant::now(), REST) {
            tracing::warn!(path = %self.folder.path().display(), reason, rest_s = REST.as_secs(),
                "prefixes of conversations are not written for a while");
        }
    }
}

/// What cells of a model depend on, without what its worker adds.
fn file_of(model: &InstalledModel) -> String {
    let facts = &model.facts;
    let path = model.path.display();
    format!("{} {} {path}|", facts.size_bytes, facts.created)
}

fn identity_of(adapter: &AdapterFacts) -> AdapterIdentity {
    AdapterIdentity {
        name: adapter.name.clone(),
        stamp: adapter.stamp(),
    }
}

/// Which cells a worker makes with an adapter of this name: by the file that it has opened, not by that which
/// was found for its model.
/// `None`: it is not known which that was.
fn identity(worker: &Worker, adapter: Option<&str>) -> Option<Identity> {
    let (model, facts) = (&worker.model, &worker.facts);
    if facts.is_batch {
        // Its runs begin with nothing, and leave nothing.
        return None;
    }
    let opened = facts.model_file.as_deref()?;
    let words = |word: &Option<String>| word.clone().unwrap_or_default();
    let context = facts.context_length;
    let adapter = match adapter {
        None => None,
        Some(name) => {
            let mut adapters = model.facts.adapters.iter();
            Some(adapters.find(|it| it.name == name).map(identity_of)?)
        }
    };
    Some(Identity {
        model: model.id.clone(),
        file: format!("{}{opened}|{context:?}", file_of(model)),
        runtime: format!(
            "{} {}",
            words(&facts.library_version),
            words(&facts.library_path)
        ),
        adapter,
    })
}

fn hour_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs() / 3600
}

/// No place that a worker of an earlier daemon writes to, which may end a little later than that, is used
/// again.
fn first_run() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ms = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(0);
    FIRST_RUN | (ms << 16 & (FIRST_RUN - 1))
}

fn default_limit(folder: &Folder) -> u64 {
    let free = folder.free_bytes().unwrap_or(0);
    DEFAULT_LIMIT_BYTES.min(free / 100 * DEFAULT_LIMIT_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In memory what is kept takes what workers could have.
    #[test]
    fn a_folder_in_memory_is_used_only_where_it_is_named_and_counts() {
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut settings = Settings::default();
        settings.library.state_dir = place.path().to_owned();
        let memory = HeldBytes::default();
        let open = |settings: &Settings| Prefixes::open(settings, Metrics::new(), memory.clone());
        assert_eq!(open(&settings).figures(), None);
        let folder = place.path().join("prefixes");
        settings.prefixes.folder = Some(folder.clone());
        std::fs::write(folder.join("0000000000000001.cache"), "cells").unwrap();
        let record = r#"{"version":1,"of":{"model":"m","file":"f","runtime":"r"},"owner":{"tenant":"",
            "client":1,"has_key":false},"marks":{"length":0,"steps":[],"end":0},"tokens":1,"bytes":5}"#;
        std::fs::write(folder.join("0000000000000001.json"), record).unwrap();
        let kept = PrefixFigures { files: 1, bytes: 5 };
        assert_eq!(open(&settings).figures(), Some(kept));
        assert_eq!(memory.get(), 5);
    }
}
