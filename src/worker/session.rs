//! The main thread: starts calls on the other two, times them, and reports what comes of them.
//!
//! ```text
//!  WaitingForLoad ─► Opening ─► Loading ─► Ready ◄─► Running ─► Counting (KV size) ─┐
//!                                            ▲ └──► Unloading ─► exit               │
//!                                            └──────────────────────────────────────┘
//!  any deadline passed ─► report, exit
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rkllm_sys::CallError;

use super::active_run::{AbortRequest, ActiveRun, Expired, Expiry, outcome};
use super::control_thread::{self, ControlCall, ControlReply, KvPurpose};
use super::event_writer::EventWriter;
use super::npu_thread::{self, LoadedModel, NpuTask, RunReturned};
use super::process_setup;
use super::prompt_count::{PromptCounter, RunCounts};
use super::run_progress::RunProgress;
use crate::ipc::{
    AbortMode, Command, EXIT_DEADLINE, Event, LibraryFacts, LoadSpec, PerfFigures, RunEnd, RunSpec,
    WorkerDeadlines,
};

/// An abort is repeated this often until the run has come back.
const ABORT_REPEAT: Duration = Duration::from_millis(250);
/// Tokens of the context that stay unused: some releases take four of it for themselves
/// (`prompt: 1299 tokens, max context: 1020` with 1024).
const CONTEXT_RESERVE_TOKENS: u32 = 4;
/// Longest sleep when nothing is timed.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// What the other threads tell the main thread.
pub enum Note {
    Command(Command),
    DaemonGone,
    LibraryOpened(LibraryFacts),
    Loaded(anyhow::Result<LoadedModel>),
    PromptCounted { run: u64, tokens: u32 },
    FirstToken { run: u64 },
    RunReturned(Box<RunReturned>),
    Control(ControlReply),
    Unloaded(Result<(), CallError>),
}

/// How many tokens a run may still make when `used` tokens are in the context. At least one, so
/// that a run always ends by itself.
pub fn budget_left(context_length: u32, used: u32) -> u32 {
    context_length
        .saturating_sub(CONTEXT_RESERVE_TOKENS)
        .saturating_sub(used)
        .max(1)
}

enum Stage {
    WaitingForLoad,
    Opening { since: Instant },
    Loading { since: Instant },
    Ready,
    Running(Box<ActiveRun>),
    Unloading { since: Instant },
}

/// Whether the worker can be used after a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkerAfter {
    GoesOn,
    Ends,
}

/// What is known from `Load` on.
struct Loaded {
    deadlines: WorkerDeadlines,
    context_length: u32,
    default_max_new_tokens: Option<u32>,
}

pub struct Session {
    inbox: Receiver<Note>,
    notes: Sender<Note>,
    events: EventWriter,
    npu: Sender<NpuTask>,
    control: Option<Sender<ControlCall>>,
    control_calls: Vec<(ControlCall, Instant)>,
    stage: Stage,
    loaded: Option<Loaded>,
    prompt_counter: PromptCounter,
}

impl Session {
    pub fn new(
        notes: Sender<Note>,
        inbox: Receiver<Note>,
        events: EventWriter,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            npu: npu_thread::start(notes.clone(), events.clone())?,
            inbox,
            notes,
            events,
            control: None,
            control_calls: Vec::new(),
            stage: Stage::WaitingForLoad,
            loaded: None,
            prompt_counter: PromptCounter::default(),
        })
    }

    /// Never returns normally: the process ends here, without exit handlers, because the library's
    /// threads and destructors cannot be trusted to end.
    pub fn run(mut self) -> ExitCode {
        loop {
            let wait = self.next_expiry().map_or(IDLE_WAIT, |expiry| {
                expiry.at.saturating_duration_since(Instant::now())
            });
            match self.inbox.recv_timeout(wait) {
                Ok(note) => self.handle(note),
                Err(RecvTimeoutError::Timeout) => {
                    // This thread may have been late: a note that is here is newer than the clock.
                    if let Ok(note) = self.inbox.try_recv() {
                        self.handle(note);
                        continue;
                    }
                    // Tokens move the deadline without a note, so it is looked at again.
                    if let Some(expiry) = self.next_expiry()
                        && expiry.at <= Instant::now()
                    {
                        self.expired(expiry.what);
                    }
                }
                // Impossible while `self.notes` lives.
                Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
            }
        }
    }

    fn handle(&mut self, note: Note) {
        match note {
            Note::Command(Command::Load(spec)) => self.load(spec),
            Note::Command(Command::Run(spec)) => self.start_run(spec),
            Note::Command(Command::Abort { run, mode }) => self.abort(run, mode),
            Note::Command(Command::Unload) => self.unload(),
            Note::DaemonGone => process_setup::exit_now(0),
            Note::LibraryOpened(facts) => {
                self.events.send(Event::LibraryOpened(facts));
                self.stage = Stage::Loading {
                    since: Instant::now(),
                };
            }
            Note::Loaded(result) => self.model_loaded(result),
            Note::PromptCounted { run, tokens } => {
                if let Some(active) = self.active(run) {
                    active.prompt_tokens = Some(tokens);
                }
            }
            Note::FirstToken { run } => self.ask_context_left(run),
            Note::RunReturned(returned) => self.run_returned(returned),
            Note::Control(reply) => self.control_replied(reply),
            Note::Unloaded(result) => {
                if let Err(error) = result {
                    eprintln!("W rkllmd-worker: unloading: {error}");
                }
                self.events.flush();
                process_setup::exit_now(0)
            }
        }
    }

    fn load(&mut self, spec: Box<LoadSpec>) {
        if !matches!(self.stage, Stage::WaitingForLoad) {
            eprintln!("W rkllmd-worker: a second load was asked for");
            return;
        }
        self.loaded = Some(Loaded {
            deadlines: spec.deadlines,
            context_length: spec.context_length,
            default_max_new_tokens: spec.max_new_tokens,
        });
        self.stage = Stage::Opening {
            since: Instant::now(),
        };
        self.npu_task(NpuTask::Load(spec));
    }

    fn model_loaded(&mut self, result: anyhow::Result<LoadedModel>) {
        let started = result.and_then(|model| {
            self.control = Some(control_thread::start(model.control, self.notes.clone())?);
            Ok(model.per_run_parameters)
        });
        match started {
            Ok(per_run_parameters) => {
                self.stage = Stage::Ready;
                self.events.send(Event::Loaded { per_run_parameters });
            }
            Err(error) => {
                let reason = format!("{error:#}");
                self.events.send(Event::LoadFailed { reason });
                self.events.flush();
                process_setup::exit_now(1);
            }
        }
    }

    fn start_run(&mut self, spec: Box<RunSpec>) {
        let (Stage::Ready, Some(loaded)) = (&self.stage, &self.loaded) else {
            eprintln!("W rkllmd-worker: a run was asked for while none can start");
            return;
        };
        let most = budget_left(loaded.context_length, 1);
        let wanted = spec
            .max_new_tokens
            .or(loaded.default_max_new_tokens)
            .unwrap_or(most);
        let progress = Arc::new(RunProgress::new(wanted.clamp(1, most)));
        self.stage = Stage::Running(Box::new(ActiveRun {
            run: spec.run,
            prompt_bytes: spec.prompt.len(),
            prefill_per_token: spec.prefill_per_token,
            prompt_tokens: None,
            progress: Arc::clone(&progress),
            abort: None,
            returned: None,
        }));
        let empty_cache = self.prompt_counter.wants_empty_cache();
        self.npu_task(NpuTask::Run {
            spec,
            progress,
            empty_cache,
        });
    }

    fn abort(&mut self, run: u64, mode: AbortMode) {
        let Some(active) = self.active(run) else {
            return;
        };
        active.progress.request_abort();
        let now = Instant::now();
        let patience = match mode {
            AbortMode::AtOnce => Duration::ZERO,
            AbortMode::BetweenTokens => active.progress.two_intervals(),
        };
        active.abort = Some(AbortRequest {
            at: now,
            from_outside: false,
            next_outside: now + patience,
        });
    }

    /// Tells the library to abort, again and again until the run has come back: a call that
    /// reaches it just before it counts itself as running does nothing.
    fn abort_from_outside(&mut self) {
        let Stage::Running(active) = &mut self.stage else {
            return;
        };
        let Some(abort) = &mut active.abort else {
            return;
        };
        abort.from_outside = true;
        abort.next_outside = Instant::now() + ABORT_REPEAT;
        let call = ControlCall::Abort { run: active.run };
        if !self.is_outstanding(call) {
            self.control_call(call);
        }
    }

    fn unload(&mut self) {
        self.stage = Stage::Unloading {
            since: Instant::now(),
        };
        self.npu_task(NpuTask::Unload);
    }

    /// Without a tokenizer the context's use is known only once the prompt is in it.
    fn ask_context_left(&mut self, run: u64) {
        let Some(active) = self
            .active(run)
            .filter(|active| active.prompt_tokens.is_none())
        else {
            return;
        };
        let tokens_before = active.progress.tokens();
        let purpose = KvPurpose::ContextLeft { tokens_before };
        self.control_call(ControlCall::KvCacheSize { run, purpose });
    }

    fn run_returned(&mut self, returned: Box<RunReturned>) {
        if returned.cache_emptied {
            self.prompt_counter.cache_emptied();
        }
        let run = returned.run;
        if let Some(active) = self.active(run) {
            active.returned = Some(returned);
            self.conclude(run);
        }
    }

    /// Ends a run that has come back, once nothing that was asked for it is outstanding: an abort
    /// that is still on its way would hit the next run.
    fn conclude(&mut self, run: u64) {
        if self.is_outstanding(ControlCall::Abort { run }) {
            return;
        }
        let Some(active) = self.active(run) else {
            return;
        };
        if active.is_countable() {
            let purpose = KvPurpose::PromptCount;
            self.control_call(ControlCall::KvCacheSize { run, purpose });
        } else if active.returned.is_some() {
            self.end_run(None, WorkerAfter::GoesOn);
        }
    }

    fn control_replied(&mut self, reply: ControlReply) {
        self.control_calls.retain(|(call, _)| *call != reply.call);
        let size = match reply.result {
            Ok(size) => size,
            Err(error) => {
                eprintln!("W rkllmd-worker: {error}");
                None
            }
        };
        let (run, purpose) = match reply.call {
            ControlCall::Abort { run } => return self.conclude(run),
            ControlCall::KvCacheSize { run, purpose } => (run, purpose),
        };
        let context_length = self
            .loaded
            .as_ref()
            .map_or(0, |loaded| loaded.context_length);
        let Some(active) = self.active(run) else {
            return;
        };
        match purpose {
            KvPurpose::ContextLeft { tokens_before } => {
                // Tokens made since the question are in the size and in the count to come, so the
                // limit errs on the early side.
                if let Some(used) = size {
                    let left = budget_left(context_length, used);
                    active
                        .progress
                        .lower_limit(tokens_before.saturating_add(left));
                }
            }
            KvPurpose::PromptCount => self.end_run(size, WorkerAfter::GoesOn),
        }
    }

    fn end_run(&mut self, kv_cache: Option<u32>, after: WorkerAfter) {
        let Stage::Running(active) = std::mem::replace(&mut self.stage, Stage::Ready) else {
            return;
        };
        let Some(returned) = active.returned else {
            return;
        };
        let perf = returned.record.perf.and_then(|perf| {
            Some(PerfFigures {
                prefill_ms: perf.prefill_time_ms,
                prefill_tokens: u32::try_from(perf.prefill_tokens).ok()?,
                generate_ms: perf.generate_time_ms,
                generate_tokens: u32::try_from(perf.generate_tokens).ok()?,
                memory_mb: perf.memory_usage_mb,
            })
        });
        let generated = active.progress.tokens();
        let prefilled = perf.map(|perf| perf.prefill_tokens);
        let (prompt_tokens, cached_prompt_tokens) = match returned.prompt_tokens {
            Some(total) => {
                let cached = prefilled.and_then(|n| self.prompt_counter.cached(total, n));
                (Some(total), cached)
            }
            None => {
                let counts = kv_cache
                    .zip(prefilled)
                    .map(|(kv_cache, prefilled)| RunCounts {
                        kv_cache,
                        generated: generated + returned.record.dropped_tokens,
                        prefilled,
                    });
                let prompt = self.prompt_counter.count(counts);
                (
                    prompt.map(|prompt| prompt.total),
                    prompt.and_then(|prompt| prompt.cached),
                )
            }
        };
        let outcome = outcome(&returned, active.abort.is_some(), generated);
        let ended = Event::RunEnded(Box::new(RunEnd {
            run: active.run,
            outcome,
            generated_tokens: generated,
            prompt_tokens,
            cached_prompt_tokens,
            perf,
            tokenizer_agrees: None,
            tainted: after == WorkerAfter::Ends,
        }));
        match after {
            WorkerAfter::GoesOn => self.events.send(ended),
            // The process is about to end: it must not wait for a reader.
            WorkerAfter::Ends => drop(self.events.try_send(ended)),
        }
    }

    fn next_expiry(&self) -> Option<Expiry> {
        let deadlines = &self.loaded.as_ref()?.deadlines;
        let deadline = |name, since: Instant, limit, call| Expiry {
            at: since + limit,
            what: Expired::Deadline { name, limit, call },
        };
        let stage = match &self.stage {
            Stage::WaitingForLoad | Stage::Ready => None,
            Stage::Opening { since } => Some(deadline(
                "library-open",
                *since,
                deadlines.library_open,
                "opening the library",
            )),
            Stage::Loading { since } => Some(deadline(
                "load",
                *since,
                deadlines.load.granted,
                "rkllm_init",
            )),
            Stage::Unloading { since } => Some(deadline(
                "unload",
                *since,
                deadlines.unload,
                "rkllm_destroy",
            )),
            Stage::Running(active) => active.next_expiry(deadlines),
        };
        let control = self.control_calls.first().map(|(call, since)| {
            deadline("control-call", *since, deadlines.control_call, call.name())
        });
        stage
            .into_iter()
            .chain(control)
            .min_by_key(|expiry| expiry.at)
    }

    fn expired(&mut self, what: Expired) {
        match what {
            Expired::AbortFromOutside => self.abort_from_outside(),
            Expired::Deadline { name, limit, call } => {
                eprintln!(
                    "E rkllmd-worker: the `{name}` deadline of {} ms passed in {call}",
                    limit.as_millis()
                );
                if let Stage::Running(active) = &self.stage
                    && active.returned.is_some()
                {
                    self.end_run(None, WorkerAfter::Ends);
                }
                // With a full queue the daemon learns it from the exit code and the line above.
                let _ = self.events.try_send(Event::DeadlinePassed {
                    deadline: name.to_owned(),
                    limit,
                    call: call.to_owned(),
                });
                self.events.flush();
                process_setup::exit_now(EXIT_DEADLINE);
            }
        }
    }

    fn is_outstanding(&self, call: ControlCall) -> bool {
        self.control_calls.iter().any(|(made, _)| *made == call)
    }

    fn active(&mut self, run: u64) -> Option<&mut ActiveRun> {
        match &mut self.stage {
            Stage::Running(active) if active.run == run => Some(active),
            _ => None,
        }
    }

    fn control_call(&mut self, call: ControlCall) {
        if let Some(control) = &self.control
            && control.send(call).is_ok()
        {
            self.control_calls.push((call, Instant::now()));
        }
    }

    fn npu_task(&self, task: NpuTask) {
        // The thread ends only with the process or by a panic, which has been printed.
        if self.npu.send(task).is_err() {
            process_setup::exit_now(1);
        }
    }
}
