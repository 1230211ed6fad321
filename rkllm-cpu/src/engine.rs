//! One loaded model with its cache and its conversation. Used by one thread at a time; the cells
//! that are physically there, the tokens that logically are the history, and a paused generation
//! are three different things, and every call here says which of them it changes.

use std::ffi::c_void;

use llama_cpp_sys_2 as llama;
use thiserror::Error;

mod adapters;
mod decode_batch;
mod decoding;
mod embedding_rows;
mod prompt;
mod prompt_cache;
mod templates;

use adapters::Adapters;
use embedding_rows::EmbeddingRows;
use prompt_cache::PromptCache;

pub(crate) use decoding::{Evaluation, Output, OutputKind};
pub(crate) use prompt::{Prompt, Refusal, RunRequest};

use crate::abi::{RKLLMParam, RKLLMSamplingParam};
use crate::batch_generation::BatchGeneration;
use crate::chat_template::ChatTemplate;
use crate::generation::{Generation, Outcome, Reply, Report};
use crate::host_callbacks::HostCallbacks;
use crate::log::{Verbosity, info};
use crate::model_load::{LoadError, LoadedModel};
use crate::perf;
use crate::prefix_reuse::{ContextMemory, KvCells, common_prefix};
use crate::run_state::{RunState, should_abort};
use crate::sampler::{self, Sampler};
use crate::vocabulary::Token;

/// Why a range of the cache was not cleared.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ClearError {
    #[error("a range of the kv cache can only be cleared while a run without history is paused")]
    NotPaused,
    #[error("the kv cache holds {held} tokens, so the range {start}..{end} cannot be cleared")]
    OutOfRange { start: i32, end: i32, held: usize },
    #[error("the model cannot clear a part of its kv cache")]
    Indivisible,
}

/// One sequence: its cells and its conversation.
struct Slot {
    cells: KvCells<ContextMemory>,
    history: Vec<Token>,
    /// Tokens of the last rendered system prompt, for `keep_system_prompt`.
    system: Vec<Token>,
}

/// A prepared or paused run.
enum Run {
    Single(Box<Generation>),
    Batch(BatchGeneration),
}

impl Run {
    fn members(&self) -> &[Generation] {
        match self {
            Run::Single(generation) => std::slice::from_ref(generation),
            Run::Batch(batch) => batch.members(),
        }
    }
}

pub(crate) struct Engine {
    /// One for each sequence that can run at once (`n_batch`).
    slots: Vec<Slot>,
    /// The rows behind the negative tokens in cells and history.
    embeddings: EmbeddingRows,
    adapters: Adapters,
    prompt_cache: Option<PromptCache>,
    paused: Option<Run>,
    host: HostCallbacks,
    template: ChatTemplate,
    sampling: RKLLMSamplingParam,
    seed: u32,
    max_new_tokens: i32,
    n_keep: i32,
    skip_special_token: bool,
    ignore_eos_token: bool,
    verbosity: Verbosity,
    /// Last, so that what looks into it is gone before it is freed.
    model: LoadedModel,
}

impl Engine {
    /// # Safety
    /// `param.model_path` is NULL or a C string. `state` outlives the engine and does not move.
    pub(crate) unsafe fn load(
        param: &RKLLMParam,
        host: HostCallbacks,
        state: *const RunState,
    ) -> Result<Engine, LoadError> {
        let seed = sampler::seed_from(std::env::var("RKLLM_CPU_SEED").ok().as_deref())?;
        // SAFETY: the caller vouches for the path.
        let model = unsafe { LoadedModel::load(param) }?;
        // SAFETY: the context is alive, and `state` outlives it by this function's contract.
        unsafe {
            llama::llama_set_abort_callback(
                model.context(),
                Some(should_abort),
                state.cast_mut().cast::<c_void>(),
            );
        }
        let slot = |sequence| Slot {
            // SAFETY: the cells are dropped with the engine, before the model and its context.
            cells: KvCells::new(unsafe { ContextMemory::of(model.context(), sequence) }),
            history: Vec::new(),
            system: Vec::new(),
        };
        let slots = (0..usize::from(param.extend_param.n_batch))
            .map(slot)
            .collect();
        let template = templates::at_init(&model);
        let engine = Engine {
            slots,
            embeddings: EmbeddingRows::new(model.embedding_width()),
            adapters: Adapters::default(),
            prompt_cache: None,
            paused: None,
            host,
            template,
            sampling: sampler::at_init(param),
            seed,
            max_new_tokens: param.max_new_tokens,
            n_keep: param.n_keep,
            skip_special_token: param.skip_special_token,
            ignore_eos_token: param.ignore_eos_token,
            verbosity: Verbosity::from_environment(),
            model,
        };
        engine.print_details(param);
        Ok(engine)
    }

    /// Makes `requests`, one for each sequence, the run that `resume` goes on with. A paused one
    /// must be resumed instead.
    pub(crate) fn prepare(
        &mut self,
        requests: &[RunRequest<'_>],
        state: &RunState,
    ) -> Result<(), Refusal> {
        let used: Vec<&[Token]> = self
            .slots
            .iter()
            .flat_map(|slot| [slot.cells.tokens(), &slot.history])
            .collect();
        self.embeddings.retain(&used);
        let mut begun = Vec::with_capacity(requests.len());
        for (slot, request) in requests.iter().enumerate() {
            begun.push(self.begin(slot, request, state)?);
        }
        self.paused = match begun.len() {
            1 => begun.pop().map(|only| Run::Single(Box::new(only))),
            _ => Some(Run::Batch(BatchGeneration::new(begun))),
        };
        Ok(())
    }

    /// Sequences that run at once.
    pub(crate) fn sequences(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Gives up a generation that was prepared or paused; the history stays as it was.
    pub(crate) fn discard_paused(&mut self) {
        self.paused = None;
    }

    /// Goes on with a prepared or paused generation, or reports nothing and finishes if there is
    /// none.
    pub(crate) fn resume(
        &mut self,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        match self.paused.take() {
            Some(paused) => self.drive(paused, state, report),
            None => Outcome::Finished,
        }
    }

    fn drive(
        &mut self,
        mut run: Run,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        let _held = self.model.cpus.hold();
        let verbosity = self.verbosity;
        let mut report = |step: Report<'_>| {
            if let Report::Finish(perf) = &step
                && verbosity >= Verbosity::PERFORMANCE
            {
                perf::print_table(perf);
            }
            report(step)
        };
        let outcome = match &mut run {
            Run::Single(generation) => generation.drive(self, state, &mut report),
            Run::Batch(batch) => batch.drive(self, state, &mut report),
        };
        match outcome {
            Outcome::Paused => self.paused = Some(run),
            Outcome::Finished => {
                for generation in run.members() {
                    self.remember(generation);
                }
            }
            // What the cells hold after a failed decode is unknown.
            Outcome::Failed => self.forget_all(state),
        }
        outcome
    }

    /// `index`: the token of the last decode whose logits are drawn from; -1 is its last.
    pub(crate) fn sample(&self, sampler: &mut Sampler, index: i32) -> Token {
        // SAFETY: called after `evaluate` has completed, whose last token asked for logits, or
        // after `evaluate_together`, where each did.
        unsafe { sampler.sample(self.model.context(), index) }
    }

    pub(crate) fn ends_generation(&self, token: Token) -> bool {
        !self.ignore_eos_token && self.model.vocabulary.is_end_of_generation(token)
    }

    /// The token's bytes as the caller is to see them.
    pub(crate) fn visible_bytes(&self, token: Token) -> Vec<u8> {
        let vocabulary = self.model.vocabulary;
        if self.skip_special_token && vocabulary.is_end_of_generation(token) {
            return Vec::new();
        }
        vocabulary.piece(token, !self.skip_special_token)
    }

    /// Floats in a row of an embedding input.
    pub(crate) fn embedding_width(&self) -> usize {
        self.model.embedding_width()
    }

    pub(crate) fn kv_tokens(&self, slot: usize) -> usize {
        self.slots[slot].cells.len()
    }

    fn remember(&mut self, generation: &Generation) {
        let slot = &mut self.slots[generation.slot];
        if !generation.keeps_history {
            slot.history.clear();
        } else if generation.has_read_its_prompt() {
            slot.history = slot.cells.tokens().to_vec();
            slot.history.extend_from_slice(generation.unevaluated());
        }
        // A run that was stopped before its first token leaves the history as it was.
    }

    fn forget_all(&mut self, state: &RunState) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.cells.clear();
            slot.history.clear();
            slot.system.clear();
            state.set_kv_tokens(index, 0);
        }
        self.paused = None;
    }

    /// `rkllm_clear_kv_cache` without a range: history, cells and a paused generation go.
    pub(crate) fn clear(&mut self, keep_system_prompt: bool, state: &RunState) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let keep = if keep_system_prompt {
                common_prefix(slot.cells.tokens(), &slot.system)
            } else {
                0
            };
            slot.cells.truncate(keep);
            slot.history.clear();
            state.set_kv_tokens(index, slot.cells.len());
        }
        self.paused = None;
    }

    /// `rkllm_clear_kv_cache` with a range for each sequence, which closes its gap. All are checked
    /// before one is cleared.
    pub(crate) fn clear_ranges(
        &mut self,
        ranges: &[(i32, i32)],
        state: &RunState,
    ) -> Result<(), ClearError> {
        let without_history = |run: &Run| !run.members().iter().any(|run| run.keeps_history);
        if !self.paused.as_ref().is_some_and(without_history) {
            return Err(ClearError::NotPaused);
        }
        let mut checked = Vec::with_capacity(ranges.len());
        for (slot, &(start, end)) in self.slots.iter().zip(ranges) {
            let held = slot.cells.len();
            match (usize::try_from(start), usize::try_from(end)) {
                (Ok(from), Ok(to)) if from <= to && to <= held => checked.push((from, to)),
                _ => return Err(ClearError::OutOfRange { start, end, held }),
            }
        }
        let mut all_cut = true;
        for (index, (slot, (from, to))) in self.slots.iter_mut().zip(checked).enumerate() {
            all_cut &= slot.cells.cut(from, to);
            state.set_kv_tokens(index, slot.cells.len());
        }
        all_cut.then_some(()).ok_or(ClearError::Indivisible)
    }

    fn print_details(&self, param: &RKLLMParam) {
        if self.verbosity < Verbosity::DETAILS {
            return;
        }
        info!(
            "max_context_len: {}, max_new_tokens: {}, n_keep: {}, sampling: {:?}",
            param.max_context_len, param.max_new_tokens, param.n_keep, self.sampling
        );
        let vocabulary = self.model.vocabulary;
        if let Some(bos) = vocabulary.wanted_bos() {
            info!("BOS token: {bos}");
        }
        info!("EOS token: {}", vocabulary.end_of_sequence());
    }
}
