use serde::{Deserialize, Serialize};

use super::TemplateSource;
use crate::generation::SamplingRequest;
use crate::library_calls::ModelShape;
use crate::models::{EmbeddingDefaults, ModelKind};

/// What a model's files say about it, but for its template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The manifest's; `None`: its place names it.
    pub id: Option<String>,
    pub aliases: Vec<String>,
    /// The name of the model's file; of a split GGUF the first part.
    pub file: String,
    pub kind: ModelKind,
    /// All parts together.
    pub size_bytes: u64,
    /// Seconds since the epoch, the file's modification time.
    pub created: u64,
    pub context_length: Option<u32>,
    pub context_limit: Option<u32>,
    pub parallel: Option<u8>,
    pub shape: ModelShape,
    pub sampling: SamplingRequest,
    pub embeddings: EmbeddingDefaults,
    pub max_new_tokens: Option<u32>,
    pub thinking_budget_tokens: Option<u32>,
    /// Whether a `tokenizer.json` could be opened.
    pub has_tokenizer: bool,
    pub cpu_mask: Option<u32>,
    pub base_domain_id: Option<i32>,
    pub extra_stop: Vec<String>,
    pub extra_eos_ids: Vec<i32>,
    /// Where the template comes from, also if its text cannot be had.
    pub template_source: Option<TemplateSource>,
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

impl ModelFacts {
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}
