//! From nothing to a loaded worker: start the process, shake hands, open the library, load the
//! model. Each step has its deadline; a step that fails ends the process before it is reported, so
//! a failed load leaves nothing behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Connection, ConnectionError};
use super::cpu_runtime;
use super::deadline_name::deadline_name;
use super::exit_report::EndReason;
use super::load_guard::LoadGuard;
use super::measured::Measured;
use super::printed_lines::PrintedLines;
use super::process::{ProcessEvent, WorkerProcess};
use super::runtime_lines;
use super::spawner::Spawner;
use super::{Phase, RunDeadlines, RuntimeFacts};
use crate::generation::SamplingRequest;
use crate::ipc::{Command, Event, LibraryFacts, LoadSpec, WorkerDeadlines};
use crate::library_calls::{CallFailure, Param};
use crate::models::{InstalledModel, ModelKind};
use crate::settings::{DeadlineSettings, RuntimeSettings};
use crate::telemetry::Metrics;

/// The daemon's own guard lies this much behind the worker's, so that the worker, which knows
/// more, speaks first.
pub const GUARD_SLACK: Duration = Duration::from_secs(3);
/// The context a model is loaded with when nothing says otherwise, in tokens.
const DEFAULT_CONTEXT_TOKENS: u32 = 4096;
/// Every runtime wants a multiple of this (SDK documentation of 1.2.0 and later).
const CONTEXT_STEP_TOKENS: u32 = 32;
/// A load is tried this often with the context limit the runtime told.
const CONTEXT_ATTEMPTS: u32 = 2;
const GIB: u64 = 1 << 30;

/// A loaded worker. Dropping it kills the process.
#[derive(Debug)]
pub struct Worker {
    pub model: Arc<InstalledModel>,
    pub process: WorkerProcess,
    pub connection: Connection,
    pub lines: PrintedLines,
    pub facts: Arc<RuntimeFacts>,
    /// From starting the process to the loaded model.
    pub load_time: Duration,
    pub measured: Measured,
    /// What its runs keep to.
    pub deadlines: RunDeadlines,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct LoadFailure {
    pub reason: String,
    /// Trying again would fail in the same way.
    pub is_certain: bool,
    /// Why its process is ended.
    end: EndReason,
    /// The runtime refused the context length and told the model's limit.
    context_limit: Option<u32>,
    /// The same for a client of the vendor's API.
    pub failure: Option<CallFailure>,
}

impl LoadFailure {
    fn deadline(name: &'static str, limit: Duration) -> Self {
        Self {
            end: EndReason::Deadline(name),
            ..Self::new(format!(
                "the `{name}` deadline of {} ms passed",
                limit.as_millis()
            ))
        }
    }

    fn certain(reason: impl Into<String>) -> Self {
        Self {
            is_certain: true,
            ..Self::new(reason)
        }
    }

    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_certain: false,
            end: EndReason::LoadFailed,
            context_limit: None,
            failure: None,
        }
    }
}

/// What every load of this daemon needs.
#[derive(Clone, Debug)]
pub struct Loader {
    pub spawner: Spawner,
    pub runtime: RuntimeSettings,
    pub deadlines: DeadlineSettings,
    pub run_deadlines: RunDeadlines,
    pub metrics: Metrics,
}

impl Loader {
    /// Loads `model`, telling `report` each phase and the process. `on_event` hears of every
    /// process, also of those of attempts that failed.
    pub async fn load(
        &self,
        model: Arc<InstalledModel>,
        raw: Option<&Param>,
        report: impl Fn(Phase, Option<&WorkerProcess>),
        on_event: impl Fn(u32, ProcessEvent) + Send + Sync + Clone + 'static,
    ) -> Result<Worker, LoadFailure> {
        let mut context = context_length(&model);
        for attempt in 1.. {
            match self
                .attempt(&model, (context, raw), &report, on_event.clone())
                .await
            {
                Err(failure)
                    if attempt < CONTEXT_ATTEMPTS
                        && model.context_length.is_none()
                        && raw.is_none() =>
                {
                    let Some(limit) = failure.context_limit.filter(|&limit| limit < context) else {
                        return Err(failure);
                    };
                    tracing::info!(
                        model = &*model.id,
                        limit,
                        "loading again with the model's context limit"
                    );
                    context = limit;
                }
                result => return result,
            }
        }
        unreachable!("the loop returns")
    }

    async fn attempt(
        &self,
        model: &Arc<InstalledModel>,
        wanted: (u32, Option<&Param>),
        report: &impl Fn(Phase, Option<&WorkerProcess>),
        on_event: impl Fn(u32, ProcessEvent) + Send + Sync + 'static,
    ) -> Result<Worker, LoadFailure> {
        let library = self.library_for(model.kind)?;
        report(Phase::Spawning, None);
        let spawned = timeout(self.deadlines.spawn, self.spawner.spawn())
            .await
            .map_err(|_| LoadFailure::deadline("spawn", self.deadlines.spawn))?
            .map_err(|error| LoadFailure::new(format!("starting a worker process: {error}")))?;
        let setup =
            |error: std::io::Error| LoadFailure::new(format!("setting up a worker: {error}"));
        let pid = spawned.child.id().unwrap_or_default();
        // The child dies with what an error drops.
        let connection = Connection::new(spawned.socket).map_err(setup)?;
        let lines = PrintedLines::drain(spawned.printed, model.id.clone(), pid).map_err(setup)?;
        let kill_wait = self.deadlines.kill;
        let process = WorkerProcess::watch(spawned.child, kill_wait, lines.clone(), on_event);
        report(Phase::Spawning, Some(&process));
        let mut worker = Worker {
            model: Arc::clone(model),
            process,
            connection,
            lines,
            facts: Arc::default(),
            load_time: Duration::ZERO,
            measured: Measured::default(),
            deadlines: self.run_deadlines,
        };
        match self.bring_up(&mut worker, library, wanted, report).await {
            Ok(facts) => {
                worker.facts = Arc::new(facts);
                worker.load_time = worker.process.started_at.elapsed();
                worker.process.set_activity(None, None);
                Ok(worker)
            }
            Err(failure) => {
                if let EndReason::Deadline(name) = failure.end {
                    self.metrics.deadline_passed(name);
                }
                worker.process.kill_and_wait(failure.end).await;
                Err(failure)
            }
        }
    }

    async fn bring_up(
        &self,
        worker: &mut Worker,
        library: PathBuf,
        (context, raw): (u32, Option<&Param>),
        report: &impl Fn(Phase, Option<&WorkerProcess>),
    ) -> Result<RuntimeFacts, LoadFailure> {
        let pid = worker.process.pid;
        let spawn = self.deadlines.spawn;
        match timeout(spawn, worker.connection.handshake()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(connection_failed(worker, error, "starting").await),
            Err(_) => return Err(LoadFailure::deadline("spawn", spawn)),
        }
        report(Phase::OpeningLibrary, Some(&worker.process));
        worker.process.set_activity(Some("dlopen"), None);
        let mut spec = self.load_spec(&worker.model, library, context);
        spec.raw = raw.cloned().map(Box::new);
        let limits = spec.deadlines.load;
        if let Err(error) = worker.connection.send(&Command::Load(Box::new(spec))).await {
            return Err(connection_failed(worker, error, "opening the library").await);
        }
        let mut facts = RuntimeFacts {
            context_length: raw.is_none().then_some(context),
            ..RuntimeFacts::default()
        };
        let limit = self.deadlines.library_open;
        let guard = LoadGuard::fixed("library-open", limit, self.deadlines.heartbeat);
        match self
            .next_event(worker, guard, "opening the library")
            .await?
        {
            Event::LibraryOpened(library) => {
                facts.library_path = Some(library.path.display().to_string());
                facts.library_version = Some(library.version);
                facts.abi_family = Some(library.family);
            }
            // What is wrong with a library stays wrong.
            event => return Err(unexpected(worker, event, true).await),
        }
        report(Phase::Loading, Some(&worker.process));
        worker.process.set_activity(Some("rkllm_init"), None);
        let guard = LoadGuard::following("load", limits, self.deadlines.heartbeat, pid);
        match self.next_event(worker, guard, "loading the model").await? {
            Event::Loaded { per_run_parameters } => {
                facts.per_run_parameters = Some(per_run_parameters);
            }
            event => return Err(unexpected(worker, event, false).await),
        }
        runtime_lines::read_facts(&worker.lines.take().await, &mut facts);
        Ok(facts)
    }

    /// The next event that tells how the load goes, under the daemon's own guard.
    async fn next_event(
        &self,
        worker: &mut Worker,
        mut guard: LoadGuard,
        during: &str,
    ) -> Result<Event, LoadFailure> {
        loop {
            let event = tokio::select! {
                // First, because what has arrived is newer than the clock.
                biased;
                event = worker.connection.next_event() => event,
                (name, limit) = guard.expired() => {
                    return Err(LoadFailure::deadline(name, limit));
                }
            };
            guard.heard();
            match event {
                Ok(Event::Heartbeat) => {}
                Ok(event) => return Ok(event),
                Err(error) => return Err(connection_failed(worker, error, during).await),
            }
        }
    }

    /// Opens the library for models of `kind` in a process that ends afterwards.
    pub async fn describe(&self, kind: ModelKind) -> Result<LibraryFacts, LoadFailure> {
        let library = self.library_for(kind)?;
        let spawned = timeout(self.deadlines.spawn, self.spawner.spawn())
            .await
            .map_err(|_| LoadFailure::deadline("spawn", self.deadlines.spawn))?
            .map_err(|error| LoadFailure::new(format!("starting a worker process: {error}")))?;
        let setup =
            |error: std::io::Error| LoadFailure::new(format!("setting up a worker: {error}"));
        let pid = spawned.child.id().unwrap_or_default();
        let lines = PrintedLines::drain(spawned.printed, "library".into(), pid).map_err(setup)?;
        // Dropping it kills the process, however this ends.
        let process = WorkerProcess::watch(spawned.child, self.deadlines.kill, lines, |_, _| {});
        process.expect_end(EndReason::Unload);
        let mut connection = Connection::new(spawned.socket).map_err(setup)?;
        let command = Command::Describe {
            library,
            assume_family: self.runtime.assume_family.clone(),
            deadlines: Box::new(WorkerDeadlines::from(&self.deadlines)),
        };
        let failed = |error: ConnectionError| {
            LoadFailure::new(format!("the worker that opened the library: {error}"))
        };
        let limit = self.deadlines.library_open;
        let told = timeout(limit + GUARD_SLACK, async {
            connection.handshake().await.map_err(failed)?;
            connection.send(&command).await.map_err(failed)?;
            loop {
                match connection.next_event().await.map_err(failed)? {
                    Event::Heartbeat => {}
                    Event::LibraryOpened(facts) => return Ok(facts),
                    Event::LoadFailed { reason, failure } => {
                        return Err(LoadFailure {
                            failure,
                            ..LoadFailure::certain(reason)
                        });
                    }
                    other => {
                        return Err(LoadFailure::new(format!(
                            "the worker could not open the library: {other:?}"
                        )));
                    }
                }
            }
        });
        let result = told.await;
        if result.is_err() {
            self.metrics.deadline_passed("library-open");
        }
        result.unwrap_or_else(|_| Err(LoadFailure::deadline("library-open", limit)))
    }

    fn library_for(&self, kind: ModelKind) -> Result<PathBuf, LoadFailure> {
        match kind {
            ModelKind::Rkllm => Ok(self.runtime.npu_library.clone()),
            ModelKind::Gguf => {
                cpu_runtime::find(self.runtime.cpu_library.as_deref()).ok_or_else(|| {
                    LoadFailure::certain(
                        "no CPU runtime is installed: GGUF models need librkllmrt.so of rkllmd-cpu \
                     (setting runtime.cpu-library)",
                    )
                })
            }
        }
    }

    fn load_spec(&self, model: &InstalledModel, library: PathBuf, context: u32) -> LoadSpec {
        let defaults = &model.sampling;
        LoadSpec {
            library,
            assume_family: self.runtime.assume_family.clone(),
            model: model.path.clone(),
            context_length: context,
            max_new_tokens: model.max_new_tokens,
            sampling: SamplingRequest {
                temperature: defaults.temperature,
                top_p: defaults.top_p,
                top_k: defaults.top_k,
                repeat_penalty: defaults.repeat_penalty,
                presence_penalty: defaults.presence_penalty,
                frequency_penalty: defaults.frequency_penalty,
            },
            cpu_mask: model.cpu_mask,
            base_domain_id: model.base_domain_id,
            eos_ids: model.extra_eos_ids.clone(),
            tokenizer_json: model.tokenizer_json.clone(),
            raw: None,
            deadlines: {
                let mut deadlines = WorkerDeadlines::from(&self.deadlines);
                deadlines.load.granted = load_deadline(&self.deadlines, model.size_bytes);
                deadlines
            },
        }
    }
}

/// How long reading a file of this size may take.
pub fn load_deadline(deadlines: &DeadlineSettings, size_bytes: u64) -> Duration {
    let per_gib = deadlines.load_per_gib.as_secs_f64();
    deadlines.load_base + Duration::from_secs_f64(per_gib * size_bytes as f64 / GIB as f64)
}

/// The context to load with: `model.toml`'s, else min(the model's limit, 4096), in steps of 32.
fn context_length(model: &InstalledModel) -> u32 {
    let wanted = model.context_length.unwrap_or_else(|| {
        model.context_limit.map_or(DEFAULT_CONTEXT_TOKENS, |limit| {
            limit.min(DEFAULT_CONTEXT_TOKENS)
        })
    });
    (wanted / CONTEXT_STEP_TOKENS).max(1) * CONTEXT_STEP_TOKENS
}

/// Explains a connection that failed while `during` was going on.
async fn connection_failed(
    worker: &mut Worker,
    error: ConnectionError,
    during: &str,
) -> LoadFailure {
    if !matches!(error, ConnectionError::Closed | ConnectionError::Io(_)) {
        return LoadFailure::new(error.to_string());
    }
    let exit = match timeout(GUARD_SLACK, worker.process.exited()).await {
        Ok(Some(report)) => report.to_string(),
        _ => "closed its connection".to_owned(),
    };
    with_printed_reason(
        worker,
        LoadFailure::new(format!("the worker {exit} while {during}")),
    )
    .await
}

/// What the worker said instead of the next step. `is_certain`: this step fails in the same way
/// again.
async fn unexpected(worker: &mut Worker, event: Event, is_certain: bool) -> LoadFailure {
    let failure = match event {
        Event::LoadFailed { reason, failure } => LoadFailure {
            is_certain: is_certain
                || matches!(
                    failure,
                    Some(CallFailure::NotInLibrary { .. } | CallFailure::BadValue { .. })
                ),
            failure,
            ..LoadFailure::new(reason)
        },
        Event::DeadlinePassed {
            deadline,
            limit,
            call,
        } => {
            let name = deadline_name(&deadline);
            LoadFailure {
                end: EndReason::Deadline(name),
                ..LoadFailure::new(format!(
                    "the `{name}` deadline of {} ms passed in {call}",
                    limit.as_millis()
                ))
            }
        }
        other => LoadFailure::new(format!(
            "the worker sent something unexpected while loading: {other:?}"
        )),
    };
    with_printed_reason(worker, failure).await
}

/// A load prints no user's text, so its error line may be shown.
async fn with_printed_reason(worker: &Worker, failure: LoadFailure) -> LoadFailure {
    let lines = worker.lines.take().await;
    LoadFailure {
        reason: match runtime_lines::first_error(&lines) {
            Some(line) => format!("{}; the runtime said: {line}", failure.reason),
            None => failure.reason,
        },
        context_limit: runtime_lines::context_limit(&lines),
        ..failure
    }
}
