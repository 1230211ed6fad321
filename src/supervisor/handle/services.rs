//! What every handle needs, and what a reload changes of it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::settings::{DeadlineSettings, MemorySettings, Settings};
use crate::supervisor::loading::load_deadline;
use crate::telemetry::Metrics;

/// What every handle needs.
#[derive(Debug)]
pub(in crate::supervisor) struct HandleServices {
    pub metrics: Metrics,
    pub state_dir: PathBuf,
    pub tensor_limit_bytes: u64,
    pub prompt_caches_limit_bytes: u64,
    pub live: Mutex<LiveSettings>,
}

/// What a reload changes for handles that are open. Deadlines of calls and runs are those of the
/// worker that they are on.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct LiveSettings {
    /// The longest time a request waits for its turn.
    pub queue_deadline: Duration,
    /// For files that are read like models.
    pub loading: DeadlineSettings,
    pub memory: MemorySettings,
}

impl From<&Settings> for LiveSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            queue_deadline: settings.queue.deadline,
            loading: settings.deadlines.clone(),
            memory: settings.memory.clone(),
        }
    }
}

impl HandleServices {
    pub fn reload(&self, settings: &Settings) {
        *self.live() = settings.into();
    }

    pub fn queue_deadline(&self) -> Duration {
        self.live().queue_deadline
    }

    pub(in crate::supervisor) fn load_deadline(&self, size_bytes: u64) -> Duration {
        load_deadline(&self.live().loading, size_bytes)
    }

    pub(in crate::supervisor) fn memory(&self) -> MemorySettings {
        self.live().memory.clone()
    }

    fn live(&self) -> MutexGuard<'_, LiveSettings> {
        // Whole after every statement.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
