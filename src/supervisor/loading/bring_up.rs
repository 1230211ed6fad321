//! What a process is told that was started for a model, and what it answers, up to the loaded model.

use tokio::time::timeout;

use super::Loader;
use crate::children::{Child, ChildProcess};
use crate::generation::{Deadline, RunExtensions};
use crate::ipc::{Command, Event, Handles, LoadSpec};
use crate::library_calls::Param;
use crate::supervisor::load_failure::{LoadFailure, connection_failed, unexpected};
use crate::supervisor::load_guard::LoadGuard;
use crate::supervisor::{Phase, RuntimeFacts, WorkerKind, adapters, runtime_lines};

impl Loader {
    /// Brings a process that was started to a loaded model.
    pub(super) async fn bring_up(
        &self,
        worker: &mut Child<WorkerKind>,
        spec: LoadSpec,
        report: &impl Fn(Phase, Option<&ChildProcess>),
    ) -> Result<RuntimeFacts, LoadFailure> {
        let pid = worker.process.pid;
        let spawn = self.deadlines.spawn;
        match timeout(spawn, worker.connection.handshake()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(connection_failed(worker, error, "starting").await),
            Err(_) => return Err(LoadFailure::deadline(Deadline::Spawn, spawn)),
        }
        report(Phase::OpeningLibrary, Some(&worker.process));
        worker.process.set_activity(0, Some("dlopen"), None);
        let limits = spec.deadlines.load;
        let mut facts = RuntimeFacts {
            context_length: match &spec.handles {
                Handles::OfRequests(handles) => Some(handles.context_length),
                Handles::OfClient(param) => context_of(param),
            },
            slots: Some(spec.handles.count()),
            pool_tokens: match &spec.handles {
                Handles::OfRequests(handles) => handles.pool_tokens,
                Handles::OfClient(_) => None,
            },
            is_batch: spec.handles.is_batch(),
            ..RuntimeFacts::default()
        };
        let limit = self.deadlines.library_open;
        let command = Command::Load(Box::new(spec));
        // A client's parameters may be larger than what a worker takes without reading.
        match timeout(limit, worker.connection.send(&command)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(connection_failed(worker, error, "opening the library").await);
            }
            Err(_) => return Err(LoadFailure::deadline(Deadline::LibraryOpen, limit)),
        }
        let mut guard = LoadGuard::fixed(Deadline::LibraryOpen, limit, self.deadlines.heartbeat);
        match self
            .next_event(worker, &mut guard, "opening the library")
            .await?
        {
            Event::LibraryOpened(library) => {
                facts.library_path = Some(library.path.display().to_string());
                facts.library_version = Some(library.version);
                facts.abi_family = Some(library.family);
                // What a client's parameters leave out is the library's.
                facts.context_length = facts.context_length.or(context_of(&library.defaults));
            }
            // What is wrong with a library stays wrong.
            event => return Err(unexpected(worker, event, true).await),
        }
        report(Phase::Loading, Some(&worker.process));
        worker.process.set_activity(0, Some("rkllm_init"), None);
        let mut guard = LoadGuard::following(Deadline::Load, limits, self.deadlines.heartbeat, pid);
        let mut adapter = None;
        loop {
            let told = self.next_event(worker, &mut guard, "loading the model");
            let failure = match told.await {
                Ok(Event::LoadsAdapter { name }) => {
                    let call = name.as_ref().map_or("rkllm_init", |_| "rkllm_load_lora");
                    worker.process.set_activity(0, Some(call), None);
                    adapter = name;
                    continue;
                }
                Ok(Event::Loaded {
                    per_run_parameters,
                    run_extensions,
                    model_file,
                    unusable_adapters,
                }) => {
                    facts.per_run_parameters = Some(per_run_parameters);
                    // Runs of several sequences take none of it.
                    facts.run_extensions = Some(match facts.is_batch {
                        true => RunExtensions::None,
                        false => run_extensions,
                    });
                    tell_of_an_older_runtime(run_extensions, &facts);
                    facts.model_file = model_file;
                    facts.unusable_adapters = unusable_adapters;
                    break;
                }
                Ok(event) => unexpected(worker, event, false).await,
                Err(failure) => failure,
            };
            return Err(LoadFailure { adapter, ..failure });
        }
        let lines = worker.lines.take().await;
        runtime_lines::read_facts(&lines, &mut facts);
        adapters::explain(&mut facts.unusable_adapters, &lines);
        Ok(facts)
    }

    /// The next event that tells how the load goes, under the daemon's own guard.
    async fn next_event(
        &self,
        worker: &mut Child<WorkerKind>,
        guard: &mut LoadGuard,
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
}

/// What is asked of it and cannot be done is refused or named; who runs it learns here why.
fn tell_of_an_older_runtime(known: RunExtensions, facts: &RuntimeFacts) {
    let lacks = match known {
        // No library of the vendor takes any of it.
        RunExtensions::None | RunExtensions::Deterministic => return,
        RunExtensions::Draws => "log probabilities, `min_tokens`, `ignore_eos` and `deterministic`",
        RunExtensions::Logprobs => "`deterministic`",
    };
    tracing::warn!(
        library = facts.library_path,
        lacks,
        "the CPU runtime is older than this daemon, and does less than it could ask for"
    );
}

/// The tokens that a handle with these parameters takes, where they tell.
fn context_of(param: &Param) -> Option<u32> {
    let tokens = u32::try_from(param.max_context_len?).ok()?;
    (tokens > 0).then_some(tokens)
}
