//! The daemon's side of the readers: at most so many run at once, each for one model, and clients take
//! turns; one that has nothing to do is kept for a while, and gives way to another model.
//!
//! A reader that fails, or does not answer in time, is killed and costs what it was asked. Its place
//! is free when it is gone, or once SIGKILL has been without effect for `deadlines.kill`: it is
//! abandoned then, and of such there may be `starting::MOST_ABANDONED`.

mod busy;
mod calls;
mod exchange;
mod fair_places;
mod idle;
mod limits;
mod starting;
mod trust;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};

pub(crate) use calls::{CONSTRAINING, Patience};
pub use calls::{Encoded, Encoding};
pub(crate) use exchange::{LocationAnswer, OpenedModel};
use fair_places::FairPlaces;
pub use fair_places::on_behalf_of;
use idle::Idle;
use limits::Limits;
use trust::Standings;

use super::ReaderKind;
use crate::apart::{self, Subject};
use crate::children::memory::HeldBytes;
use crate::children::{ChildEnvironment, Host, memory};
use crate::generation::ModelId;
use crate::settings::{ReaderSandbox, Settings};
use crate::telemetry::Metrics;

/// One that hangs is not waited for.
const MEASURED_WITHIN: Duration = Duration::from_millis(500);

/// What the readers hold now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReaderFigures {
    /// Resident private bytes by the model that is read; several readers of one are added up.
    pub memory_bytes: BTreeMap<ModelId, u64>,
    /// Readers that outlived SIGKILL; `None`: there are no readers.
    pub abandoned: Option<usize>,
}

/// Handle to the readers.
#[derive(Clone, Debug)]
pub struct Readers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: Host<ReaderKind>,
    limits: RwLock<Limits>,
    /// A permit for each reader that is busy.
    places: Arc<FairPlaces>,
    most: usize,
    idle: Mutex<Idle>,
    running: Arc<Mutex<BTreeMap<u32, ModelId>>>,
    abandoned: Arc<AtomicUsize>,
    standings: Mutex<Standings>,
    /// Places for whatever is not known to be well-behaved, a scan included: all but one.
    untrusted: Arc<FairPlaces>,
    /// Requests that wait for a place, each for a model that has served none yet.
    newcomers: watch::Sender<usize>,
    held: HeldBytes,
    /// A reader has started, or the pool has gone.
    started: Arc<Notify>,
    metrics: Metrics,
}

impl Readers {
    /// Starts the thread that spawns readers; readers start when they are needed.
    pub fn start(settings: &Settings, metrics: Metrics) -> io::Result<Self> {
        Self::start_in(environment(), settings, metrics)
    }

    /// As `start`, with the readers of another `rkllmd`: for a program that is none itself.
    pub fn start_with_readers_of(
        program: PathBuf,
        settings: &Settings,
        metrics: Metrics,
    ) -> io::Result<Self> {
        Self::start_in(environment().with_program(program), settings, metrics)
    }

    fn start_in(
        environment: ChildEnvironment,
        settings: &Settings,
        metrics: Metrics,
    ) -> io::Result<Self> {
        if settings.reader.sandbox == ReaderSandbox::Off {
            tracing::warn!("reader.sandbox is off: the models' files are trusted");
        }
        let most = settings.reader.max_processes;
        let this = Self {
            shared: Arc::new(Shared {
                host: Host::start(environment)?,
                limits: RwLock::new(Limits::from(settings)),
                places: FairPlaces::new(most),
                most,
                idle: Mutex::default(),
                running: Arc::default(),
                abandoned: Arc::default(),
                standings: Mutex::default(),
                untrusted: FairPlaces::new(most.saturating_sub(1).max(1)),
                newcomers: watch::Sender::new(0),
                held: HeldBytes::default(),
                started: Arc::default(),
                metrics,
            }),
        };
        tokio::spawn(look_after(Arc::downgrade(&this.shared)));
        Ok(this)
    }

    /// What all of them together hold, as it was last measured.
    pub(crate) fn held(&self) -> HeldBytes {
        self.shared.held.clone()
    }

    /// Goes on with other deadlines, and reads all files anew.
    pub fn reload(&self, settings: &Settings) {
        *self
            .shared
            .limits
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Limits::from(settings);
        lock(&self.shared.standings).clear();
        let mut idle = self.shared.idle();
        idle.generation += 1;
        // Dropping them ends them.
        idle.readers.clear();
    }

    /// What they hold now, as the kernel tells it.
    pub async fn figures(&self) -> ReaderFigures {
        let running: Vec<_> = lock(&self.shared.running)
            .iter()
            .map(|(pid, model)| (*pid, ModelId::clone(model)))
            .collect();
        let mut figures = ReaderFigures {
            abandoned: Some(self.shared.abandoned.load(Ordering::Relaxed)),
            ..ReaderFigures::default()
        };
        for (pid, model) in running {
            let measured = apart::ask(Subject::Child(pid), MEASURED_WITHIN, move || {
                memory::measure(pid)
            });
            if let Some(memory) = measured.await.flatten() {
                *figures.memory_bytes.entry(model).or_default() += memory.total_bytes();
            }
        }
        figures
    }
}

/// While any reader runs: measures what they hold, and ends those that were idle for long. Until no
/// caller can ask them any more.
async fn look_after(shared: Weak<Shared>) {
    while let Some(readers) = shared.upgrade().map(|shared| Readers { shared }) {
        let figures = readers.figures().await;
        let held = figures.memory_bytes.values().sum();
        readers.shared.held.set(held);
        let any = !lock(&readers.shared.running).is_empty();
        let limits = readers.shared.limits();
        readers.shared.end_idle(limits.idle);
        let pause = limits.measure.min(limits.idle);
        if any {
            drop(readers);
            tokio::time::sleep(pause).await;
        } else {
            let started = Arc::clone(&readers.shared.started);
            drop(readers);
            started.notified().await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.started.notify_one();
    }
}

impl Shared {
    fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn environment() -> ChildEnvironment {
    ChildEnvironment::bare(false)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
