//! From a request to a generation that can be driven: the prompt's tokens, the history before them,
//! and the cells that are already right. Whatever is refused is refused here, before the cache is
//! touched and before any callback.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::Engine;
use crate::abi::RKLLMSamplingParam;
use crate::chat_template::{TemplateError, TurnInput};
use crate::computing::{AdapterError, Computing, Inputs, NO_ADAPTER, OutputKind};
use crate::generation::{Generation, Plan, Spelling};
use crate::host_callbacks::HostError;
use crate::log::{Verbosity, info};
use crate::prefix_reuse::{Reused, common_prefix};
use crate::run_extension::RunExtension;
use crate::sampler::{self, Sampler, SamplingError};
use crate::vocabulary::Token;

/// Positions of the window that a prompt may not fill, measured on the vendor's runtime.
const RESERVED_POSITIONS: usize = 4;

/// So many tokens behind the cells of a prompt are evaluated as if they had been drawn.
const GONE_ON_WITH: usize = 32;

pub(crate) enum Prompt<'a> {
    Turn {
        role: String,
        text: String,
        enable_thinking: bool,
    },
    Tokens(&'a [Token]),
    /// Rows of `Engine::embedding_width` floats.
    Embeddings(&'a [f32]),
    /// The sequence idles while others run.
    Nothing,
}

pub(crate) struct RunRequest<'a> {
    pub(crate) prompt: Prompt<'a>,
    pub(crate) output: OutputKind,
    /// The adapter's name; none runs the model as it is.
    pub(crate) adapter: Option<String>,
    /// None: those given at init.
    pub(crate) sampling: Option<RKLLMSamplingParam>,
    /// Zero or less: the value given at init.
    pub(crate) max_new_tokens: i32,
    pub(crate) keep_history: bool,
    /// Where the prompt's cells are saved once it is evaluated.
    pub(crate) save_prompt_to: Option<PathBuf>,
}

/// Why a run was refused: no callback is made.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error(
        "the length of prompt is greater than max context (prompt: {prompt} tokens, max context: {max_context})"
    )]
    PromptTooLong { prompt: usize, max_context: usize },
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("token id {0} is outside the model's vocabulary")]
    UnknownToken(Token),
    #[error(
        "the log probabilities of a prompt need RKLLM_INFER_GENERATE, and tokens instead of embeddings"
    )]
    PromptLogprobs,
    #[error("{what} needs n_batch 1")]
    Batched { what: &'static str },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

impl Engine {
    /// Tokenises, refuses what does not fit, and keeps the cells that are already right.
    pub(super) fn begin(
        &mut self,
        slot: usize,
        request: &RunRequest<'_>,
    ) -> Result<Generation, Refusal> {
        let extension = self.extension.take();
        if self.slots.len() > 1 && extension.is_some() {
            return Err(Refusal::Batched {
                what: "an extension of a run",
            });
        }
        if self.slots.len() > 1 && request.output != OutputKind::Text {
            return Err(Refusal::Batched {
                what: "getting logits or hidden states",
            });
        }
        if self.slots.len() > 1 && request.save_prompt_to.is_some() {
            return Err(Refusal::Batched {
                what: "saving a prompt cache",
            });
        }
        let sampling = request.sampling.unwrap_or(self.sampling);
        sampler::check(&sampling)?;
        let extension = extension.unwrap_or_default();
        extension.check_beside(&sampling)?;
        let logprobs = extension.logprobs;
        let (is_deterministic, reused) = match extension.is_deterministic {
            true => (true, Reused::OfPrompts),
            false if self.vendor_only => (false, Reused::AsTheyAre),
            false => (false, Reused::All),
        };
        let scores_prompt = logprobs.is_some_and(|logprobs| logprobs.of_prompt);
        let has_tokens = !matches!(request.prompt, Prompt::Embeddings(_));
        if scores_prompt && (request.output != OutputKind::Text || !has_tokens) {
            return Err(Refusal::PromptLogprobs);
        }
        let adapter = match &request.adapter {
            Some(name) => self.adapters.find(name)?,
            None => NO_ADAPTER,
        };
        if matches!(request.prompt, Prompt::Nothing) {
            return self.idle(slot, request, (sampling, adapter));
        }
        let mut history = self.slots[slot].history.clone();
        let prompt = self.prompt_tokens(slot, &request.prompt, &mut history)?;
        let max_context = self.max_context() - RESERVED_POSITIONS;
        if prompt.len() > max_context {
            return Err(Refusal::PromptTooLong {
                prompt: prompt.len(),
                max_context,
            });
        }
        let sequence = self.seat.sequence(slot);
        let mut computing = self.seat.computing();
        let room = max_context - prompt.len();
        self.make_history_fit(&mut computing, sequence, &mut history, room);
        // A row is wanted for each token of the prompt, also of one that is in the cells.
        let wanted_from = history.len();
        let mut tokens = history;
        tokens.extend_from_slice(&prompt);
        let most = match request.output {
            // What comes before the first one is evaluated as well.
            OutputKind::Text if scores_prompt => wanted_from.saturating_sub(1),
            OutputKind::Text => tokens.len() - 1,
            OutputKind::Logits if self.vendor_only => tokens.len() - 1,
            OutputKind::HiddenStates | OutputKind::Logits => wanted_from,
        };
        self.restore_prompt_cache(&mut computing, sequence, &tokens, most, adapter);
        let cells = computing.cells(sequence);
        let alike = common_prefix(cells.tokens(), &tokens).min(most);
        let is_behind_a_prompt = cells.is_behind_a_prompt(alike, tokens.len());
        let reused = computing.reuse(sequence, &tokens, (most, reused), adapter);
        drop(computing);
        // What is evaluated again for its rounding alone was in the cells.
        let wanted_from = match request.output {
            OutputKind::Logits if self.vendor_only => alike,
            _ => wanted_from,
        };
        let is_gone_on_with = self.vendor_only && is_behind_a_prompt && reused == alike;
        let drawn_from =
            Some(reused).filter(|reused| is_gone_on_with && tokens.len() - reused <= GONE_ON_WITH);
        if self.verbosity >= Verbosity::DETAILS {
            info!("kv cache matches {reused} / {} tokens", tokens.len());
            info!("prompt tokens: {prompt:?}");
        }
        let vocabulary = self.seat.weights.vocabulary;
        let mut sampler = Sampler::new(&sampling, extension, self.seed, vocabulary);
        sampler.accept_prompt(&tokens);
        let max_new_tokens = match request.max_new_tokens {
            limit if limit > 0 => Some(limit as usize),
            _ => usize::try_from(self.max_new_tokens).ok().filter(|&n| n > 0),
        };
        Ok(Generation::new(Plan {
            sequence,
            n_keep: self.kept_at_shift(tokens.len()),
            tokens,
            output: request.output,
            wanted_from,
            drawn_from,
            adapter,
            sampler,
            logprobs,
            max_new_tokens,
            keeps_history: request.keep_history,
            is_deterministic,
            save_prompt_to: request.save_prompt_to.clone(),
            inputs: self.inputs(),
            spelling: self.spelling(),
        }))
    }

    /// A sequence that is given nothing: what it holds stays as it is.
    fn idle(
        &self,
        slot: usize,
        request: &RunRequest<'_>,
        (sampling, adapter): (RKLLMSamplingParam, u64),
    ) -> Result<Generation, Refusal> {
        if self.slots.len() == 1 || self.vendor_only {
            return Err(Refusal::EmptyPrompt);
        }
        let vocabulary = self.seat.weights.vocabulary;
        let extension = RunExtension::default();
        Ok(Generation::idle(Plan {
            sequence: self.seat.sequence(slot),
            n_keep: 0,
            tokens: Vec::new(),
            output: request.output,
            wanted_from: 0,
            drawn_from: None,
            adapter,
            sampler: Sampler::new(&sampling, extension, self.seed, vocabulary),
            logprobs: None,
            max_new_tokens: None,
            keeps_history: request.keep_history,
            is_deterministic: false,
            save_prompt_to: None,
            inputs: self.inputs(),
            spelling: self.spelling(),
        }))
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            rows: Arc::clone(&self.embeddings),
            host: self.host,
        }
    }

    fn spelling(&self) -> Spelling {
        Spelling {
            vocabulary: self.seat.weights.vocabulary,
            skip_special_token: self.skip_special_token,
            ignore_eos_token: self.ignore_eos_token,
            verbosity: self.verbosity,
        }
    }

    fn prompt_tokens(
        &mut self,
        slot: usize,
        prompt: &Prompt<'_>,
        history: &mut Vec<Token>,
    ) -> Result<Vec<Token>, Refusal> {
        let vocabulary = self.seat.weights.vocabulary;
        let tokens = match prompt {
            Prompt::Tokens(tokens) => {
                known(tokens, vocabulary.len())?;
                tokens.to_vec()
            }
            Prompt::Embeddings(values) => {
                // Not shared: no run is in progress.
                let embeddings = Arc::make_mut(&mut self.embeddings);
                let rows = values.chunks_exact(embeddings.width());
                rows.map(|row| embeddings.token_of(row)).collect()
            }
            Prompt::Nothing => Vec::new(),
            Prompt::Turn {
                role,
                text,
                enable_thinking,
            } => {
                let turn = self.template.render(&TurnInput {
                    role,
                    prompt: text,
                    enable_thinking: *enable_thinking,
                    continues: !history.is_empty(),
                })?;
                if turn.closes_the_last_turn
                    && history
                        .last()
                        .is_some_and(|&token| vocabulary.is_end_of_generation(token))
                {
                    history.pop();
                }
                let first = history.is_empty();
                // None where the host tokenises, which puts it there itself.
                let bos = vocabulary.wanted_bos();
                if first {
                    let system = self.tokenize(&turn.system_text)?;
                    self.slots[slot].system = with_bos(system, bos);
                }
                let tokens = self.tokenize(&turn.text)?;
                if first { with_bos(tokens, bos) } else { tokens }
            }
        };
        if tokens.is_empty() {
            return Err(Refusal::EmptyPrompt);
        }
        Ok(tokens)
    }

    fn tokenize(&self, text: &str) -> Result<Vec<Token>, Refusal> {
        let vocabulary = self.seat.weights.vocabulary;
        if vocabulary.tokenizes() {
            return Ok(vocabulary.tokenize(text));
        }
        let tokens = self.host.tokenize(text)?;
        known(&tokens, vocabulary.len())?;
        Ok(tokens)
    }

    /// Shortens a history that leaves no room for the prompt, oldest first but for `n_keep`.
    fn make_history_fit(
        &self,
        computing: &mut Computing,
        sequence: usize,
        history: &mut Vec<Token>,
        room: usize,
    ) {
        let excess = history.len().saturating_sub(room);
        if excess == 0 {
            return;
        }
        let keep = usize::try_from(self.n_keep).unwrap_or(0).min(room);
        // Cells that agree with the history are shifted along with it; if they cannot be, the
        // prefix that still agrees is found again by `reuse`.
        let cells = computing.cells(sequence);
        if common_prefix(cells.tokens(), history) >= keep + excess {
            cells.cut(keep, keep + excess);
        }
        history.drain(keep..keep + excess);
    }

    /// How much of the window's beginning survives a shift: `n_keep`, or without one all that the run began with,
    /// but never so much that less than half of the window moves.
    fn kept_at_shift(&self, context: usize) -> usize {
        let bos = usize::from(self.seat.weights.vocabulary.wanted_bos().is_some());
        match usize::try_from(self.n_keep) {
            Ok(n_keep) => n_keep.max(bos),
            Err(_) => context.min(self.max_context() / 2),
        }
        .min(self.max_context() - RESERVED_POSITIONS)
    }
}

fn known(tokens: &[Token], vocabulary: i32) -> Result<(), Refusal> {
    let unknown = tokens.iter().find(|t| !(0..vocabulary).contains(*t));
    unknown.map_or(Ok(()), |&token| Err(Refusal::UnknownToken(token)))
}

/// The beginning-of-sequence token is added where the vocabulary wants one and the text has none.
fn with_bos(mut tokens: Vec<Token>, wanted: Option<Token>) -> Vec<Token> {
    if let Some(bos) = wanted
        && tokens.first() != Some(&bos)
    {
        tokens.insert(0, bos);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wanted_bos_is_there_exactly_once() {
        assert_eq!(with_bos(vec![5, 6], Some(1)), [1, 5, 6]);
        assert_eq!(with_bos(vec![1, 5, 6], Some(1)), [1, 5, 6]);
        assert_eq!(with_bos(vec![5, 6], None), [5, 6]);
        assert_eq!(with_bos(vec![], Some(1)), [1]);
    }
}
