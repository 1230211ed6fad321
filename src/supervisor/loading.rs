//! From nothing to a loaded worker: start the process, shake hands, open the library, load the
//! model. Each step has its deadline; a step that fails ends the process before it is reported, so
//! a failed load leaves nothing behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Connection, ConnectionError};
use super::printed_lines::PrintedLines;
use super::process::{ExitReport, WorkerProcess};
use super::runtime_lines;
use super::spawner::Spawner;
use super::{Phase, RuntimeFacts};
use crate::generation::SamplingRequest;
use crate::ipc::{Command, Event, LoadSpec, WorkerDeadlines};
use crate::models::{InstalledModel, ModelKind};
use crate::settings::{DeadlineSettings, RuntimeSettings};

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
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct LoadFailure {
    pub reason: String,
    /// The runtime refused the context length and told the model's limit.
    context_limit: Option<u32>,
}

impl LoadFailure {
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            context_limit: None,
        }
    }
}

/// What every load of this daemon needs.
#[derive(Debug)]
pub struct Loader {
    pub spawner: Spawner,
    pub runtime: RuntimeSettings,
    pub deadlines: DeadlineSettings,
    /// The CPU runtime that was found at start.
    pub cpu_library: Option<PathBuf>,
}

impl Loader {
    /// Loads `model`, telling `report` each phase and the process id. `on_exit` is called for
    /// every process that ends, also for those of attempts that failed.
    pub async fn load(
        &self,
        model: Arc<InstalledModel>,
        report: impl Fn(Phase, Option<u32>),
        on_exit: impl FnOnce(u32, ExitReport) + Send + Clone + 'static,
    ) -> Result<Worker, LoadFailure> {
        let mut context = context_length(&model);
        for attempt in 1.. {
            match self
                .attempt(&model, context, &report, on_exit.clone())
                .await
            {
                Err(failure) if attempt < CONTEXT_ATTEMPTS && model.context_length.is_none() => {
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
        context: u32,
        report: &impl Fn(Phase, Option<u32>),
        on_exit: impl FnOnce(u32, ExitReport) + Send + 'static,
    ) -> Result<Worker, LoadFailure> {
        let library = self.library_for(model.kind)?;
        report(Phase::Spawning, None);
        let spawned = timeout(self.deadlines.spawn, self.spawner.spawn())
            .await
            .map_err(|_| LoadFailure::new("the worker process did not start in time"))?
            .map_err(|error| LoadFailure::new(format!("starting a worker process: {error}")))?;
        let process = WorkerProcess::watch(spawned.child, on_exit);
        let pid = process.pid;
        report(Phase::Spawning, Some(pid));
        let setup =
            |error: std::io::Error| LoadFailure::new(format!("setting up a worker: {error}"));
        let lines = PrintedLines::drain(spawned.printed, model.id.clone(), pid).map_err(setup)?;
        let mut worker = Worker {
            model: Arc::clone(model),
            process,
            connection: Connection::new(spawned.socket).map_err(setup)?,
            lines,
            facts: Arc::default(),
        };
        match self.bring_up(&mut worker, library, context, report).await {
            Ok(facts) => {
                worker.facts = Arc::new(facts);
                Ok(worker)
            }
            Err(failure) => {
                worker.process.kill_and_wait().await;
                Err(failure)
            }
        }
    }

    async fn bring_up(
        &self,
        worker: &mut Worker,
        library: PathBuf,
        context: u32,
        report: &impl Fn(Phase, Option<u32>),
    ) -> Result<RuntimeFacts, LoadFailure> {
        let pid = worker.process.pid;
        step("spawn", self.deadlines.spawn, worker, async |worker| {
            worker.connection.handshake().await?;
            Ok(())
        })
        .await?;
        report(Phase::OpeningLibrary, Some(pid));
        let spec = self.load_spec(&worker.model, library, context);
        let load_deadline = spec.deadlines.load;
        let mut facts = RuntimeFacts {
            context_length: Some(context),
            ..RuntimeFacts::default()
        };
        let opened = step(
            "library-open",
            self.deadlines.library_open + GUARD_SLACK,
            worker,
            async |worker| {
                worker
                    .connection
                    .send(&Command::Load(Box::new(spec)))
                    .await?;
                worker.connection.next_event().await
            },
        )
        .await?;
        match opened {
            Event::LibraryOpened(library) => {
                facts.library_path = Some(library.path.display().to_string());
                facts.library_version = Some(library.version);
                facts.abi_family = Some(library.family);
            }
            other => return Err(unexpected(worker, other).await),
        }
        report(Phase::Loading, Some(pid));
        let loaded = step(
            "load",
            load_deadline.granted + GUARD_SLACK,
            worker,
            async |worker| worker.connection.next_event().await,
        )
        .await?;
        match loaded {
            Event::Loaded { per_run_parameters } => {
                facts.per_run_parameters = Some(per_run_parameters);
            }
            other => return Err(unexpected(worker, other).await),
        }
        runtime_lines::read_facts(&worker.lines.take().await, &mut facts);
        Ok(facts)
    }

    fn library_for(&self, kind: ModelKind) -> Result<PathBuf, LoadFailure> {
        match kind {
            ModelKind::Rkllm => Ok(self.runtime.npu_library.clone()),
            ModelKind::Gguf => self.cpu_library.clone().ok_or_else(|| {
                LoadFailure::new(
                    "no CPU runtime is installed: GGUF models need librkllmrt.so of rkllmd-cpu \
                     (setting runtime.cpu-library)",
                )
            }),
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
            deadlines: {
                let mut deadlines = WorkerDeadlines::from(&self.deadlines);
                deadlines.load.granted = load_deadline(&self.deadlines, model.size_bytes);
                deadlines
            },
        }
    }
}

fn load_deadline(deadlines: &DeadlineSettings, size_bytes: u64) -> Duration {
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

/// Runs one step of a load under its deadline and explains its failure.
async fn step<T>(
    deadline: &'static str,
    limit: Duration,
    worker: &mut Worker,
    action: impl AsyncFnOnce(&mut Worker) -> Result<T, ConnectionError>,
) -> Result<T, LoadFailure> {
    match timeout(limit, action(worker)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ConnectionError::Closed)) => Err(died(worker, deadline).await),
        Ok(Err(error)) => Err(LoadFailure::new(error.to_string())),
        Err(_) => Err(LoadFailure::new(format!(
            "the `{deadline}` deadline of {} ms passed",
            limit.as_millis()
        ))),
    }
}

async fn died(worker: &mut Worker, deadline: &str) -> LoadFailure {
    let exit = match timeout(GUARD_SLACK, worker.process.exited()).await {
        Ok(Some(report)) => report.to_string(),
        _ => "closed its connection".to_owned(),
    };
    let during = if deadline == "load" {
        "loading the model"
    } else {
        deadline
    };
    with_printed_reason(worker, format!("the worker {exit} while {during}")).await
}

async fn unexpected(worker: &mut Worker, event: Event) -> LoadFailure {
    let reason = match event {
        Event::LoadFailed { reason } => reason,
        Event::DeadlinePassed {
            deadline,
            limit,
            call,
        } => format!(
            "the `{deadline}` deadline of {} ms passed in {call}",
            limit.as_millis()
        ),
        other => format!("the worker sent something unexpected while loading: {other:?}"),
    };
    with_printed_reason(worker, reason).await
}

/// A load prints no user's text, so its error line may be shown.
async fn with_printed_reason(worker: &Worker, reason: String) -> LoadFailure {
    let lines = worker.lines.take().await;
    LoadFailure {
        reason: match runtime_lines::first_error(&lines) {
            Some(line) => format!("{reason}; the runtime said: {line}"),
            None => reason,
        },
        context_limit: runtime_lines::context_limit(&lines),
    }
}
