//! One handle's model and conversation. Used by one thread at a time; the cells that are physically
//! there, the tokens that logically are the history, and a paused generation are three different
//! things, and every call here says which of them it changes.

use std::sync::Arc;

use thiserror::Error;

mod adapters;
mod prompt;
mod prompt_cache;
mod templates;

use adapters::Adapters;

pub(crate) use prompt::{Prompt, Refusal, RunRequest};

use crate::abi::{RKLLMParam, RKLLMRunExtension, RKLLMSamplingParam};
use crate::batch_generation::BatchGeneration;
use crate::chat_template::ChatTemplate;
use crate::embedding_rows::EmbeddingRows;
use crate::generation::{Generation, Outcome, Reply, Report};
use crate::host_callbacks::HostCallbacks;
use crate::log::{Verbosity, info};
use crate::model_load::{LoadError, Loading};
use crate::perf;
use crate::prefix_reuse::common_prefix;
use crate::prompt_file::PromptCache;
use crate::run_extension::{ExtensionError, RunExtension};
use crate::run_state::RunState;
use crate::sampler;
use crate::seat::Seat;
use crate::vendor_only;
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

/// One conversation.
#[derive(Default)]
struct Slot {
    history: Vec<Token>,
    /// Tokens of the last rendered system prompt, for `keep_system_prompt`.
    system: Vec<Token>,
}

/// A prepared or paused run.
pub(crate) enum Run {
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

    fn members_mut(&mut self) -> &mut [Generation] {
        match self {
            Run::Single(generation) => std::slice::from_mut(generation),
            Run::Batch(batch) => batch.members_mut(),
        }
    }
}

pub(crate) struct Engine {
    /// One for each sequence that can run at once (`n_batch`).
    slots: Vec<Slot>,
    /// The rows behind the negative tokens in cells and history.
    embeddings: Arc<EmbeddingRows>,
    adapters: Adapters,
    prompt_cache: Option<PromptCache>,
    paused: Option<Run>,
    /// For the next run that begins.
    extension: Option<RunExtension>,
    host: HostCallbacks,
    template: ChatTemplate,
    sampling: RKLLMSamplingParam,
    seed: u32,
    max_new_tokens: i32,
    n_keep: i32,
    skip_special_token: bool,
    ignore_eos_token: bool,
    verbosity: Verbosity,
    /// It has nothing beyond the vendor's.
    vendor_only: bool,
    /// Last, so that what looks into the model is gone before it is freed.
    seat: Seat,
}

impl Engine {
    /// # Safety
    /// `param.model_path` is NULL or a C string.
    pub(crate) unsafe fn load(
        param: &RKLLMParam,
        host: HostCallbacks,
        state: &RunState,
    ) -> Result<Engine, LoadError> {
        let seed = sampler::seed_from(std::env::var(sampler::SEED).ok().as_deref())?;
        // SAFETY: the caller vouches for the path.
        let loading = unsafe { Loading::of(param, host.embeds()) }?;
        let seat = Seat::take(&loading, usize::from(param.extend_param.n_batch), state)?;
        let template = templates::at_init(&seat.weights);
        let host = host.beside(seat.weights.parts());
        let engine = Engine {
            slots: (state.kv_counters().iter())
                .map(|_| Slot::default())
                .collect(),
            embeddings: Arc::new(EmbeddingRows::new(seat.weights.embedding_width())),
            adapters: Adapters::default(),
            prompt_cache: None,
            paused: None,
            extension: None,
            host,
            template,
            sampling: sampler::at_init(param),
            seed,
            max_new_tokens: param.max_new_tokens,
            n_keep: param.n_keep,
            skip_special_token: param.skip_special_token,
            ignore_eos_token: param.ignore_eos_token,
            verbosity: Verbosity::from_environment(),
            vendor_only: vendor_only::is_asked_for(),
            seat,
        };
        engine.print_details(param);
        Ok(engine)
    }

    /// Makes `requests`, one for each sequence, the run that `resume` goes on with. A paused one
    /// must be resumed instead.
    pub(crate) fn prepare(&mut self, requests: &[RunRequest<'_>]) -> Result<(), Refusal> {
        self.forget_unused_rows();
        let mut begun = Vec::with_capacity(requests.len());
        for (slot, request) in requests.iter().enumerate() {
            begun.push(self.begin(slot, request)?);
        }
        if begun.iter().all(Generation::has_ended) {
            return Err(Refusal::EmptyPrompt);
        }
        self.paused = match begun.len() {
            1 => begun.pop().map(|only| Run::Single(Box::new(only))),
            _ => Some(Run::Batch(BatchGeneration::new(begun))),
        };
        Ok(())
    }

    fn forget_unused_rows(&mut self) {
        if self.embeddings.is_empty() {
            return;
        }
        let mut computing = self.seat.computing();
        let mut used: Vec<Vec<Token>> = Vec::with_capacity(2 * self.slots.len());
        for (slot, held) in self.slots.iter().enumerate() {
            let cells = computing.cells(self.seat.sequence(slot));
            used.extend([cells.tokens().to_vec(), held.history.clone()]);
        }
        drop(computing);
        Arc::make_mut(&mut self.embeddings).retain(&used);
    }

    /// What the next run that begins has beside its parameters; none takes it back.
    ///
    /// # Safety
    /// It is NULL or as its header says.
    pub(crate) unsafe fn extend_next_run(
        &mut self,
        extension: *const RKLLMRunExtension,
    ) -> Result<(), ExtensionError> {
        self.extension = None;
        if self.vendor_only {
            return Err(ExtensionError::VendorOnly);
        }
        if !extension.is_null() {
            let vocabulary_len = self.seat.weights.vocabulary.len();
            // SAFETY: by this function's contract.
            let extension = unsafe {
                let raw = RunExtension::copied(extension)?;
                RunExtension::of(&raw, vocabulary_len)?
            };
            self.extension = Some(extension);
        }
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

    /// Goes on with a prepared or paused generation, which is there: a run that was accepted is told its
    /// end.
    pub(crate) fn resume(
        &mut self,
        state: &Arc<RunState>,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        match self.paused.take() {
            Some(paused) => self.drive(paused, state, report),
            None => {
                report(Report::Error);
                Outcome::Failed
            }
        }
    }

    fn drive(
        &mut self,
        run: Run,
        state: &Arc<RunState>,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        let verbosity = self.verbosity;
        let mut report = |step: Report<'_>| {
            if let Report::Finish(perf) = &step
                && verbosity >= Verbosity::PERFORMANCE
            {
                perf::print_table(perf);
            }
            report(step)
        };
        let (run, outcome) = self.seat.drive(run, state, &mut report);
        match (outcome, run) {
            (Outcome::Paused, run) => self.paused = run,
            (Outcome::Finished, Some(run)) => {
                for (slot, generation) in run.members().iter().enumerate() {
                    self.remember(slot, generation);
                }
            }
            // What the cells hold after a failed decode is unknown.
            (Outcome::Finished, None) | (Outcome::Failed, _) => self.forget_all(),
        }
        outcome
    }

    /// Floats in a row of an embedding input.
    pub(crate) fn embedding_width(&self) -> usize {
        self.seat.weights.embedding_width()
    }

    fn max_context(&self) -> usize {
        self.seat.max_context
    }

    fn remember(&mut self, slot: usize, generation: &Generation) {
        let history = &mut self.slots[slot].history;
        if !generation.plan().keeps_history {
            history.clear();
        } else if generation.has_read_its_prompt() {
            *history = generation.tokens().to_vec();
        }
        // A run that was stopped before its first token leaves the history as it was.
    }

    fn forget_all(&mut self) {
        let mut computing = self.seat.computing();
        for (slot, held) in self.slots.iter_mut().enumerate() {
            computing.cells(self.seat.sequence(slot)).clear();
            *held = Slot::default();
        }
        drop(computing);
        self.paused = None;
    }

    /// `rkllm_clear_kv_cache` without a range: history, cells and a paused generation go.
    pub(crate) fn clear(&mut self, keep_system_prompt: bool) {
        let mut computing = self.seat.computing();
        for (slot, held) in self.slots.iter_mut().enumerate() {
            let cells = computing.cells(self.seat.sequence(slot));
            let keep = if keep_system_prompt {
                common_prefix(cells.tokens(), &held.system)
            } else {
                0
            };
            cells.truncate(keep);
            held.history.clear();
        }
        drop(computing);
        self.paused = None;
    }

    /// `rkllm_clear_kv_cache` with a range for each sequence, which closes its gap. All are checked
    /// before one is cleared.
    pub(crate) fn clear_ranges(&mut self, ranges: &[(i32, i32)]) -> Result<(), ClearError> {
        let without_history =
            |run: &Run| !(run.members().iter()).any(|run| run.plan().keeps_history);
        let paused = self.paused.as_mut().filter(|run| without_history(run));
        let members = paused.ok_or(ClearError::NotPaused)?.members_mut();
        let mut computing = self.seat.computing();
        let mut checked = Vec::with_capacity(ranges.len());
        for (generation, &(start, end)) in members.iter().zip(ranges) {
            let held = computing.held(generation.plan().sequence);
            match (usize::try_from(start), usize::try_from(end)) {
                (Ok(from), Ok(to)) if from <= to && to <= held => checked.push((from, to)),
                _ => return Err(ClearError::OutOfRange { start, end, held }),
            }
        }
        let mut all_cut = true;
        for (generation, (from, to)) in members.iter_mut().zip(checked) {
            let cut = computing.cells(generation.plan().sequence).cut(from, to);
            if cut {
                generation.forget_range(from, to);
            }
            all_cut &= cut;
        }
        all_cut.then_some(()).ok_or(ClearError::Indivisible)
    }

    fn print_details(&self, param: &RKLLMParam) {
        if self.verbosity < Verbosity::DETAILS {
            return;
        }
        info!(
            "max_context_len: {}, max_new_tokens: {}, n_keep: {}, sampling: {:?}",
            self.max_context(),
            param.max_new_tokens,
            param.n_keep,
            self.sampling
        );
        let vocabulary = self.seat.weights.vocabulary;
        if let Some(bos) = vocabulary.wanted_bos() {
            info!("BOS token: {bos}");
        }
        info!("EOS token: {}", vocabulary.end_of_sequence());
    }
}
