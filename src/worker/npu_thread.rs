//! The one thread of a slot that opens its handle, runs it and destroys it, in that order and never two
//! calls at a time. That of the first slot opens the library, too.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rkllm_sys::{CallError, ControlHandle, Library};

use super::c_stdio;
use super::constrained::SharedTokens;
use super::library;
use super::library_call;
use super::model::{Member, Model, RunHow};
use super::prepared_input::PreparedInput;
use super::raw_run::{self, RawReturned};
use super::run_progress::RunProgress;
use super::slot::{SlotNote, SlotNotes};
use super::slot_events::SlotEvents;
use super::token_sink::RunRecord;
use crate::generation::RunExtensions;
use crate::ipc::{CallSpec, LoadSpec, RawRunSpec, Redraws, RunSpec};
use crate::short_slice;

/// What the thread is asked to do.
pub enum NpuTask {
    Open {
        library: PathBuf,
        assume_family: Option<String>,
    },
    /// Opens the slot's handle.
    Init {
        library: Arc<Library>,
        spec: Arc<LoadSpec>,
    },
    /// Counts the prompt where there is a tokenizer, then runs it.
    Run {
        spec: Box<RunSpec>,
        progress: Arc<RunProgress>,
        /// The model's, where a run has told them.
        tokens: Option<Arc<SharedTokens>>,
        /// Empty the KV cache first, so that the run's prefill is its whole prompt.
        empty_cache: bool,
    },
    /// One run of the library, of several sequences.
    Batch(Vec<Member>),
    /// A run of the vendor's API.
    RawRun {
        spec: Box<RawRunSpec>,
        progress: Arc<RunProgress>,
    },
    Call(Box<CallSpec>),
    Destroy,
}

/// A handle that was opened.
pub struct LoadedModel {
    pub control: ControlHandle,
    pub per_run_parameters: bool,
    pub run_extensions: RunExtensions,
    /// Tells the file that was opened; `None`: it cannot be told.
    pub file: Option<String>,
    /// By their names, why adapters were not loaded.
    pub unusable_adapters: BTreeMap<String, String>,
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
    /// Why it could not be kept to its grammar, where it could not.
    pub not_kept: Option<String>,
    /// What it took to keep it, without a hook.
    pub redraws: Option<Redraws>,
    /// Its tokens are those that are known by their numbers; `None`: it does not say.
    pub tokens_agree: Option<bool>,
    /// All there is to say of a raw run.
    pub raw: Option<RawReturned>,
}

impl RunReturned {
    /// One that the runtime was not asked for.
    pub fn of_run(run: u64) -> Self {
        Self {
            run,
            result: Ok(()),
            record: RunRecord::default(),
            input_tokens: None,
            input_was_text: false,
            cache_emptied: false,
            asked_runtime: false,
            over_limit_tokens: None,
            not_kept: None,
            redraws: None,
            tokens_agree: None,
            raw: None,
        }
    }

    /// Likewise, with what is known of its input.
    pub fn of(spec: &RunSpec, prepared: &PreparedInput) -> Self {
        Self {
            input_tokens: prepared.input_tokens,
            input_was_text: prepared.is_counted_text(spec),
            ..Self::of_run(spec.run)
        }
    }

    /// A run of which nothing is counted.
    pub fn of_raw(run: u64, raw: RawReturned) -> Self {
        Self {
            asked_runtime: true,
            raw: Some(raw),
            ..Self::of_run(run)
        }
    }
}

/// Following a grammar recurses.
const STACK_BYTES: usize = 32 << 20;

pub fn start(notes: SlotNotes, events: SlotEvents) -> std::io::Result<Sender<NpuTask>> {
    let (tasks, queue) = channel();
    thread::Builder::new()
        .name("npu".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || work(&queue, &notes, &events))?;
    Ok(tasks)
}

fn work(queue: &Receiver<NpuTask>, notes: &SlotNotes, events: &SlotEvents) {
    let mut model = None;
    for task in queue {
        let note = match task {
            NpuTask::Open {
                library,
                assume_family,
            } => {
                let opened = library::open(&library, assume_family.as_deref());
                c_stdio::flush();
                SlotNote::LibraryOpened(opened)
            }
            NpuTask::Init { library, spec } => {
                let before = file_stamp(&spec.model);
                let result = Model::init(&library, &spec, |name| events.loads_adapter(name));
                c_stdio::flush();
                if spec.handles.share_a_pool() {
                    // What computes are threads that the library has by now; this one calls back.
                    short_slice::ask();
                }
                SlotNote::Loaded(result.map(|loaded| {
                    // The library has read what had this name all the time, or it is not known what.
                    let file =
                        before.filter(|before| file_stamp(&spec.model).as_ref() == Some(before));
                    let facts = loaded.facts(file);
                    model = Some(loaded);
                    facts
                }))
            }
            NpuTask::Run {
                spec,
                progress,
                tokens,
                empty_cache,
            } => {
                let Some(model) = &model else { continue };
                let how = RunHow {
                    progress: &progress,
                    tokens: tokens.as_deref(),
                    empty_cache,
                };
                let returned = model.run(&spec, how, notes, events);
                c_stdio::flush();
                if returned.record.after_finish > 0 {
                    eprintln!(
                        "W rkllmd-worker: dropped {} results that the runtime gave after FINISH",
                        returned.record.after_finish
                    );
                }
                report_late_callbacks();
                SlotNote::RunReturned(Box::new(returned))
            }
            NpuTask::Batch(members) => {
                let Some(model) = &model else { continue };
                model.run_batch(members);
                c_stdio::flush();
                report_late_callbacks();
                continue;
            }
            NpuTask::RawRun { spec, progress } => {
                let Some(model) = &model else { continue };
                let raw = raw_run::run(model, &spec, &progress, events);
                c_stdio::flush();
                report_late_callbacks();
                SlotNote::RunReturned(Box::new(RunReturned::of_raw(spec.run, raw)))
            }
            NpuTask::Call(spec) => {
                let Some(model) = &model else { continue };
                let result = library_call::make(model.handle(), &spec.call);
                c_stdio::flush();
                SlotNote::CallReturned {
                    id: spec.id,
                    result,
                }
            }
            NpuTask::Destroy => {
                let result = model.take().map_or(Ok(()), Model::destroy);
                c_stdio::flush();
                SlotNote::Destroyed(result)
            }
        };
        notes.send(note);
    }
}

/// What a file has in common with no other that had or gets its name.
fn file_stamp(path: &Path) -> Option<String> {
    let file = std::fs::metadata(path).ok()?;
    Some(format!(
        "{} {} {}.{} {}.{}",
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec()
    ))
}

/// Says when the library called back for a run that had ended.
fn report_late_callbacks() {
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    let now = rkllm_sys::late_callbacks();
    let known = KNOWN.fetch_max(now, Ordering::Relaxed);
    if now > known {
        eprintln!(
            "W rkllmd-worker: dropped {} late callbacks of the runtime",
            now - known
        );
    }
}
