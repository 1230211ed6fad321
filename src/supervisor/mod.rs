//! Owns the workers: their processes, their state, their deadlines.
//!
//! Read it in this order: `lifecycle` says what states a worker goes through, `event_loop` is the
//! only place where one changes, `placement` decides whose turn it is, `loading` brings a worker up,
//! `run` serves a request on as many as it needs, `exchange` is what happens on one of them,
//! `unloading` ends it, `exit_report` explains its end.

mod answer_so_far;
mod backoff;
mod connection;
mod cpu_runtime;
mod deadline_name;
mod event_loop;
mod exchange;
mod exit_report;
mod handle;
mod lease;
mod lifecycle;
mod load_guard;
mod loading;
mod machine_memory;
mod measured;
mod memory_limits;
mod oom_kills;
mod outcome;
mod placement;
mod printed_lines;
mod process;
mod pulse;
mod reload;
mod run;
mod run_guard;
mod runtime_lines;
mod slot;
mod spawner;
mod status;
mod unloading;
mod worker_memory;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use event_loop::Turn;
pub use exchange::RunDeadlines;
pub use handle::{
    HandleReset, LibraryHandle, Replied, RowFailure, RunEvent, RunStream, pooled_row,
};
pub use lease::Lease;
pub use pulse::Pulse;
pub use run::{RunJob, RunServices, Served, serve};
pub use status::{LoadProgress, ModelStatus, Phase, RuntimeFacts, StatusBoard, StatusSnapshot};

use crate::generation::{GenerationError, ModelId};
use crate::ipc::{LoadDeadline, WorkerDeadlines};
use crate::library_calls::{DefaultParam, Input, LibraryError, Param, PooledRows, Pooling};
use crate::models::Catalog;
use crate::settings::{DeadlineSettings, Settings};
use crate::telemetry::Metrics;
use backoff::Backoff;
use event_loop::{EventLoop, MemoryRules, Message, Rules};
use handle::{HandleServices, LiveSettings};
use lifecycle::RestartPolicy;
use loading::Loader;
use placement::PlacementLimits;
pub(crate) use printed_lines::PrintedLines;
use reload::Reload;
pub(crate) use spawner::{Role, Spawned, Spawner, WorkerEnvironment};

/// A worker says so often within the time after which it would be missed.
const HEARTBEATS_IN_TOLERANCE: u32 = 5;

/// Handle to the supervisor's event loop.
#[derive(Clone, Debug)]
pub struct Supervisor {
    messages: mpsc::UnboundedSender<Message>,
    handles: Arc<HandleServices>,
}

impl Supervisor {
    /// Starts the loop and the thread that spawns workers. The loop gives the `pulse`.
    pub fn start(
        settings: &Settings,
        catalog: &Catalog,
        metrics: Metrics,
        pulse: Option<Pulse>,
    ) -> std::io::Result<(Self, StatusBoard)> {
        Self::start_in(own_environment(settings), settings, catalog, metrics, pulse)
    }

    /// As `start`, with the workers of another `rkllmd`: for a program that is none itself.
    pub fn start_with_workers_of(
        program: PathBuf,
        settings: &Settings,
        catalog: &Catalog,
        metrics: Metrics,
    ) -> std::io::Result<(Self, StatusBoard)> {
        let environment = own_environment(settings).with_program(program);
        Self::start_in(environment, settings, catalog, metrics, None)
    }

    fn start_in(
        environment: WorkerEnvironment,
        settings: &Settings,
        catalog: &Catalog,
        metrics: Metrics,
        pulse: Option<Pulse>,
    ) -> std::io::Result<(Self, StatusBoard)> {
        let runtime = &settings.runtime;
        let loader = Loader {
            spawner: Spawner::start(Role::Worker, environment)?,
            runtime: runtime.clone(),
            deadlines: settings.deadlines.clone(),
            run_deadlines: RunDeadlines::from(settings),
            metrics,
        };
        let rules = Rules::from(settings);
        let handles = Arc::new(HandleServices {
            metrics: loader.metrics.clone(),
            state_dir: settings.library.state_dir.clone(),
            tensor_limit_bytes: settings.library.tensor_limit_bytes,
            prompt_caches_limit_bytes: settings.library.prompt_caches_limit_bytes,
            live: Mutex::new(LiveSettings::from(settings)),
        });
        let (event_loop, messages, status) = EventLoop::new(catalog, loader, rules, pulse);
        tokio::spawn(event_loop.run());
        Ok((Self { messages, handles }, status))
    }

    /// Waits until a worker with this model is free, loading it if need be. Dropping the future
    /// withdraws the request.
    pub async fn lease(&self, model: ModelId, turn: Turn) -> Result<Lease, GenerationError> {
        let (reply, lease) = oneshot::channel();
        let gone = |_| GenerationError::ShuttingDown;
        self.messages
            .send(Message::Lease { model, turn, reply })
            .map_err(|_| GenerationError::ShuttingDown)?;
        lease.await.map_err(gone)?
    }

    /// Goes on with other settings and models. What is running is not disturbed: a worker whose
    /// model has changed or gone ends when it is free. Returns once the loop has done so.
    pub async fn reload(&self, settings: &Settings, catalog: Arc<Catalog>) {
        self.handles.reload(settings);
        let (done, reloaded) = oneshot::channel();
        let message = Message::Reload(Box::new(Reload {
            catalog,
            rules: Rules::from(settings),
            deadlines: settings.deadlines.clone(),
            run_deadlines: RunDeadlines::from(settings),
            done,
        }));
        if self.messages.send(message).is_ok() {
            let _ = reloaded.await;
        }
    }

    /// Returns once the loop has answered: it runs.
    pub async fn answers(&self) {
        let (reply, answered) = oneshot::channel();
        if self.messages.send(Message::Answer { reply }).is_ok() {
            let _ = answered.await;
        }
    }

    /// Opens a handle: loads `model` into a worker of its own with `param`. Waits for a place like
    /// every request, at most as long as the queue's deadline.
    pub async fn open_handle(
        &self,
        model: ModelId,
        param: Param,
    ) -> Result<LibraryHandle, LibraryError> {
        handle::open(self, model, param).await
    }

    /// What `rkllm_createDefaultParam` of the library for `model` says; `None`: of the NPU's
    /// library. A worker opens the library for it and ends; no model is loaded.
    pub async fn default_param(
        &self,
        model: Option<ModelId>,
    ) -> Result<DefaultParam, LibraryError> {
        handle::default_param(self, model).await
    }

    /// The last hidden layer of each of `inputs`, pooled to one row each, by the model's ordinary
    /// worker (that of HTTP requests). The KV cache is emptied before each input, so that every
    /// row of it is computed. Dropping the future aborts the run.
    pub async fn pooled_hidden_states(
        &self,
        model: ModelId,
        inputs: Vec<Input>,
        pooling: Pooling,
    ) -> Result<PooledRows, LibraryError> {
        handle::pooled_hidden_states(self, model, inputs, pooling).await
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

fn own_environment(settings: &Settings) -> WorkerEnvironment {
    let runtime = &settings.runtime;
    WorkerEnvironment::new(
        &runtime.pass_environment,
        runtime.log_level,
        runtime.core_dumps,
    )
}

impl From<&Settings> for Rules {
    fn from(settings: &Settings) -> Self {
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
            memory: MemoryRules {
                limits: memory_limits::effective(&settings.memory, machine_memory::machine_bytes()),
                interval: settings.memory.check_interval,
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
