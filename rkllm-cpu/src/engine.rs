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

use adapters::Adapters;
use embedding_rows::EmbeddingRows;
use prompt_cache::PromptCache;

pub(crate) use decoding::{Evaluation, Output, OutputKind};
pub(crate) use prompt::{Prompt, Refusal, RunRequest};

use crate::abi::{RKLLMParam, RKLLMSamplingParam};
use crate::chat_template::ChatTemplate;
use crate::generation::{Generation, Outcome, Reply, Report};
use crate::log::{Verbosity, info, warning};
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

pub(crate) struct Engine {
    cells: KvCells<ContextMemory>,
    history: Vec<Token>,
    /// The rows behind the negative tokens in cells and history.
    embeddings: EmbeddingRows,
    adapters: Adapters,
    prompt_cache: Option<PromptCache>,
    paused: Option<Generation>,
    /// Tokens of the last rendered system prompt, for `keep_system_prompt`.
    system: Vec<Token>,
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
        // SAFETY: the cells are dropped with the engine, before the model and its context.
        let memory = unsafe { ContextMemory::of(model.context()) };
        let source = model.chat_template();
        let template = ChatTemplate::of_model(source.as_deref()).unwrap_or_else(|| {
            warning!(
                "Chat template auto-parsing failed: please configure it via rkllm_set_chat_template"
            );
            ChatTemplate::Raw
        });
        let engine = Engine {
            cells: KvCells::new(memory),
            history: Vec::new(),
            embeddings: EmbeddingRows::new(model.embedding_width()),
            adapters: Adapters::default(),
            prompt_cache: None,
            paused: None,
            system: Vec::new(),
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

    /// Makes `request` the generation that `resume` goes on with. A paused one must be resumed
    /// instead.
    pub(crate) fn prepare(
        &mut self,
        request: &RunRequest<'_>,
        state: &RunState,
    ) -> Result<(), Refusal> {
        self.paused = Some(self.begin(request, state)?);
        Ok(())
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
        mut generation: Generation,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        let _held = self.model.cpus.hold();
        let verbosity = self.verbosity;
        let outcome = generation.drive(self, state, &mut |step| {
            if let Report::Finish(perf) = &step
                && verbosity >= Verbosity::PERFORMANCE
            {
                perf::print_table(perf);
            }
            report(step)
        });
        match outcome {
            Outcome::Paused => self.paused = Some(generation),
            Outcome::Finished => self.remember(&generation),
            // What the cells hold after a failed decode is unknown.
            Outcome::Failed => self.forget_all(state),
        }
        outcome
    }

    pub(crate) fn sample(&self, sampler: &mut Sampler) -> Token {
        // SAFETY: called after `evaluate` has completed, whose last token asked for logits.
        unsafe { sampler.sample(self.model.context()) }
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

    pub(crate) fn kv_tokens(&self) -> usize {
        self.cells.len()
    }

    fn remember(&mut self, generation: &Generation) {
        if !generation.keeps_history {
            self.history.clear();
        } else if generation.has_read_its_prompt() {
            self.history = self.cells.tokens().to_vec();
            self.history.extend_from_slice(generation.unevaluated());
        }
        // A run that was stopped before its first token leaves the history as it was.
    }

    fn forget_all(&mut self, state: &RunState) {
        self.cells.clear();
        self.history.clear();
        self.paused = None;
        state.set_kv_tokens(0);
    }

    /// `rkllm_clear_kv_cache` without a range: history, cells and a paused generation go.
    pub(crate) fn clear(&mut self, keep_system_prompt: bool, state: &RunState) {
        let keep = if keep_system_prompt {
            common_prefix(self.cells.tokens(), &self.system)
        } else {
            0
        };
        self.cells.truncate(keep);
        self.history.clear();
        self.paused = None;
        state.set_kv_tokens(self.cells.len());
    }

    /// `rkllm_clear_kv_cache` with a range, which closes its gap.
    pub(crate) fn clear_range(
        &mut self,
        start: i32,
        end: i32,
        state: &RunState,
    ) -> Result<(), ClearError> {
        if self
            .paused
            .as_ref()
            .is_none_or(|paused| paused.keeps_history)
        {
            return Err(ClearError::NotPaused);
        }
        let held = self.cells.len();
        let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
            return Err(ClearError::OutOfRange { start, end, held });
        };
        if from > to || to > held {
            return Err(ClearError::OutOfRange { start, end, held });
        }
        let cut = self.cells.cut(from, to);
        state.set_kv_tokens(self.cells.len());
        cut.then_some(()).ok_or(ClearError::Indivisible)
    }

    /// `rkllm_set_chat_template`: takes effect at once and clears the cache. Three empty strings
    /// are raw mode; prefix and postfix both NULL keep the model's own template.
    pub(crate) fn set_template(
        &mut self,
        system: Option<&str>,
        prefix: Option<&str>,
        postfix: Option<&str>,
        state: &RunState,
    ) {
        let source = self.model.chat_template();
        let own = ChatTemplate::of_model(source.as_deref());
        self.template = match (prefix, postfix, own) {
            (None, None, Some(ChatTemplate::Model { template, .. })) => ChatTemplate::Model {
                template,
                system: system.filter(|s| !s.is_empty()).map(str::to_owned),
            },
            _ => {
                let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
                let (system, prefix, postfix) = (text(system), text(prefix), text(postfix));
                if system.is_empty() && prefix.is_empty() && postfix.is_empty() {
                    ChatTemplate::Raw
                } else {
                    ChatTemplate::Custom {
                        system,
                        prefix,
                        postfix,
                    }
                }
            }
        };
        self.system.clear();
        self.forget_all(state);
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
