//! The handles of all slots, from the library's being opened to the end: one after the other comes up, and
//! goes.

use std::sync::Arc;
use std::time::Instant;

use rkllm_sys::{CallError, Library};

use super::{Stage, WorkerState};
use crate::children::process_setup;
use crate::ipc::{EXIT_LOAD_FAILED, Event, LoadSpec, LoadWatch};
use crate::process_figures;
use crate::worker::library::library_facts;
use crate::worker::library_call;
use crate::worker::npu_thread::{LoadedModel, NpuTask};
use crate::worker::slot::{Common, Slot};

impl WorkerState {
    pub(super) fn open(&mut self, open: NpuTask, common: Common, spec: Option<Arc<LoadSpec>>) {
        if !matches!(self.stage, Stage::WaitingForLoad) {
            eprintln!("W rkllmd-worker: a second load was asked for");
            return;
        }
        let count = spec.as_ref().map_or(1, |spec| spec.handles.count());
        let slots = (0..count).map(|number| Slot::start(number, &self.notes, &self.events));
        match slots.collect() {
            Ok(slots) => self.slots = slots,
            Err(error) => self.load_failed(error),
        }
        self.common = Some(common);
        self.stage = Stage::Opening {
            since: Instant::now(),
            spec,
        };
        self.slots[0].npu_task(open);
    }

    pub(super) fn library_opened(&mut self, result: anyhow::Result<Arc<Library>>) {
        let (Stage::Opening { spec, .. }, Some(common)) = (&self.stage, &self.common) else {
            return;
        };
        let library = match result {
            Ok(library) => library,
            Err(error) => self.load_failed(error),
        };
        self.events
            .send(Event::LibraryOpened(library_facts(&library)));
        let Some(spec) = spec.clone() else {
            // The process has told all it was started for.
            self.events.flush();
            process_setup::exit_now(0)
        };
        if spec.handles.copies() > 1 && !library.holds_several_handles() {
            let version = library.version().to_owned();
            let what = "several handles in a process (`parallel` above 1)";
            self.load_failed(CallError::NotInLibrary { what, version }.into());
        }
        let now = Instant::now();
        let figures = process_figures::load_figures(std::process::id());
        self.stage = Stage::Loading {
            library,
            spec,
            watch: LoadWatch::begin(common.deadlines.load, now, figures),
            last_look: now,
        };
        self.init(0);
    }

    /// Has a slot open its handle.
    fn init(&self, slot: usize) {
        if let Stage::Loading { library, spec, .. } = &self.stage {
            let (library, spec) = (Arc::clone(library), Arc::clone(spec));
            self.slots[slot].npu_task(NpuTask::Init { library, spec });
        }
    }

    pub(super) fn slot_loaded(&mut self, slot: usize, result: anyhow::Result<LoadedModel>) {
        let started = result.and_then(|model| {
            let file = model.file.clone();
            // All handles are of one file.
            if slot == 0 {
                self.model_file = file;
            } else if self.model_file != file {
                self.model_file = None;
            }
            self.unusable_adapters
                .extend(model.unusable_adapters.clone());
            let loaded = Event::Loaded {
                per_run_parameters: model.per_run_parameters,
                run_extensions: model.run_extensions,
                model_file: self.model_file.clone(),
                unusable_adapters: self.unusable_adapters.clone(),
            };
            let control = model.control.clone();
            self.slots[slot].loaded(model)?;
            if self.is_batch() {
                // They are sequences of the first one's handle.
                for (sequence, slot) in self.slots.iter_mut().enumerate().skip(1) {
                    slot.is_given(control.clone(), sequence)?;
                }
            }
            Ok(loaded)
        });
        let loaded = match started {
            Ok(loaded) => loaded,
            Err(error) => self.load_failed(error),
        };
        if slot + 1 < self.slots.len() && !self.is_batch() {
            return self.init(slot + 1);
        }
        self.stage = Stage::Loaded;
        self.events.send(loaded);
    }

    fn load_failed(&self, error: anyhow::Error) -> ! {
        let reason = format!("{error:#}");
        let failure = error.downcast::<CallError>().ok();
        self.events.send(Event::LoadFailed {
            reason,
            failure: failure.map(library_call::failure),
        });
        self.events.flush();
        process_setup::exit_now(EXIT_LOAD_FAILED)
    }

    /// Looks whether the load has got on.
    pub(super) fn look_at_load(&mut self) {
        if let Stage::Loading {
            watch, last_look, ..
        } = &mut self.stage
        {
            *last_look = Instant::now();
            watch.observe(
                *last_look,
                process_figures::load_figures(std::process::id()),
            );
        }
    }

    pub(super) fn unload(&mut self) {
        let is_tainted = self.common.as_ref().is_some_and(|common| common.tainted);
        if is_tainted && !self.slots.iter().all(Slot::control_can_be_made) {
            // Destroying waits for the call that hangs; the process's end frees the model too.
            self.events.flush();
            process_setup::exit_now(0);
        }
        self.stage = Stage::Unloading {
            since: Instant::now(),
        };
        if let Some(first) = self.slots.first() {
            first.npu_task(NpuTask::Destroy);
        }
    }

    pub(super) fn slot_destroyed(&mut self, slot: usize, result: Result<(), CallError>) {
        if let Err(error) = result {
            eprintln!("W rkllmd-worker: unloading: {error}");
        }
        if let Some(next) = self.slots.get(slot + 1) {
            // Each handle has the time for itself.
            self.stage = Stage::Unloading {
                since: Instant::now(),
            };
            return next.npu_task(NpuTask::Destroy);
        }
        self.events.flush();
        process_setup::exit_now(0)
    }
}
