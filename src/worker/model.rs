//! One handle of the loaded model and what its calls need. Used by its NPU thread alone.

mod batch;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use rkllm_sys::{
    CallError, CpuMask, ExtensionVersion, Handle, InitParams, Library, PerRun, PromptCache,
    RunExtension, RunExtras, RunId, RunInput, RunItem, RunOptions,
};

use super::constrained::{self, SharedTokens};
use super::known_shape::KnownShape;
use super::library::run_extensions;
use super::library_call;
use super::npu_thread::{LoadedModel, RunReturned};
use super::prepared_input::{InputForm, PreparedInput, budget_left};
use super::redraw::{self, Costs, OfHandle, Redraw, Spells, Told};
use super::run_progress::RunProgress;
use super::slot::{SlotNote, SlotNotes};
use super::slot_events::SlotEvents;
use super::token_sink::{RunRecord, SharedRecord, TokenSink};
use super::utf8_assembly::Utf8Assembly;
use crate::ipc::{Handles, LoadSpec, RedrawSpec, RunSpec, SlotEvent};
use crate::library_calls::Call as LibraryCall;
pub use batch::Member;

/// What a run goes on with, beside what was asked.
#[derive(Clone, Copy)]
pub struct RunHow<'a> {
    pub progress: &'a Arc<RunProgress>,
    pub tokens: Option<&'a SharedTokens>,
    pub empty_cache: bool,
}

pub struct Model {
    handle: Handle,
    per_run: Option<PerRun>,
    eos_ids: Arc<[i32]>,
    prints_special_tokens: bool,
    context_length: u32,
    shape: KnownShape,
    /// Why adapters were not loaded.
    unusable_adapters: BTreeMap<String, String>,
    /// What it takes to draw tokens again.
    costs: Cell<Costs>,
}

/// Whether a run's tokens were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redrawn {
    Is,
    /// Nothing is made of it yet.
    IsNot,
}

impl Model {
    /// Opens a handle, and loads its adapters. `begins` is told each one's name before, because the library may
    /// not come back from it, and nothing behind the last one. One that cannot be loaded is none of the model's
    /// failures.
    pub fn init(
        library: &Arc<Library>,
        spec: &LoadSpec,
        begins: impl Fn(Option<&str>),
    ) -> anyhow::Result<Self> {
        let (model, shape) = (&spec.model, KnownShape::new(spec.shape));
        let spec = match &spec.handles {
            Handles::OfRequests(handles) => handles,
            Handles::OfClient(param) => {
                let handle = library.init(&library_call::init_params(model, param))?;
                return Ok(Self {
                    per_run: handle.per_run(),
                    handle,
                    eos_ids: Arc::default(),
                    prints_special_tokens: false,
                    // The client's own.
                    context_length: 0,
                    shape,
                    unusable_adapters: BTreeMap::new(),
                    costs: Cell::default(),
                });
            }
        };
        let mut params = InitParams::new(model);
        params.max_context_len = Some(i32::try_from(spec.context_length)?);
        // The budget of a run is kept on our side; where it is fixed at init it must not be less.
        params.max_new_tokens = Some(i32::try_from(spec.context_length)?);
        params.sampling = library_call::sampling(spec.sampling);
        params.skip_special_token = Some(!spec.prints_special_tokens);
        params.base_domain_id = spec.base_domain_id;
        params.enabled_cpus = spec.cpu_mask.map(CpuMask);
        params.n_batch = spec.is_batch.then_some(spec.count.max(1));
        let handle = library.init(&params)?;
        // The daemon has rendered the prompt: it is to be tokenised exactly as given.
        handle.set_chat_template("", "", "")?;
        let mut unusable_adapters = BTreeMap::new();
        for adapter in &spec.adapters {
            let name = &adapter.lora_adapter_name;
            begins(Some(name));
            let call = LibraryCall::LoadLora(adapter.clone());
            if let Err(failure) = library_call::make(&handle, &call) {
                let reason = failure.into_error(None).to_string();
                unusable_adapters.insert(name.clone(), reason);
            }
        }
        if !spec.adapters.is_empty() {
            begins(None);
        }
        Ok(Self {
            per_run: handle.per_run(),
            handle,
            eos_ids: spec.eos_ids.as_slice().into(),
            prints_special_tokens: spec.prints_special_tokens,
            context_length: spec.context_length,
            shape,
            unusable_adapters,
            costs: Cell::default(),
        })
    }

    /// `file` tells the one that it was opened from.
    pub fn facts(&self, file: Option<String>) -> LoadedModel {
        LoadedModel {
            control: self.handle.control(),
            per_run_parameters: self.per_run.is_some(),
            run_extensions: run_extensions(self.handle.library()),
            file,
            unusable_adapters: self.unusable_adapters.clone(),
        }
    }

    /// For the calls of the vendor's API.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What is known of the model's sizes by now.
    pub fn shape(&self) -> &KnownShape {
        &self.shape
    }

    pub fn destroy(self) -> Result<(), CallError> {
        self.handle.destroy()
    }

    /// Blocks until the run has ended. Whatever of it is counted is told before it starts.
    pub fn run(
        &self,
        spec: &RunSpec,
        how: RunHow<'_>,
        notes: &SlotNotes,
        events: &SlotEvents,
    ) -> RunReturned {
        let progress = how.progress;
        let prepared = PreparedInput::prepare(spec);
        let mut returned = RunReturned::of(spec, &prepared);
        let run = spec.run;
        if let Some(tokens) = prepared.prompt_tokens {
            events.send(SlotEvent::PromptCounted { run, tokens });
        }
        if let Some(tokens) = prepared.input_tokens
            && !self.has_room(tokens, progress, notes, &mut returned)
        {
            return returned;
        }
        let ends = self.ends(spec);
        let has_hook = self.handle.library().extension_version() != ExtensionVersion::None;
        if !has_hook && let Some(redraws) = &spec.redraws {
            let told = (notes.clone(), events.clone());
            let how = (how, Arc::clone(&ends));
            if self.redraw(spec, redraws, how, told, &mut returned) == Redrawn::Is {
                returned.input_was_text = false;
                return returned;
            }
        }
        let extension = match has_hook {
            true => constrained::extension(spec, how.tokens, &ends),
            false => Ok(None),
        };
        let (extension, kept) = match extension {
            Ok(extension) => extension.unzip(),
            Err(error) => {
                returned.not_kept = Some(format!("{error:#}"));
                return returned;
            }
        };
        let kept = kept.flatten();
        if how.empty_cache {
            returned.cache_emptied = self.handle.clear_kv_cache(false).is_ok();
        }
        // An abort that came before this point finds no run in the library.
        if !progress.abort_requested() {
            returned.asked_runtime = true;
            let record = SharedRecord::default();
            let mut sink = self.sink(run, progress, &record, notes, events);
            sink.eos_ids = ends;
            sink.kept = kept.clone();
            let budget_tokens = progress.limit_tokens();
            let call = Call {
                form: &prepared.form,
                budget_tokens,
                extension,
            };
            returned.result = self.call(spec, call, sink);
            returned.not_kept = kept.and_then(|kept| kept.failure());
            returned.record =
                std::mem::take(&mut *record.lock().unwrap_or_else(PoisonError::into_inner));
            let known = how.tokens.filter(|_| !has_hook);
            returned.tokens_agree = tokens_agree(&returned.record, known);
        }
        returned
    }

    /// Tokens that end a run: the model's, and those that it was asked for.
    fn ends(&self, spec: &RunSpec) -> Arc<[i32]> {
        match &*spec.draws.stop_token_ids {
            [] => Arc::clone(&self.eos_ids),
            more => self.eos_ids.iter().chain(more).copied().collect(),
        }
    }

    /// Whether so many tokens leave room for one more; they are what the run is given.
    fn has_room(
        &self,
        tokens: u32,
        progress: &RunProgress,
        notes: &SlotNotes,
        returned: &mut RunReturned,
    ) -> bool {
        returned.input_tokens = Some(tokens);
        if tokens >= self.context_length {
            returned.over_limit_tokens = Some(self.context_length);
            return false;
        }
        progress.lower_limit(budget_left(self.context_length, tokens));
        let run = returned.run;
        notes.send(SlotNote::InputCounted { run, tokens });
        true
    }

    /// Looks at a run's tokens where the library has no hook.
    fn redraw(
        &self,
        spec: &RunSpec,
        redraws: &RedrawSpec,
        (how, ends): (RunHow<'_>, Arc<[i32]>),
        (notes, events): (SlotNotes, SlotEvents),
        returned: &mut RunReturned,
    ) -> Redrawn {
        let is_wish = redraws.is_wish(spec);
        let told = Told {
            run: spec.run,
            progress: Arc::clone(how.progress),
            events,
            notes: notes.clone(),
        };
        let spells = Spells {
            ends,
            prints_special_tokens: self.prints_special_tokens,
        };
        let made = redraw::prepare(spec, redraws, how.tokens, (told, spells));
        let (answer, input) = match made {
            Ok(made) => made,
            Err(error) if is_wish => {
                let reason = constrained::reason(&error);
                eprintln!("W rkllmd-worker: tokens of a run are not looked at: {reason}");
                return Redrawn::IsNot;
            }
            Err(error) => {
                returned.not_kept = Some(constrained::reason(&error));
                return Redrawn::Is;
            }
        };
        let tokens = u32::try_from(input.len()).unwrap_or(u32::MAX);
        if !self.has_room(tokens, how.progress, &notes, returned) {
            return Redrawn::Is;
        }
        if how.empty_cache {
            returned.cache_emptied = self.handle.clear_kv_cache(false).is_ok();
        }
        let sampling = library_call::sampling(spec.sampling);
        let library = OfHandle::new(&self.handle, (spec.run, spec.adapter.as_deref()), sampling);
        let library = match redraws.is_needed {
            true => library.without_penalties(),
            false => library,
        };
        let ways = (library.draws(), redraws.limits, self.costs.get());
        let chance = redraw::random_chance;
        let came = Redraw::new(library, answer, input, ways, chance).run();
        self.costs.set(came.costs);
        returned.asked_runtime = came.asked_runtime;
        returned.result = came.result;
        returned.record = came.record;
        returned.not_kept = came.not_kept;
        returned.redraws = came.asked_runtime.then_some(came.redraws);
        returned.tokens_agree = came.tokens_are_others.then_some(false);
        Redrawn::Is
    }

    fn sink(
        &self,
        run: u64,
        progress: &Arc<RunProgress>,
        record: &SharedRecord,
        notes: &SlotNotes,
        events: &SlotEvents,
    ) -> TokenSink {
        let control = self.handle.control();
        TokenSink {
            run,
            progress: Arc::clone(progress),
            record: RunRecord::default(),
            record_for_caller: Arc::clone(record),
            events: events.clone(),
            notes: notes.clone(),
            abort: Box::new(move || control.abort()),
            eos_ids: Arc::clone(&self.eos_ids),
            budget_of_runtime: self.per_run.is_some().then_some(progress.limit_tokens()),
            kept: None,
            text: Utf8Assembly::default(),
            prompt_logprobs: Vec::new(),
            logprobs: None,
        }
    }

    fn call(&self, spec: &RunSpec, call: Call<'_>, sink: TokenSink) -> Result<(), CallError> {
        let id = RunId::new(spec.run).ok_or_else(|| CallError::OutOfRange {
            what: "the run id",
            value: spec.run.to_string(),
            allowed: "it must not be 0",
        })?;
        let options = RunOptions {
            per_run: self.per_run.map(|per_run| {
                let tokens = i32::try_from(call.budget_tokens).unwrap_or(i32::MAX);
                per_run.values(library_call::sampling(spec.sampling), Some(tokens))
            }),
            ..RunOptions::default()
        };
        let input = match call.form {
            InputForm::Text(text) => RunInput::Prompt(text),
            InputForm::Tokens(ids) => RunInput::Tokens(ids),
        };
        let sink = Box::new(sink);
        let save = spec.save.as_ref().filter(|_| call.extension.is_none());
        let extras = RunExtras {
            lora: spec.adapter.as_deref(),
            prompt_cache: save.map(|save| PromptCache {
                path: &save.path,
                save: true,
            }),
        };
        match call.extension {
            Some(extension) => {
                let beside = (&extras, extension);
                self.handle.run_extended(&input, &options, beside, id, sink)
            }
            None => {
                let items = [RunItem::user(input)];
                self.handle.run_batch(&items, &options, &extras, id, sink)
            }
        }
    }
}

/// By what the library has printed.
fn tokens_agree(record: &RunRecord, known: Option<&SharedTokens>) -> Option<bool> {
    let known = known.filter(|_| !record.spelled.is_empty())?;
    // Where they cannot be made ready, nothing is drawn again.
    let parsers = known.get().ok()?;
    record.spelled.agrees_with(parsers.tokens())
}

/// What the library is asked.
struct Call<'a> {
    form: &'a InputForm,
    budget_tokens: u32,
    extension: Option<RunExtension>,
}
