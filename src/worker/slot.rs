//! One handle of the model: its two threads, and the run or call that goes on there.
//!
//! ```text
//!  Nothing ◄─► Running ─► Counting (KV size) ─► Nothing
//!  Nothing ◄─► Calling: a call of the vendor's API that is no run
//!  the deadline of a run or call passed ─► the whole worker ends
//!  that of a control call ─► no control call any more, the run goes on, and the worker is tainted
//! ```
//!
//! What goes on in one slot waits for nothing of another one.

mod batch_steps;
mod call_steps;
mod run_steps;

use std::sync::mpsc::Sender;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use rkllm_sys::{CallError, ControlHandle, Library};

use super::active_run::ActiveRun;
use super::company::Company;
use super::constrained::SharedTokens;
use super::control_calls::ControlCalls;
use super::control_thread::{self, ControlReply};
use super::event_writer::EventWriter;
use super::npu_thread::{self, LoadedModel, NpuTask, RunReturned};
use super::prompt_count::PromptCounter;
use super::seat::Seat;
use super::slot_events::SlotEvents;
use super::timing::{CallTimes, CallTiming, Passed, Times};
use super::token_sink::EndedBy;
use super::worker_state::Note;
use crate::children::process_setup;
use crate::ipc::{PassedDeadline, RunSpec, SlotCommand, SlotEvent, WorkerDeadlines};
use crate::library_calls::{CallFailure, Outcome};

/// What a slot's threads tell the main thread.
pub enum SlotNote {
    LibraryOpened(anyhow::Result<Arc<Library>>),
    Loaded(anyhow::Result<LoadedModel>),
    InputCounted {
        run: u64,
        tokens: u32,
    },
    /// The first one, or one that was waited for.
    TokenMade {
        run: u64,
    },
    /// The callback takes nothing more of a sequence of a batch, or is to take nothing more.
    Idles {
        run: u64,
        has_ended: bool,
        ended_by: Option<EndedBy>,
    },
    RunReturned(Box<RunReturned>),
    /// Likewise of a sequence of a batch, which its run may have left.
    SequenceReturned {
        seat: Arc<Seat>,
        returned: Box<RunReturned>,
    },
    Control(ControlReply),
    CallReturned {
        id: u64,
        result: Result<Outcome, CallFailure>,
    },
    Destroyed(Result<(), CallError>),
}

/// Where they tell it.
#[derive(Clone)]
pub struct SlotNotes {
    slot: u8,
    notes: Sender<Note>,
}

impl SlotNotes {
    pub fn new(slot: u8, notes: Sender<Note>) -> Self {
        Self { slot, notes }
    }

    pub fn send(&self, note: SlotNote) {
        let slot = self.slot;
        // The main thread ends with the process.
        let _ = self.notes.send(Note::Slot { slot, note });
    }
}

/// What the slots of a worker have in common.
pub struct Common {
    pub deadlines: WorkerDeadlines,
    pub context_length: u32,
    pub default_max_new_tokens: Option<u32>,
    /// Tokens that the slots have room for together, so that a run may wait for others to end; `None`: each has
    /// its own.
    pub pool_tokens: Option<u32>,
    /// They are sequences of one handle.
    pub is_batch: bool,
    /// The model's, once a run has told them.
    pub tokens: Option<Arc<SharedTokens>>,
    /// A control call hung or a run failed, in whichever slot. Once tainted always tainted: the daemon
    /// ends a tainted worker when nothing goes on there.
    pub tainted: bool,
}

impl Common {
    /// For handles that no answers are made with.
    pub fn new(deadlines: WorkerDeadlines) -> Self {
        Self {
            deadlines,
            context_length: 0,
            default_max_new_tokens: None,
            pool_tokens: None,
            is_batch: false,
            tokens: None,
            tainted: false,
        }
    }
}

enum Doing {
    Nothing,
    /// A run whose batch has not begun.
    Gathered(Box<RunSpec>),
    Running(Box<ActiveRun>),
    /// A call that is no run.
    Calling(CallTiming),
}

pub struct Slot {
    notes: SlotNotes,
    events: SlotEvents,
    npu: mpsc::Sender<NpuTask>,
    control: ControlCalls,
    doing: Doing,
    is_loaded: bool,
    /// The call that goes on loads a prompt cache.
    restores: bool,
    prompt_counter: PromptCounter,
    /// What the run before left in the cache, as the library said then; `None`: it was not asked.
    left_in_cache: Option<u32>,
    /// What the daemon must be told of it and could not, because the queue was full.
    untold: Option<SlotEvent>,
}

impl Slot {
    pub fn start(number: u8, notes: &Sender<Note>, events: &EventWriter) -> anyhow::Result<Self> {
        let notes = SlotNotes::new(number, notes.clone());
        let events = SlotEvents::new(number, events.clone());
        Ok(Self {
            npu: npu_thread::start(notes.clone(), events.clone())?,
            notes,
            events,
            control: ControlCalls::default(),
            doing: Doing::Nothing,
            is_loaded: false,
            restores: false,
            prompt_counter: PromptCounter::default(),
            left_in_cache: Some(0),
            untold: None,
        })
    }

    /// Its handle was opened: it can be given commands.
    pub fn loaded(&mut self, model: LoadedModel) -> anyhow::Result<()> {
        self.is_given(model.control, 0)
    }

    /// It has this handle, or a sequence of it.
    pub fn is_given(&mut self, control: ControlHandle, sequence: usize) -> anyhow::Result<()> {
        let thread = control_thread::start(control, sequence, self.notes.clone())?;
        self.control = ControlCalls::on_thread(thread);
        self.is_loaded = true;
        Ok(())
    }

    pub fn command(&mut self, common: &mut Common, command: SlotCommand) {
        match command {
            SlotCommand::Run(spec) if common.is_batch => self.gather(common, spec),
            SlotCommand::Run(spec) => self.start_run(common, spec),
            SlotCommand::RawRun(spec) => self.start_raw_run(common, spec),
            SlotCommand::LibraryCall(spec) => self.start_call(common, spec),
            SlotCommand::Abort { run, mode } => {
                if let Some(active) = self.active(run) {
                    active.request_abort(mode);
                }
            }
            SlotCommand::Credit { run, events } => {
                if let Some(active) = self.active(run) {
                    active.progress.credit.give(events);
                }
            }
            SlotCommand::Ask { id, question } => self.ask(id, question),
        }
    }

    /// Takes in what concerns a run or a call.
    pub fn note(&mut self, common: &mut Common, note: SlotNote) {
        match note {
            SlotNote::InputCounted { run, tokens } => {
                if let Some(active) = self.active(run) {
                    active.input_tokens = Some(tokens);
                }
            }
            SlotNote::TokenMade { run } => self.ask_context_left(run),
            SlotNote::RunReturned(returned) => self.run_returned(common, returned),
            SlotNote::SequenceReturned { seat, returned } => {
                if self.has_seat(&seat) {
                    self.run_returned(common, returned);
                }
            }
            SlotNote::Control(reply) => self.control_replied(common, reply),
            SlotNote::CallReturned { id, result } => self.call_returned(id, result),
            // The worker's.
            SlotNote::Idles { .. }
            | SlotNote::LibraryOpened(_)
            | SlotNote::Loaded(_)
            | SlotNote::Destroyed(_) => {}
        }
    }

    /// The run that the library has.
    pub fn running(&self) -> Option<&ActiveRun> {
        match &self.doing {
            Doing::Running(active) if active.returned.is_none() => Some(active),
            _ => None,
        }
    }

    /// The company of its run is about to be another one.
    pub fn company_changes(&mut self, deadlines: &WorkerDeadlines, company: Company, now: Instant) {
        if let Doing::Running(active) = &mut self.doing {
            active.company_changes(deadlines, company, now);
        }
    }

    /// What is timed here.
    pub fn times(
        &self,
        deadlines: &WorkerDeadlines,
        company: Company,
        last_heartbeat: Instant,
    ) -> Times {
        Times {
            call: match &self.doing {
                Doing::Nothing | Doing::Gathered(_) => CallTimes::Idle,
                Doing::Calling(call) => CallTimes::Calling(*call),
                Doing::Running(active) => {
                    let can_abort_outside = self.control.can_be_made();
                    active.times(deadlines, company, can_abort_outside)
                }
            },
            control: self.control.current(),
            last_heartbeat,
        }
    }

    /// A control call hangs, and its thread with it. A run that goes on is left alone.
    pub fn control_hangs(&mut self, common: &mut Common, passed: &Passed) {
        common.tainted = true;
        self.control.give_up();
        self.untold = Some(SlotEvent::Tainted(passed_deadline(passed)));
        self.tell_untold();
        if let Doing::Running(active) = &self.doing
            && active.returned.is_some()
        {
            self.end_run(common, None);
        }
    }

    /// Tells what there was no room for. Returns whether there was anything to tell.
    pub fn tell_untold(&mut self) -> bool {
        let Some(event) = &self.untold else {
            return false;
        };
        if self.events.try_send(event.clone()) {
            self.untold = None;
        }
        true
    }

    /// The slot's run or call hangs.
    pub fn hangs(&self, passed: &Passed) {
        // With a full queue the daemon learns it from the exit code and the printed line.
        self.events
            .try_send(SlotEvent::DeadlinePassed(passed_deadline(passed)));
    }

    /// Whether its handle is one that can be destroyed without waiting for a call that hangs.
    pub fn control_can_be_made(&self) -> bool {
        self.control.can_be_made()
    }

    pub fn npu_task(&self, task: NpuTask) {
        // The thread ends only with the process or by a panic, which has been printed.
        if self.npu.send(task).is_err() {
            process_setup::exit_now(1);
        }
    }

    fn is_free(&self) -> bool {
        self.is_loaded && matches!(self.doing, Doing::Nothing)
    }

    fn active(&mut self, run: u64) -> Option<&mut ActiveRun> {
        match &mut self.doing {
            Doing::Running(active) if active.run == run => Some(active),
            _ => None,
        }
    }
}

pub fn passed_deadline(passed: &Passed) -> PassedDeadline {
    PassedDeadline {
        deadline: passed.deadline,
        limit: passed.limit,
        call: passed.call.to_owned(),
    }
}
