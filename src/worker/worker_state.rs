//! The main thread: brings the slots up, hands each what is meant for it, times all of them, and reports
//! what comes of them.
//!
//! ```text
//!  WaitingForLoad ─► Opening ─► Loading: one handle after the other ─► Loaded ─► Unloading ─► exit
//!  the deadline of a stage, or of a slot's run or call passed ─► report, exit
//!  that of a control call ─► tainted: no control call of that slot any more, the runs go on
//! ```

mod batches;
mod handles;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rkllm_sys::Library;

use super::active_run::ActiveRun;
use super::company::Company;
use super::event_writer::EventWriter;
use super::npu_thread::NpuTask;
use super::slot::{Common, Slot, SlotNote, passed_deadline};
use super::timing::{CallTimes, Due, Passed, Times, Wake};
use crate::children::process_setup;
use crate::ipc::{Command, EXIT_DEADLINE, Event, Handles, LoadSpec, LoadWatch, SlotCommand};

/// Longest sleep when nothing is timed.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// What the other threads tell the main thread.
pub enum Note {
    Command(Command),
    DaemonGone,
    Slot { slot: u8, note: SlotNote },
}

enum Stage {
    WaitingForLoad,
    Opening {
        since: Instant,
        /// `None`: only to be described.
        spec: Option<Arc<LoadSpec>>,
    },
    Loading {
        library: Arc<Library>,
        spec: Arc<LoadSpec>,
        watch: LoadWatch,
        last_look: Instant,
    },
    Loaded,
    Unloading {
        since: Instant,
    },
}

/// Whose time it is.
enum Whose {
    Worker,
    Slot(usize),
}

pub struct WorkerState {
    inbox: Receiver<Note>,
    notes: Sender<Note>,
    events: EventWriter,
    stage: Stage,
    /// `None` until it is known what is to be loaded.
    common: Option<Common>,
    slots: Vec<Slot>,
    /// Tells the file that the handles were opened from, once they are.
    model_file: Option<String>,
    /// Why a handle has not loaded an adapter.
    unusable_adapters: BTreeMap<String, String>,
    /// When a run began or ended last.
    runs_changed: Instant,
    /// What is gathered is to begin.
    batch_is_due: bool,
    last_heartbeat: Instant,
}

impl WorkerState {
    pub fn new(notes: Sender<Note>, inbox: Receiver<Note>, events: EventWriter) -> Self {
        Self {
            inbox,
            notes,
            events,
            stage: Stage::WaitingForLoad,
            common: None,
            slots: Vec::new(),
            model_file: None,
            unusable_adapters: BTreeMap::new(),
            runs_changed: Instant::now(),
            batch_is_due: false,
            last_heartbeat: Instant::now(),
        }
    }

    /// Never returns normally: the process ends here, without exit handlers, because the library's
    /// threads and destructors cannot be trusted to end.
    pub fn run(mut self) -> ExitCode {
        loop {
            let wait = self.next_wake().map_or(IDLE_WAIT, |(_, wake)| {
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
                    if let Some((whose, wake)) = self.next_wake()
                        && wake.at <= Instant::now()
                    {
                        self.wake(&whose, wake.due);
                    }
                }
                // Impossible while `self.notes` lives.
                Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
            }
        }
    }

    fn handle(&mut self, note: Note) {
        let before: Vec<(usize, Company)> = match &self.common {
            Some(common) => (0..self.slots.len())
                .filter(|&slot| self.slots[slot].running().is_some())
                .map(|slot| (slot, self.company_of(slot, common)))
                .collect(),
            None => Vec::new(),
        };
        self.take_in(note);
        self.begin_due_batch();
        if let Some(common) = &self.common
            && self.runs() as usize != before.len()
        {
            let now = Instant::now();
            self.runs_changed = now;
            for (slot, company) in before {
                self.slots[slot].company_changes(&common.deadlines, company, now);
            }
        }
    }

    /// How many the library has.
    fn runs(&self) -> u32 {
        let runs = self.slots.iter().filter_map(Slot::running);
        u32::try_from(runs.count()).unwrap_or(u32::MAX)
    }

    /// What the run of a slot has beside it.
    fn company_of(&self, slot: usize, common: &Common) -> Company {
        let running = || self.slots.iter().filter_map(Slot::running);
        let deadlines = &common.deadlines;
        let moved = running().map(|run| run.progress.moved());
        let others = self.slots.iter().enumerate();
        let others = others.filter(|(other, _)| *other != slot);
        let others = others.filter_map(|(_, slot)| slot.running());
        Company {
            runs: self.runs(),
            moved: moved.fold(self.runs_changed, Instant::max),
            others_began: others.map(|run| run.progress.started()).min(),
            still: common.pool_tokens.is_some().then(|| {
                // Those that evaluate their prompts may do so one after the other; of those that go on
                // one may have to evaluate all again, and the others make their tokens together.
                let (begun, others): (Vec<_>, Vec<_>) =
                    running().partition(|run| run.progress.tokens() > 0);
                let prompts: Duration = others.iter().map(|run| run.prefill(deadlines)).sum();
                let again = begun.iter().map(|run| run.prefill(deadlines)).max();
                prompts + again.unwrap_or_default() + deadlines.inter_token
            }),
            may_be_full: common.pool_tokens.is_some_and(|pool| {
                let cells = running().map(ActiveRun::most_cells);
                cells.fold(0, u64::saturating_add) > u64::from(pool)
            }),
        }
    }

    fn take_in(&mut self, note: Note) {
        match note {
            Note::Command(Command::Load(spec)) => {
                let open = NpuTask::Open {
                    library: spec.library.clone(),
                    assume_family: spec.assume_family.clone(),
                };
                let common = match &spec.handles {
                    Handles::OfRequests(handles) => Common {
                        context_length: handles.context_length,
                        default_max_new_tokens: handles.max_new_tokens,
                        pool_tokens: handles.pool_tokens,
                        is_batch: handles.is_batch,
                        ..Common::new(spec.deadlines)
                    },
                    Handles::OfClient(_) => Common::new(spec.deadlines),
                };
                self.open(open, common, Some(Arc::from(spec)));
            }
            Note::Command(Command::Describe {
                library,
                assume_family,
                deadlines,
                walls: _,
            }) => {
                let open = NpuTask::Open {
                    library,
                    assume_family,
                };
                self.open(open, Common::new(*deadlines), None);
            }
            Note::Command(Command::Unload) => self.unload(),
            Note::Command(Command::BeginBatch) => self.begin_batch(),
            Note::Command(Command::Slot {
                slot,
                command: SlotCommand::Abort { run, mode },
            }) if self.is_batch() => self.abort_in_batch(usize::from(slot), run, mode),
            Note::Command(Command::Slot { slot, command }) => {
                match (self.slots.get_mut(usize::from(slot)), &mut self.common) {
                    (Some(slot), Some(common)) => slot.command(common, command),
                    _ => {
                        eprintln!("W rkllmd-worker: a command for slot {slot}, which is not there")
                    }
                }
            }
            Note::DaemonGone => process_setup::exit_now(0),
            Note::Slot { slot, note } => self.slot_note(usize::from(slot), note),
        }
    }

    fn slot_note(&mut self, slot: usize, note: SlotNote) {
        match note {
            SlotNote::LibraryOpened(result) => self.library_opened(result),
            SlotNote::Loaded(result) => self.slot_loaded(slot, result),
            SlotNote::Destroyed(result) => self.slot_destroyed(slot, result),
            SlotNote::Idles {
                run,
                has_ended,
                ended_by,
            } => self.idles(slot, run, (has_ended, ended_by)),
            note => {
                if let (Some(slot), Some(common)) = (self.slots.get_mut(slot), &mut self.common) {
                    slot.note(common, note);
                }
            }
        }
    }

    /// What is due first, and whose it is.
    fn next_wake(&self) -> Option<(Whose, Wake)> {
        let common = self.common.as_ref()?;
        let deadlines = &common.deadlines;
        let now = Instant::now();
        let own = self.own_times().next_wake(deadlines, now);
        let of_slots = self.slots.iter().enumerate().filter_map(|(number, slot)| {
            let company = self.company_of(number, common);
            let wake = slot.times(deadlines, company, self.last_heartbeat);
            Some((Whose::Slot(number), wake.next_wake(deadlines, now)?))
        });
        own.map(|wake| (Whose::Worker, wake))
            .into_iter()
            .chain(of_slots)
            .min_by_key(|(_, wake)| wake.at)
    }

    fn own_times(&self) -> Times {
        Times {
            call: match &self.stage {
                Stage::WaitingForLoad | Stage::Loaded => CallTimes::Idle,
                Stage::Opening { since, .. } => CallTimes::Opening { since: *since },
                Stage::Loading {
                    watch, last_look, ..
                } => CallTimes::Loading {
                    watch: *watch,
                    last_look: *last_look,
                },
                Stage::Unloading { since } => CallTimes::Unloading { since: *since },
            },
            control: None,
            last_heartbeat: self.last_heartbeat,
        }
    }

    fn wake(&mut self, whose: &Whose, due: Due) {
        match (due, whose) {
            (Due::Heartbeat, _) => self.heartbeat(),
            (Due::LookAtLoad, _) => self.look_at_load(),
            // What the library goes on with for others is left instead.
            (Due::AbortFromOutside, Whose::Slot(slot))
                if self.is_batch() && self.others_go_on(*slot) =>
            {
                self.leave_batch(*slot);
            }
            (Due::AbortFromOutside, Whose::Slot(slot)) => self.slots[*slot].abort_from_outside(),
            (Due::ControlHangs(passed), Whose::Slot(slot)) => {
                report(&passed);
                if let Some(common) = &mut self.common {
                    self.slots[*slot].control_hangs(common, &passed);
                }
            }
            // The worker as a whole makes no control call and no run of its own.
            (Due::AbortFromOutside | Due::ControlHangs(_), Whose::Worker) => {}
            (Due::Deadline(_), _) => {
                // A load may have got on since it was last looked at.
                self.look_at_load();
                // The kernel may have kept this thread: a note that has come meanwhile is newer.
                if let Ok(note) = self.inbox.try_recv() {
                    return self.handle(note);
                }
                if let Some((
                    whose,
                    Wake {
                        at,
                        due: Due::Deadline(passed),
                    },
                )) = self.next_wake()
                    && at <= Instant::now()
                {
                    self.end_by(&whose, &passed);
                }
            }
        }
    }

    /// Shows the daemon that this thread is scheduled, unless a token has just done so.
    fn heartbeat(&mut self) {
        self.last_heartbeat = Instant::now();
        let mut has_told = false;
        for slot in &mut self.slots {
            has_told |= slot.tell_untold();
        }
        if !has_told {
            self.events.heartbeat();
        }
    }

    /// A call on an NPU thread hangs: only the process's end stops it.
    fn end_by(&self, whose: &Whose, passed: &Passed) -> ! {
        report(passed);
        match whose {
            Whose::Slot(slot) => self.slots[*slot].hangs(passed),
            // With a full queue the daemon learns it from the exit code and the line above.
            Whose::Worker => {
                let event = Event::DeadlinePassed(passed_deadline(passed));
                drop(self.events.try_send(event));
            }
        }
        self.events.flush();
        process_setup::exit_now(EXIT_DEADLINE)
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
