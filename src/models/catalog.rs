//! The models folder, read once at start and again on reload.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ChatTemplate;
use crate::generation::ModelId;

/// Which runtime a model file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// `.rkllm`: the vendor's library on the NPU.
    Rkllm,
    /// `.gguf`: the CPU runtime.
    Gguf,
}

/// Sampling defaults of a model (`[sampling]` in `model.toml`); `None`: the library's own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingDefaults {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i32>,
    pub repeat_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
}

/// One installed model and everything known about it without loading it.
#[derive(Clone, Debug)]
pub struct InstalledModel {
    pub id: ModelId,
    pub aliases: Vec<String>,
    pub path: PathBuf,
    pub kind: ModelKind,
    pub size_bytes: u64,
    /// Seconds since the epoch, the model file's modification time.
    pub created: u64,
    /// Context to load with, in tokens; `None`: min(the model's limit, 4096) once that is known.
    pub context_length: Option<u32>,
    /// The model's own limit where its file tells (GGUF).
    pub context_limit: Option<u32>,
    pub sampling: SamplingDefaults,
    /// Largest answer when the request sets none.
    pub max_new_tokens: Option<u32>,
    pub template: Option<Arc<ChatTemplate>>,
    /// tokenizer.json beside the model, used by the worker for counts.
    pub tokenizer_json: Option<PathBuf>,
    pub cpu_mask: Option<u32>,
    pub base_domain_id: Option<i32>,
    pub extra_stop: Vec<String>,
    pub extra_eos_ids: Vec<i32>,
    /// Texts that tokenise to control tokens; a client's message must not contain them as such.
    pub control_tokens: Arc<[String]>,
}

/// Something wrong with an entry of the models folder, in words for `rkllmd models`.
#[derive(Clone, Debug)]
pub struct ModelProblem {
    pub path: PathBuf,
    pub problem: String,
}

/// All installed models.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    models: Vec<Arc<InstalledModel>>,
    problems: Vec<ModelProblem>,
}

impl Catalog {
    /// Reads the folder. A broken entry becomes a problem, never an error of the whole.
    pub fn scan(_dir: &Path) -> std::io::Result<Self> {
        Ok(Self::default())
    }

    pub fn models(&self) -> &[Arc<InstalledModel>] {
        &self.models
    }

    pub fn problems(&self) -> &[ModelProblem] {
        &self.problems
    }

    /// Finds a model by id or alias.
    pub fn find(&self, name: &str) -> Option<&Arc<InstalledModel>> {
        self.models
            .iter()
            .find(|m| &*m.id == name || m.aliases.iter().any(|a| a == name))
    }
}
