//! Owns the workers: their processes, their state, their deadlines.
//!
//! Read it in this order: `event_loop` is the only place where a worker's state changes,
//! `placement` decides for it, `loading` brings a worker up, `run` serves a request on one,
//! `unloading` ends it.

#[cfg_attr(not(test), expect(dead_code, reason = "restarts do not wait yet"))]
mod backoff;
mod connection;
mod cpu_runtime;
mod event_loop;
mod lease;
mod loading;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the event loop does not measure yet")
)]
mod machine_memory;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the event loop does not measure yet")
)]
mod memory_limits;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the event loop does not measure yet")
)]
mod oom_kills;
mod placement;
mod printed_lines;
mod process;
mod process_figures;
mod run;
mod run_guard;
mod runtime_lines;
mod slot;
mod spawner;
mod status;
mod unloading;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the event loop does not measure yet")
)]
mod worker_memory;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use lease::Lease;
pub use run::{RunDeadlines, RunJob, Served, serve};
pub use status::{LoadProgress, ModelStatus, Phase, RuntimeFacts, StatusBoard, StatusSnapshot};

use crate::generation::{GenerationError, ModelId};
use crate::ipc::{LoadDeadline, WorkerDeadlines};
use crate::models::Catalog;
use crate::settings::{DeadlineSettings, Settings};
use event_loop::{EventLoop, Message};
use loading::Loader;
use placement::PlacementLimits;
use spawner::{Spawner, WorkerEnvironment};

/// Handle to the supervisor's event loop.
#[derive(Clone, Debug)]
pub struct Supervisor {
    messages: mpsc::UnboundedSender<Message>,
}

impl Supervisor {
    /// Starts the loop and the thread that spawns workers.
    pub fn start(settings: &Settings, catalog: &Catalog) -> std::io::Result<(Self, StatusBoard)> {
        let runtime = &settings.runtime;
        let environment = WorkerEnvironment::new(
            &runtime.pass_environment,
            runtime.log_level,
            runtime.core_dumps,
        );
        let loader = Loader {
            spawner: Spawner::start(environment)?,
            runtime: runtime.clone(),
            deadlines: settings.deadlines.clone(),
            cpu_library: cpu_runtime::find(runtime.cpu_library.as_deref()),
        };
        let limits = PlacementLimits {
            max_loaded: settings.models.max_loaded,
            minimum_residency: settings.models.minimum_residency,
        };
        let (event_loop, messages, status) = EventLoop::new(catalog, loader, limits);
        tokio::spawn(event_loop.run());
        Ok((Self { messages }, status))
    }

    /// Waits until a worker with this model is free, loading it if need be. Dropping the future
    /// withdraws the request.
    pub async fn lease(&self, model: ModelId) -> Result<Lease, GenerationError> {
        let (reply, lease) = oneshot::channel();
        let gone = |_| GenerationError::ShuttingDown;
        self.messages
            .send(Message::Lease { model, reply })
            .map_err(|_| GenerationError::ShuttingDown)?;
        lease.await.map_err(gone)?
    }

    /// Loads a model before anybody asks for it.
    pub fn preload(&self, model: ModelId) {
        let _ = self.messages.send(Message::Preload { model });
    }

    /// Ends all workers: idle ones at once, leased ones when they come back. `false` if that took
    /// longer than `limit`; what is left then dies with the daemon.
    pub async fn shut_down(&self, limit: Duration) -> bool {
        let (done, ended) = oneshot::channel();
        if self.messages.send(Message::ShutDown { done }).is_err() {
            return true;
        }
        tokio::time::timeout(limit, ended).await.is_ok()
    }
}

impl From<&Settings> for RunDeadlines {
    fn from(settings: &Settings) -> Self {
        Self {
            worker: WorkerDeadlines::from(&settings.deadlines),
            slow_reader: settings.http.slow_reader_timeout,
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
                stall: Duration::from_secs(10),
                longest: Duration::from_secs(1800),
            },
            prefill_base: settings.prefill_base,
            prefill_per_token: settings.prefill_per_token,
            inter_token: settings.inter_token,
            control_call: settings.control_call,
            abort_to_finish: settings.abort_to_finish,
            unload: settings.unload,
            heartbeat: Duration::from_secs(1),
        }
    }
}
