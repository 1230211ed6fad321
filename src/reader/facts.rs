//! What is known of a model without loading it.

use serde::{Deserialize, Serialize};

use super::{AdapterFacts, Judge, ModelSource, RkllmFile, TemplateSource};
use crate::generation::{KeepAlive, SamplingRequest};
use crate::library_calls::{ModelShape, Pooling};

/// Tokens of context where neither manifest nor file tells.
const DEFAULT_CONTEXT_TOKENS: u32 = 4096;
/// Every runtime wants a multiple of this (SDK documentation of 1.2.0 and later).
const CONTEXT_STEP_TOKENS: u32 = 32;

/// Which runtime a model file is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// `.rkllm`: the vendor's library on the NPU.
    Rkllm,
    /// `.gguf`: the CPU runtime.
    #[default]
    Gguf,
}

/// How a model's hidden states become embeddings (`[embeddings]` in `model.toml`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingDefaults {
    pub pooling: Pooling,
    /// Whether an embedding's length is made 1.
    pub normalize: bool,
    /// Put behind each text, such as an end-of-text token that the model was trained with.
    pub suffix: String,
}

impl Default for EmbeddingDefaults {
    fn default() -> Self {
        Self {
            pooling: Pooling::Last,
            normalize: true,
            suffix: String::new(),
        }
    }
}

/// What a model's files say about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    pub aliases: Vec<String>,
    pub kind: ModelKind,
    /// All parts together.
    pub size_bytes: u64,
    /// Seconds since the epoch, the model file's modification time.
    pub created: u64,
    /// Context to load with, in tokens; `None`: min(the model's limit, 4096) once that is known.
    pub context_length: Option<u32>,
    /// The model's own limit where its file tells (GGUF).
    pub context_limit: Option<u32>,
    /// What its file calls the kind of network it is (GGUF).
    pub architecture: Option<String>,
    /// What its file says in plain (`.rkllm`).
    pub rkllm: Option<RkllmFile>,
    /// Where a pull has brought it from; `None`: it came otherwise.
    pub source: Option<ModelSource>,
    /// The model file tells what its tokens are spelled like.
    pub spells_tokens: bool,
    /// What its vocabulary and its embeddings measure, where its files tell.
    pub shape: ModelShape,
    /// Its defaults.
    pub sampling: SamplingRequest,
    pub embeddings: EmbeddingDefaults,
    /// How it judges documents; `None`: it is no reranker.
    pub judge: Option<Judge>,
    /// Largest answer when the request sets none.
    pub max_new_tokens: Option<u32>,
    /// The most tokens of thoughts when the request says nothing; `None`: no such limit.
    pub thinking_budget_tokens: Option<u32>,
    /// Whether the oldest turns of what is too long are left out; `None`: as the dialect has it.
    pub truncate: Option<bool>,
    /// Where the template came from, also if its text cannot be had or turned out to be broken.
    pub template_source: Option<TemplateSource>,
    /// Answers made at the same time; `None`: as the setting says.
    pub parallel: Option<u8>,
    /// Answers made in one batch by one handle; `None`: each by itself.
    pub batch: Option<u8>,
    /// For how long it stays loaded that nothing uses; `None`: as the setting says.
    pub keep_alive: Option<KeepAlive>,
    pub cpu_mask: Option<u32>,
    pub base_domain_id: Option<i32>,
    pub extra_stop: Vec<String>,
    pub extra_eos_ids: Vec<i32>,
    /// Its runtime prints special tokens.
    pub prints_special_tokens: bool,
    /// What its vocabulary has to mark a gap that is to be filled: before the text in front of it, between that and the
    /// text behind, and behind that.
    pub gap_markers: Option<[String; 3]>,
    /// Those that `model.toml` names, in its order.
    pub adapters: Vec<AdapterFacts>,
}

impl ModelFacts {
    /// The context it is loaded with unless its runtime allows less, in tokens: `model.toml`'s, else
    /// min(the model's limit, 4096), in steps of 32.
    pub fn context_tokens(&self) -> u32 {
        let wanted = self.context_length.unwrap_or_else(|| {
            let limit = self.context_limit.unwrap_or(DEFAULT_CONTEXT_TOKENS);
            limit.min(DEFAULT_CONTEXT_TOKENS)
        });
        (wanted / CONTEXT_STEP_TOKENS).max(1) * CONTEXT_STEP_TOKENS
    }
}

/// What a reader tells of a location with a model, but for its template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The manifest's; `None`: its location names it.
    pub id: Option<String>,
    /// The name of the model's file; of a split GGUF the first part.
    pub file: String,
    /// Whether a `tokenizer.json` could be opened.
    pub has_tokenizer: bool,
    pub facts: ModelFacts,
    pub notes: Vec<String>,
    /// What is wrong with files that the model can be used without.
    pub problems: Vec<Problem>,
}

/// Something wrong with a file of the model's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its name.
    pub file: String,
    pub problem: String,
}

impl ModelReport {
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}
