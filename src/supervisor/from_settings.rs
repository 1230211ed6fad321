//! Which of the settings the loop goes by, and which a worker.

use super::backoff::Backoff;
use super::drive::{FileDeadline, RunDeadlines};
use super::event_loop::{MemoryRules, Rules};
use super::lifecycle::RestartPolicy;
use super::placement::PlacementLimits;
use crate::ipc::{LoadDeadline, WorkerDeadlines};
use crate::settings::{DeadlineSettings, Settings};

/// A worker says so often within the time after which it would be missed.
const HEARTBEATS_IN_TOLERANCE: u32 = 5;

impl Rules {
    pub(super) fn of(settings: &Settings, machine_bytes: Option<u64>) -> Self {
        Self {
            placement: PlacementLimits {
                max_loaded: settings.models.max_loaded,
                minimum_residency: settings.models.minimum_residency,
            },
            restart: RestartPolicy {
                backoff: Backoff {
                    first: settings.recovery.backoff_first,
                    longest: settings.recovery.backoff_longest,
                },
                healthy_after: settings.recovery.healthy_after,
            },
            unload_deadline: settings.deadlines.unload,
            keep_alive: settings.models.keep_alive,
            pinned: settings.models.preload.clone(),
            memory: MemoryRules {
                settings: settings.memory.clone(),
                machine_bytes,
            },
        }
    }
}

impl From<&Settings> for RunDeadlines {
    fn from(settings: &Settings) -> Self {
        Self {
            worker: WorkerDeadlines::from(&settings.deadlines),
            heartbeat: settings.deadlines.heartbeat,
            slow_reader: settings.http.slow_reader_timeout,
            prefix_file: FileDeadline {
                base: settings.deadlines.prefix_file_base,
                per_gib: settings.deadlines.prefix_file_per_gib,
            },
        }
    }
}

impl From<&DeadlineSettings> for WorkerDeadlines {
    /// `load` is that of an empty model file.
    fn from(settings: &DeadlineSettings) -> Self {
        Self {
            library_open: settings.library_open,
            load: LoadDeadline {
                granted: settings.load_base,
                stall: settings.load_stall,
                longest: settings.load_longest,
            },
            prefill_base: settings.prefill_base,
            prefill_per_token: settings.prefill_per_token,
            inter_token: settings.inter_token,
            control_call: settings.control_call,
            abort_to_finish: settings.abort_to_finish,
            unload: settings.unload,
            heartbeat: settings.heartbeat / HEARTBEATS_IN_TOLERANCE,
        }
    }
}
