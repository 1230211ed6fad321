//! From nothing to a loaded worker: start the process, shake hands, open the library, load the
//! model. Each step has its deadline; a step that fails ends the process before it is reported, so
//! a failed load leaves nothing behind.

mod bring_up;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::WorkerKind;
use super::adapters;
use super::cpu_runtime::{self, NotFound};
use super::link;
use super::load_failure::LoadFailure;
use super::memory_limits::Beside;
use super::prefixes::Hatch;
use super::walls::Walls;
use super::worker::{LoadedWorker, Worker};
use super::{Phase, RunDeadlines};
use crate::children::{
    Child, ChildProcess, ConnectionError, EndReason, Host, ProcessEvent, Watched,
};
use crate::generation::Deadline;
use crate::ipc::{
    Command, Event, Handles, LibraryFacts, LoadSpec, RequestHandles, WorkerDeadlines,
};
use crate::library_calls::Param;
use crate::models::{InstalledModel, ModelKind, SlotLimits, SlotPlan};
use crate::settings::{DeadlineSettings, RuntimeSettings};
use crate::telemetry::Metrics;

/// The daemon's own guard lies this much behind the worker's, so that the worker, which knows
/// more, speaks first.
pub const GUARD_SLACK: Duration = Duration::from_secs(3);
/// A load is tried this often with the context limit the runtime told.
const CONTEXT_ATTEMPTS: u32 = 2;
const GIB: u64 = 1 << 30;

/// What is to be loaded, beside the model itself.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// For requests.
    pub context_tokens: u32,
    /// A client's own handle; `None`: for requests.
    pub raw: Option<&'a Param>,
    /// What slots may have.
    pub limits: SlotLimits,
}

/// What every load of this daemon needs.
#[derive(Clone, Debug)]
pub struct Loader {
    pub host: Host<WorkerKind>,
    /// What is not left for workers.
    pub beside: Beside,
    pub runtime: RuntimeSettings,
    pub deadlines: DeadlineSettings,
    pub run_deadlines: RunDeadlines,
    /// Slots of a worker whose model does not say.
    pub parallel: u8,
    /// Contexts that the slots of a model have room for together, where they share it.
    pub pool_contexts: u8,
    /// How long requests come behind what a model pins; 0: not at all.
    pub pinned_first: Duration,
    /// What workers are confined to.
    pub walls: Walls,
    pub metrics: Metrics,
}

impl Loader {
    /// Loads `model`, telling `report` each phase and the process. `on_event` hears of every
    /// process, also of those of attempts that failed.
    pub async fn load(
        &self,
        model: Arc<InstalledModel>,
        mut wanted: Wanted<'_>,
        report: impl Fn(Phase, Option<&ChildProcess>),
        on_event: impl Fn(u32, ProcessEvent) + Send + Sync + Clone + 'static,
    ) -> Result<LoadedWorker, LoadFailure> {
        let mut contexts = 1;
        let mut unusable = BTreeMap::new();
        loop {
            let how = (wanted, &unusable);
            let attempted = self.attempt(&model, how, &report, on_event.clone()).await;
            match attempted {
                // It is none of the model's failures.
                Err(LoadFailure {
                    adapter: Some(adapter),
                    reason,
                    ..
                }) if adapters::is_to_load(&model, &unusable, &adapter) => {
                    tracing::error!(
                        model = &*model.id,
                        adapter,
                        reason,
                        "loading again without an adapter"
                    );
                    unusable.insert(adapter, reason);
                }
                Err(failure)
                    if contexts < CONTEXT_ATTEMPTS
                        && model.facts.context_length.is_none()
                        && wanted.raw.is_none() =>
                {
                    let Some(limit) = failure
                        .context_limit
                        .filter(|&limit| limit < wanted.context_tokens)
                    else {
                        return Err(failure);
                    };
                    tracing::info!(
                        model = &*model.id,
                        limit,
                        "loading again with the model's context limit"
                    );
                    contexts += 1;
                    wanted.context_tokens = limit;
                }
                result => return result,
            }
        }
    }

    async fn child(
        &self,
        model: Arc<str>,
        variables: Vec<(&'static str, String)>,
        on_event: impl Fn(u32, ProcessEvent) + Send + Sync + 'static,
    ) -> Result<Child<WorkerKind>, LoadFailure> {
        let watched = Watched {
            model,
            variables,
            kill_wait: self.deadlines.kill,
        };
        timeout(self.deadlines.spawn, self.host.child(watched, on_event))
            .await
            .map_err(|_| LoadFailure::deadline(Deadline::Spawn, self.deadlines.spawn))?
            .map_err(|error| LoadFailure::new(format!("starting a worker process: {error}")))
    }

    async fn attempt(
        &self,
        model: &Arc<InstalledModel>,
        (wanted, unusable): (Wanted<'_>, &BTreeMap<String, String>),
        report: &impl Fn(Phase, Option<&ChildProcess>),
        on_event: impl Fn(u32, ProcessEvent) + Send + Sync + 'static,
    ) -> Result<LoadedWorker, LoadFailure> {
        let library = self.library_for(model.facts.kind).await?;
        report(Phase::Spawning, None);
        let (spec, hatch) = self.load_spec(model, library, (wanted, unusable));
        let mut child = self
            .child(model.id.clone(), shared_memory(&spec), on_event)
            .await?;
        report(Phase::Spawning, Some(&child.process));
        let slots = spec.handles.count();
        match self.bring_up(&mut child, spec, report).await {
            Ok(mut facts) => {
                for (adapter, reason) in &facts.unusable_adapters {
                    let model = &*model.id;
                    tracing::error!(model, adapter, reason, "an adapter was not loaded");
                }
                facts.unusable_adapters.extend(unusable.clone());
                let Child {
                    process,
                    connection,
                    lines,
                } = child;
                process.set_activity(0, None, None);
                let mut worker = Worker::new(
                    Arc::clone(model),
                    process,
                    lines,
                    Arc::new(facts),
                    self.run_deadlines,
                    slots,
                );
                worker.hatch = hatch.map(Arc::new);
                Ok(LoadedWorker::new(worker, link::start(connection, slots)))
            }
            Err(failure) => {
                if let EndReason::Deadline(name) = failure.end {
                    self.metrics.deadline_passed(name);
                }
                child.process.kill_and_wait(failure.end).await;
                Err(failure)
            }
        }
    }

    /// Opens the library for models of `kind` in a process that ends afterwards.
    pub async fn describe(&self, kind: ModelKind) -> Result<LibraryFacts, LoadFailure> {
        let library = self.library_for(kind).await?;
        // Dropping it kills the process, where its client does not wait any more.
        let Child {
            process,
            mut connection,
            ..
        } = self.child("library".into(), Vec::new(), |_, _| {}).await?;
        process.expect_end(EndReason::Unload);
        let command = Command::Describe {
            walls: self.walls.of_library().map(Box::new),
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
            self.metrics.deadline_passed(Deadline::LibraryOpen);
        }
        // The next one is not started beside it.
        let ended = process.kill_and_wait(EndReason::Unload);
        let _ = timeout(self.deadlines.kill, ended).await;
        result.unwrap_or_else(|_| Err(LoadFailure::deadline(Deadline::LibraryOpen, limit)))
    }

    async fn library_for(&self, kind: ModelKind) -> Result<PathBuf, LoadFailure> {
        match kind {
            ModelKind::Rkllm => Ok(self.runtime.npu_library.clone()),
            ModelKind::Gguf => cpu_runtime::find(self.runtime.cpu_library.as_deref())
                .await
                .map_err(|error| match error {
                    NotFound::NotInstalled => LoadFailure::certain(error.to_string()),
                    NotFound::NoAnswer => LoadFailure::new(error.to_string()),
                }),
        }
    }

    /// With the folders that the worker has among the prefixes.
    fn load_spec(
        &self,
        model: &InstalledModel,
        library: PathBuf,
        (wanted, unusable): (Wanted<'_>, &BTreeMap<String, String>),
    ) -> (LoadSpec, Option<Hatch>) {
        let context = wanted.context_tokens;
        let plan = SlotPlan::of(model, context, wanted.limits);
        if wanted.raw.is_none() && plan.slots < plan.parallel {
            tracing::warn!(model = &*model.id, %plan, "memory allows fewer slots than are asked for");
        }
        let handles = match wanted.raw {
            None => Handles::OfRequests(Box::new(RequestHandles {
                count: plan.slots,
                is_batch: plan.is_batch && plan.slots > 1,
                context_length: context,
                pool_tokens: plan.pool_tokens,
                max_new_tokens: model.facts.max_new_tokens,
                sampling: model.facts.sampling,
                cpu_mask: model.facts.cpu_mask,
                base_domain_id: model.facts.base_domain_id,
                eos_ids: model.facts.extra_eos_ids.clone(),
                prints_special_tokens: model.facts.prints_special_tokens,
                adapters: adapters::to_load(model, unusable),
            })),
            Some(param) => Handles::OfClient(Box::new(param.clone())),
        };
        let mut deadlines = WorkerDeadlines::from(&self.deadlines);
        // Each handle reads the files.
        let bytes = model
            .facts
            .size_bytes
            .saturating_add(model.adapters_bytes());
        let bytes = bytes.saturating_mul(handles.copies().into());
        deadlines.load.granted = load_deadline(&self.deadlines, bytes);
        let (walls, hatch) = match wanted.raw {
            None => self.walls.of_requests(),
            Some(_) => (self.walls.of_client(), None),
        };
        let spec = LoadSpec {
            library,
            assume_family: self.runtime.assume_family.clone(),
            model: model.path.clone(),
            shape: model.facts.shape,
            handles,
            deadlines,
            walls,
        };
        (spec, hatch)
    }
}

/// What a library is told that has the handles of a process share their memory. Others take no notice.
fn shared_memory(spec: &LoadSpec) -> Vec<(&'static str, String)> {
    let Handles::OfRequests(handles) = &spec.handles else {
        return Vec::new();
    };
    let Some(pool) = handles.pool_tokens else {
        return Vec::new();
    };
    vec![
        ("RKLLM_CPU_SLOTS", handles.count.to_string()),
        ("RKLLM_CPU_POOL_TOKENS", pool.to_string()),
    ]
}

/// How long reading a file of this size may take.
pub fn load_deadline(deadlines: &DeadlineSettings, size_bytes: u64) -> Duration {
    let per_gib = deadlines.load_per_gib.as_secs_f64();
    deadlines.load_base + Duration::from_secs_f64(per_gib * size_bytes as f64 / GIB as f64)
}
