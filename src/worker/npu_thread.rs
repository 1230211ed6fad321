//! The one thread that opens the library, loads the model, runs it and destroys it, in that order
//! and never two at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rkllm_sys::{CallError, ControlHandle};

use super::c_stdio;
use super::event_writer::EventWriter;
use super::library_call;
use super::model::{self, Model};
use super::raw_run::{self, RawReturned};
use super::run_progress::RunProgress;
use super::session::Note;
use super::token_sink::RunRecord;
use crate::ipc::{CallSpec, LoadSpec, RawRunSpec, RunSpec};

/// What the thread is asked to do.
pub enum NpuTask {
    Load(Box<LoadSpec>),
    /// Counts the prompt where there is a tokenizer, then runs it.
    Run {
        spec: Box<RunSpec>,
        progress: Arc<RunProgress>,
        /// Empty the KV cache first, so that the run's prefill is its whole prompt.
        empty_cache: bool,
    },
    /// A run of the vendor's API.
    RawRun {
        spec: Box<RawRunSpec>,
        progress: Arc<RunProgress>,
    },
    Call(Box<CallSpec>),
    /// Opens a library, and that is all.
    Describe {
        library: PathBuf,
        assume_family: Option<String>,
    },
    Unload,
}

/// A model that was loaded.
pub struct LoadedModel {
    pub control: ControlHandle,
    pub per_run_parameters: bool,
}

/// How a run came back.
#[derive(Debug)]
pub struct RunReturned {
    pub run: u64,
    pub result: Result<(), CallError>,
    pub record: RunRecord,
    /// What the tokenizer counted: the prompt and the begun answer.
    pub input_tokens: Option<u32>,
    /// The runtime tokenised the input itself.
    pub input_was_text: bool,
    /// The cache was emptied as asked.
    pub cache_emptied: bool,
    /// The runtime was asked to run. Not if the input is too long or the run was aborted before.
    pub asked_runtime: bool,
    /// The input was found too long before the library was asked.
    pub over_limit_tokens: Option<u32>,
    /// All there is to say of a raw run.
    pub raw: Option<RawReturned>,
}

impl RunReturned {
    /// A run of which nothing is counted.
    pub fn of_raw(run: u64, raw: RawReturned) -> Self {
        Self {
            run,
            result: Ok(()),
            record: RunRecord::default(),
            input_tokens: None,
            input_was_text: false,
            cache_emptied: false,
            asked_runtime: true,
            over_limit_tokens: None,
            raw: Some(raw),
        }
    }
}

pub fn start(notes: Sender<Note>, events: EventWriter) -> std::io::Result<Sender<NpuTask>> {
    let (tasks, queue) = channel();
    thread::Builder::new()
        .name("npu".to_owned())
        .spawn(move || work(&queue, &notes, &events))?;
    Ok(tasks)
}

fn work(queue: &Receiver<NpuTask>, notes: &Sender<Note>, events: &EventWriter) {
    let mut model = None;
    let mut late_callbacks = 0;
    for task in queue {
        let note = match task {
            NpuTask::Load(spec) => {
                let opened = |facts| {
                    let _ = notes.send(Note::LibraryOpened(facts));
                };
                let result = Model::load(*spec, opened);
                c_stdio::flush();
                Note::Loaded(result.map(|loaded| {
                    let facts = loaded.facts();
                    model = Some(loaded);
                    facts
                }))
            }
            NpuTask::Run {
                spec,
                progress,
                empty_cache,
            } => {
                let Some(model) = &model else { continue };
                let returned = model.run(&spec, &progress, empty_cache, notes, events);
                c_stdio::flush();
                if returned.record.after_finish > 0 {
                    eprintln!(
                        "W rkllmd-worker: dropped {} results that the runtime gave after FINISH",
                        returned.record.after_finish
                    );
                }
                late_callbacks = report_late_callbacks(late_callbacks);
                Note::RunReturned(Box::new(returned))
            }
            NpuTask::RawRun { spec, progress } => {
                let Some(model) = &model else { continue };
                let raw = raw_run::run(model.handle(), &spec, &progress, events);
                c_stdio::flush();
                late_callbacks = report_late_callbacks(late_callbacks);
                Note::RunReturned(Box::new(RunReturned::of_raw(spec.run, raw)))
            }
            NpuTask::Call(spec) => {
                let Some(model) = &model else { continue };
                let result = library_call::make(model.handle(), &spec.call);
                c_stdio::flush();
                Note::CallReturned {
                    id: spec.id,
                    result,
                }
            }
            NpuTask::Describe {
                library,
                assume_family,
            } => {
                let described = model::open(&library, assume_family.as_deref());
                c_stdio::flush();
                Note::Described(described.map(|library| model::library_facts(&library)))
            }
            NpuTask::Unload => {
                let result = model.take().map_or(Ok(()), Model::destroy);
                c_stdio::flush();
                Note::Unloaded(result)
            }
        };
        if notes.send(note).is_err() {
            return;
        }
    }
}

/// Says when the library called back for a run that had ended. Returns how often it has so far.
fn report_late_callbacks(known: u64) -> u64 {
    let now = rkllm_sys::late_callbacks();
    if now > known {
        eprintln!(
            "W rkllmd-worker: dropped {} late callbacks of the runtime",
            now - known
        );
    }
    now
}
