//! The models folder, read once at start and again on reload.
//!
//! An installed model is a file `X.gguf` or `X.rkllm` in the folder (its id is `X`), or a subfolder
//! that holds exactly one such file (its id is the subfolder's name). Beside a file in a subfolder
//! may stand `model.toml`, `chat_template.jinja`, `tokenizer_config.json` and `tokenizer.json`;
//! beside a file in the folder itself, `X.toml`. Ids and aliases are unique among the models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::model_entry::{self, ModelEntry};
use super::{ChatTemplate, ControlTokens, TemplateSource};
use crate::generation::ModelId;
use crate::library_calls::Pooling;

/// Which runtime a model file is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// `.rkllm`: the vendor's library on the NPU.
    Rkllm,
    /// `.gguf`: the CPU runtime.
    #[default]
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

/// How a model's hidden states become embeddings (`[embeddings]` in `model.toml`).
#[derive(Clone, Debug, PartialEq)]
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

/// One installed model and everything known about it without loading it.
#[derive(Clone, Debug, Default)]
pub struct InstalledModel {
    pub id: ModelId,
    pub aliases: Vec<String>,
    /// The model file; of a split GGUF the first part.
    pub path: PathBuf,
    pub kind: ModelKind,
    /// All parts together.
    pub size_bytes: u64,
    /// Seconds since the epoch, the model file's modification time.
    pub created: u64,
    /// Context to load with, in tokens; `None`: min(the model's limit, 4096) once that is known.
    pub context_length: Option<u32>,
    /// The model's own limit where its file tells (GGUF).
    pub context_limit: Option<u32>,
    pub sampling: SamplingDefaults,
    pub embeddings: EmbeddingDefaults,
    /// Largest answer when the request sets none.
    pub max_new_tokens: Option<u32>,
    /// `None`: no template is known and chat requests cannot be served.
    pub template: Option<Arc<ChatTemplate>>,
    /// Where the template came from, also if it then turned out to be broken.
    pub template_source: Option<TemplateSource>,
    /// tokenizer.json beside the model, used by the worker for counts.
    pub tokenizer_json: Option<PathBuf>,
    pub cpu_mask: Option<u32>,
    pub base_domain_id: Option<i32>,
    pub extra_stop: Vec<String>,
    pub extra_eos_ids: Vec<i32>,
    /// Texts that tokenise to control tokens; a client's text must not contain them as such.
    pub control_tokens: Arc<ControlTokens>,
    /// Remarks that do not keep the model from being used, in words for `rkllmd models`.
    pub notes: Vec<String>,
}

impl InstalledModel {
    /// Whether a worker that has loaded this model would serve `new` as well. What only the daemon
    /// uses, such as the template, is not asked for.
    pub fn is_loaded_like(&self, new: &Self) -> bool {
        let file = |model: &Self| (model.path.clone(), model.size_bytes, model.created);
        let limits = |model: &Self| (model.context_length, model.max_new_tokens);
        let placement = |model: &Self| (model.kind, model.cpu_mask, model.base_domain_id);
        file(self) == file(new)
            && limits(self) == limits(new)
            && placement(self) == placement(new)
            && self.sampling == new.sampling
            && self.tokenizer_json == new.tokenizer_json
            && self.extra_stop == new.extra_stop
            && self.extra_eos_ids == new.extra_eos_ids
    }
}

/// Something wrong with an entry of the models folder, in words for `rkllmd models`.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub fn scan(dir: &Path) -> std::io::Result<Self> {
        let (entries, mut problems) = model_entry::entries(dir)?;
        let mut models = Vec::new();
        for entry in entries {
            match entry.and_then(ModelEntry::read) {
                Ok((model, found)) => {
                    models.push(model);
                    problems.extend(found);
                }
                Err(problem) => problems.push(problem),
            }
        }
        let models = with_unique_names(models, &mut problems);
        for model in &models {
            if let Some(TemplateSource::FileName(family)) = &model.template_source {
                tracing::info!(
                    model = %model.id,
                    %family,
                    "no chat template is installed, the file's name tells the family"
                );
            }
        }
        Ok(Self {
            models: models.into_iter().map(Arc::new).collect(),
            problems,
        })
    }

    /// A catalog of models that were not found by scanning. The first of two with one name wins.
    pub fn of_models(models: impl IntoIterator<Item = InstalledModel>) -> Self {
        let mut problems = Vec::new();
        let models = with_unique_names(models.into_iter().collect(), &mut problems);
        Self {
            models: models.into_iter().map(Arc::new).collect(),
            problems,
        }
    }

    /// In the order of their file names.
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

/// Of two models with one id the later is left out; of two with one alias the later loses it. An
/// alias never hides an id.
fn with_unique_names(
    models: Vec<InstalledModel>,
    problems: &mut Vec<ModelProblem>,
) -> Vec<InstalledModel> {
    let mut owners: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut unique: Vec<InstalledModel> = Vec::new();
    for model in models {
        match owners.get(&*model.id) {
            Some(first) => problems.push(ModelProblem {
                problem: format!(
                    "its id `{}` is taken by {}; set another `id` in its model.toml",
                    model.id,
                    first.display()
                ),
                path: model.path,
            }),
            None => {
                owners.insert(model.id.to_string(), model.path.clone());
                unique.push(model);
            }
        }
    }
    for model in &mut unique {
        let path = &model.path;
        model.aliases.retain(|alias| match owners.get(alias) {
            Some(first) if first == path => false,
            Some(first) => {
                problems.push(ModelProblem {
                    path: path.clone(),
                    problem: format!("its alias `{alias}` is taken by {}", first.display()),
                });
                false
            }
            None => {
                owners.insert(alias.clone(), path.clone());
                true
            }
        });
    }
    unique
}
