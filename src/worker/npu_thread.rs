//! The one thread that opens the library, loads the model, runs it and destroys it, in that order
//! and never two at a time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread;

use rkllm_sys::{
    CallError, ControlHandle, CpuMask, Family, Handle, InitParams, Library, OpenOptions, PerRun,
    RunId, RunInput, RunOptions, Sampling,
};

use super::c_stdio;
use super::event_writer::EventWriter;
use super::run_progress::RunProgress;
use super::session::Note;
use super::token_sink::{RunRecord, SharedRecord, TokenSink};
use super::tokenizer::Tokenizer;
use super::utf8_assembly::Utf8Assembly;
use crate::generation::SamplingRequest;
use crate::ipc::{LibraryFacts, LoadSpec, RunSpec};

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
    Unload,
}

/// A model that was loaded.
pub struct LoadedModel {
    pub control: ControlHandle,
    pub per_run_parameters: bool,
}

/// How a run came back.
pub struct RunReturned {
    pub run: u64,
    pub result: Result<(), CallError>,
    pub record: RunRecord,
    /// What the tokenizer counted.
    pub prompt_tokens: Option<u32>,
    /// The cache was emptied as asked.
    pub cache_emptied: bool,
    /// The prompt was found too long before the library was asked.
    pub over_limit_tokens: Option<u32>,
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
                let returned = model.run(&spec, progress, empty_cache, notes, events);
                c_stdio::flush();
                late_callbacks = report_late_callbacks(late_callbacks);
                Note::RunReturned(Box::new(returned))
            }
            NpuTask::Unload => {
                let result = model.take().map_or(Ok(()), |model| model.handle.destroy());
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

struct Model {
    handle: Handle,
    per_run: Option<PerRun>,
    tokenizer: Option<Tokenizer>,
    eos_ids: Arc<[i32]>,
    context_length: u32,
}

impl Model {
    fn load(spec: LoadSpec, opened: impl FnOnce(LibraryFacts)) -> anyhow::Result<Self> {
        let assume_family = match spec.assume_family.as_deref() {
            None => None,
            Some(name) => Some(Family::from_name(name).ok_or_else(|| {
                anyhow::anyhow!("`{name}` is not an ABI family (setting runtime.assume-family)")
            })?),
        };
        let library = Arc::new(Library::open(
            &spec.library,
            &OpenOptions { assume_family },
        )?);
        opened(LibraryFacts {
            path: library.path().to_owned(),
            version: library.version().to_owned(),
            family: library.family().to_string(),
        });
        let mut params = InitParams::new(&spec.model);
        params.max_context_len = Some(i32::try_from(spec.context_length)?);
        // The budget of a run is kept on our side; where it is fixed at init it must not be less.
        params.max_new_tokens = Some(i32::try_from(spec.context_length)?);
        params.sampling = sampling(&spec.sampling);
        params.skip_special_token = Some(true);
        params.base_domain_id = spec.base_domain_id;
        params.enabled_cpus = spec.cpu_mask.map(CpuMask);
        let handle = library.init(&params)?;
        // The daemon has rendered the prompt: it is to be tokenised exactly as given.
        handle.set_chat_template("", "", "")?;
        let tokenizer = spec
            .tokenizer_json
            .map(|path| Tokenizer::open(&path))
            .transpose()?;
        Ok(Self {
            per_run: handle.per_run(),
            handle,
            tokenizer,
            eos_ids: spec.eos_ids.into(),
            context_length: spec.context_length,
        })
    }

    fn facts(&self) -> LoadedModel {
        LoadedModel {
            control: self.handle.control(),
            per_run_parameters: self.per_run.is_some(),
        }
    }

    fn run(
        &self,
        spec: &RunSpec,
        progress: Arc<RunProgress>,
        empty_cache: bool,
        notes: &Sender<Note>,
        events: &EventWriter,
    ) -> RunReturned {
        let mut returned = RunReturned {
            run: spec.run,
            result: Ok(()),
            record: RunRecord::default(),
            prompt_tokens: None,
            cache_emptied: false,
            over_limit_tokens: None,
        };
        if let Some(tokenizer) = &self.tokenizer {
            match tokenizer.count(&spec.prompt) {
                Ok(count) => returned.prompt_tokens = Some(count),
                Err(error) => eprintln!("W rkllmd-worker: {error:#}"),
            }
        }
        if let Some(tokens) = returned.prompt_tokens {
            if tokens >= self.context_length {
                returned.over_limit_tokens = Some(self.context_length);
                return returned;
            }
            progress.lower_limit(super::session::budget_left(self.context_length, tokens));
            let _ = notes.send(Note::PromptCounted {
                run: spec.run,
                tokens,
            });
        }
        if empty_cache {
            returned.cache_emptied = self.handle.clear_kv_cache(false).is_ok();
        }
        let Some(id) = RunId::new(spec.run) else {
            returned.result = Err(CallError::OutOfRange {
                what: "the run id",
                value: spec.run.to_string(),
                allowed: "it must not be 0",
            });
            return returned;
        };
        let budget = progress.limit_tokens();
        let record = SharedRecord::default();
        let sink = TokenSink {
            run: spec.run,
            progress: Arc::clone(&progress),
            record: Arc::clone(&record),
            events: events.clone(),
            notes: notes.clone(),
            control: self.handle.control(),
            eos_ids: Arc::clone(&self.eos_ids),
            budget_of_runtime: self.per_run.is_some().then_some(budget),
            text: Utf8Assembly::default(),
        };
        let per_run = self.per_run.map(|per_run| {
            let tokens = i32::try_from(budget).unwrap_or(i32::MAX);
            per_run.values(sampling(&spec.sampling), Some(tokens))
        });
        let options = RunOptions {
            per_run,
            ..RunOptions::default()
        };
        // An abort that came before this point finds no run in the library.
        if !progress.abort_requested() {
            let input = RunInput::Prompt(&spec.prompt);
            returned.result = self.handle.run(&input, &options, id, Box::new(sink));
        }
        returned.record =
            std::mem::take(&mut *record.lock().unwrap_or_else(PoisonError::into_inner));
        returned
    }
}

fn sampling(values: &SamplingRequest) -> Sampling {
    Sampling {
        top_k: values.top_k,
        top_p: values.top_p,
        temperature: values.temperature,
        repeat_penalty: values.repeat_penalty,
        frequency_penalty: values.frequency_penalty,
        presence_penalty: values.presence_penalty,
        ..Sampling::default()
    }
}
