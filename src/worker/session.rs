//! The main thread: starts calls on the other two, times them, and reports what comes of them.
//!
//! ```text
//!  WaitingForLoad ─► Opening ─► Loading ─► Ready ◄─► Running ─► Counting (KV size) ─┐
//!                                            ▲ └──► Unloading ─► exit               │
//!                                            └──────────────────────────────────────┘
//!  Ready ◄─► Calling: a call of the vendor's API that is no run
//!  the deadline of a stage passed ─► report, exit
//!  that of a control call ─► tainted: no control call any more, the run goes on
//! ```
//!
//! Once tainted always tainted: the daemon ends a tainted worker when it has no run.

mod call_steps;
mod run_steps;

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rkllm_sys::CallError;

use super::active_run::ActiveRun;
use super::control_calls::ControlCalls;
use super::control_thread::{self, ControlReply};
use super::event_writer::EventWriter;
use super::npu_thread::{self, LoadedModel, NpuTask, RunReturned};
use super::process_setup;
use super::prompt_count::PromptCounter;
use super::timing::{CallTimes, CallTiming, Due, Passed, Times, Wake};
use crate::ipc::{
    Command, EXIT_DEADLINE, EXIT_LOAD_FAILED, Event, LibraryFacts, LoadSpec, LoadWatch,
    WorkerDeadlines,
};
use crate::library_calls::{CallFailure, Outcome};
use crate::process_figures;
use call_steps::load_failed;

/// Longest sleep when nothing is timed.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// What the other threads tell the main thread.
pub enum Note {
    Command(Command),
    DaemonGone,
    LibraryOpened(LibraryFacts),
    Loaded(anyhow::Result<LoadedModel>),
    InputCounted {
        run: u64,
        tokens: u32,
    },
    FirstToken {
        run: u64,
    },
    RunReturned(Box<RunReturned>),
    Control(ControlReply),
    Unloaded(Result<(), CallError>),
    CallReturned {
        id: u64,
        result: Result<Outcome, CallFailure>,
    },
    Described(anyhow::Result<LibraryFacts>),
}

enum Stage {
    WaitingForLoad,
    Opening {
        since: Instant,
    },
    Loading {
        watch: LoadWatch,
        last_look: Instant,
    },
    Ready,
    Running(Box<ActiveRun>),
    /// A call that is no run.
    Calling(CallTiming),
    Unloading {
        since: Instant,
    },
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
    control: ControlCalls,
    stage: Stage,
    loaded: Option<Loaded>,
    prompt_counter: PromptCounter,
    last_heartbeat: Instant,
    /// A control call hung or a run failed.
    tainted: bool,
    /// What the daemon must be told of it and could not, because the queue was full.
    untold: Option<Event>,
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
            control: ControlCalls::default(),
            stage: Stage::WaitingForLoad,
            loaded: None,
            prompt_counter: PromptCounter::default(),
            last_heartbeat: Instant::now(),
            tainted: false,
            untold: None,
        })
    }

    /// Never returns normally: the process ends here, without exit handlers, because the library's
    /// threads and destructors cannot be trusted to end.
    pub fn run(mut self) -> ExitCode {
        loop {
            let wait = self.next_wake().map_or(IDLE_WAIT, |wake| {
                wake.at.saturating_duration_since(Instant::now())
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
                    if let Some(wake) = self.next_wake()
                        && wake.at <= Instant::now()
                    {
                        self.wake(wake.due);
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
            Note::Command(Command::Abort { run, mode }) => {
                if let Some(active) = self.active(run) {
                    active.request_abort(mode);
                }
            }
            Note::Command(Command::Unload) => self.unload(),
            Note::Command(Command::RawRun(spec)) => self.start_raw_run(spec),
            Note::Command(Command::Call(spec)) => self.start_call(spec),
            Note::Command(Command::Ask { id, question }) => self.ask(id, question),
            Note::Command(Command::Describe {
                library,
                assume_family,
                deadlines,
            }) => self.describe(library, assume_family, *deadlines),
            Note::CallReturned { id, result } => self.call_returned(id, result),
            Note::Described(result) => self.described(result),
            Note::DaemonGone => process_setup::exit_now(0),
            Note::LibraryOpened(facts) => {
                self.events.send(Event::LibraryOpened(facts));
                self.begin_load_watch();
            }
            Note::Loaded(result) => self.model_loaded(result),
            Note::InputCounted { run, tokens } => {
                if let Some(active) = self.active(run) {
                    active.input_tokens = Some(tokens);
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

    fn begin_load_watch(&mut self) {
        let Some(loaded) = &self.loaded else { return };
        let now = Instant::now();
        self.stage = Stage::Loading {
            watch: LoadWatch::begin(
                loaded.deadlines.load,
                now,
                process_figures::load_figures(std::process::id()),
            ),
            last_look: now,
        };
    }

    /// Looks whether the load has got on.
    fn look_at_load(&mut self) {
        if let Stage::Loading { watch, last_look } = &mut self.stage {
            *last_look = Instant::now();
            watch.observe(
                *last_look,
                process_figures::load_figures(std::process::id()),
            );
        }
    }

    fn model_loaded(&mut self, result: anyhow::Result<LoadedModel>) {
        let started = result.and_then(|model| {
            let thread = control_thread::start(model.control, self.notes.clone())?;
            self.control = ControlCalls::on_thread(thread);
            Ok(model.per_run_parameters)
        });
        match started {
            Ok(per_run_parameters) => {
                self.stage = Stage::Ready;
                self.events.send(Event::Loaded { per_run_parameters });
            }
            Err(error) => {
                self.events.send(load_failed(error));
                self.events.flush();
                process_setup::exit_now(EXIT_LOAD_FAILED);
            }
        }
    }

    fn unload(&mut self) {
        if self.tainted && !self.control.can_be_made() {
            // Destroying waits for the call that hangs; the process's end frees the model too.
            self.events.flush();
            process_setup::exit_now(0);
        }
        self.stage = Stage::Unloading {
            since: Instant::now(),
        };
        self.npu_task(NpuTask::Unload);
    }

    fn next_wake(&self) -> Option<Wake> {
        let deadlines = &self.loaded.as_ref()?.deadlines;
        let call = match &self.stage {
            Stage::WaitingForLoad | Stage::Ready => CallTimes::Idle,
            Stage::Opening { since } => CallTimes::Opening { since: *since },
            Stage::Loading { watch, last_look } => CallTimes::Loading {
                watch: *watch,
                last_look: *last_look,
            },
            Stage::Calling(call) => CallTimes::Calling(*call),
            Stage::Unloading { since } => CallTimes::Unloading { since: *since },
            Stage::Running(active) => active.times(deadlines, self.control.can_be_made()),
        };
        let times = Times {
            call,
            control: self.control.current(),
            last_heartbeat: self.last_heartbeat,
        };
        times.next_wake(deadlines, Instant::now())
    }

    fn wake(&mut self, due: Due) {
        match due {
            Due::Heartbeat => self.heartbeat(),
            Due::LookAtLoad => self.look_at_load(),
            Due::AbortFromOutside => self.abort_from_outside(),
            Due::ControlHangs(passed) => self.taint(&passed),
            Due::Deadline(_) => {
                // A load may have got on since it was last looked at.
                self.look_at_load();
                if let Some(Wake {
                    at,
                    due: Due::Deadline(passed),
                }) = self.next_wake()
                    && at <= Instant::now()
                {
                    self.end_by(&passed);
                }
            }
        }
    }

    /// Shows the daemon that this thread is scheduled, unless a token has just done so.
    fn heartbeat(&mut self) {
        self.last_heartbeat = Instant::now();
        if let Some(event) = self.untold.take() {
            self.untold = self.events.try_send(event).err();
        } else {
            self.events.heartbeat();
        }
    }

    /// A control call hangs, and its thread with it. A run that goes on is left alone.
    fn taint(&mut self, passed: &Passed) {
        report(passed);
        self.tainted = true;
        self.control.give_up();
        let event = Event::Tainted {
            deadline: passed.deadline.to_owned(),
            limit: passed.limit,
            call: passed.call.to_owned(),
        };
        self.untold = self.events.try_send(event).err();
        if let Stage::Running(active) = &self.stage
            && active.returned.is_some()
        {
            self.end_run(None);
        }
    }

    /// A call on the NPU thread hangs: only the process's end stops it.
    fn end_by(&self, passed: &Passed) -> ! {
        report(passed);
        // With a full queue the daemon learns it from the exit code and the line above.
        let _ = self.events.try_send(Event::DeadlinePassed {
            deadline: passed.deadline.to_owned(),
            limit: passed.limit,
            call: passed.call.to_owned(),
        });
        self.events.flush();
        process_setup::exit_now(EXIT_DEADLINE)
    }

    fn active(&mut self, run: u64) -> Option<&mut ActiveRun> {
        match &mut self.stage {
            Stage::Running(active) if active.run == run => Some(active),
            _ => None,
        }
    }

    fn npu_task(&self, task: NpuTask) {
        // The thread ends only with the process or by a panic, which has been printed.
        if self.npu.send(task).is_err() {
            process_setup::exit_now(1);
        }
    }
}

fn report(passed: &Passed) {
    eprintln!(
        "E rkllmd-worker: the `{}` deadline of {} ms passed in {}",
        passed.deadline,
        passed.limit.as_millis(),
        passed.call
    );
}
