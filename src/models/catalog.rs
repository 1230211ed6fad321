//! The models folder, read at start and again on reload.
//!
//! An installed model is a file `X.gguf` or `X.rkllm` in the folder (its id is `X`), or a folder that
//! holds exactly one such file: directly in the models folder (its id is the folder's name), or one
//! deeper, as `publisher/repository` (which is its id). Beside a file in a folder of its own may stand
//! `model.toml`, `chat_template.jinja`, `tokenizer_config.json` and `tokenizer.json`; beside a file in
//! the models folder itself, `X.toml` and `X.jinja`. Ids and aliases are unique among the models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::generation::ModelId;
use crate::ipc::{ModelLocation, TemplateState};
use crate::reader::ModelFacts;
use crate::reply::ModelReply;

/// The longest tokens of vocabularies, runs of white space, have about as many bytes; no text is made of
/// them alone.
const MOST_TOKEN_BYTES: usize = 128;

/// The tag of a name that has no other.
pub const LATEST: &str = ":latest";

/// One installed model and everything known about it without loading it.
#[derive(Clone, Debug, Default)]
pub struct InstalledModel {
    pub id: ModelId,
    /// The id comes from the manifest and not from the location's name.
    pub named_by_manifest: bool,
    /// The model file; of a split GGUF the first part.
    pub path: PathBuf,
    pub facts: ModelFacts,
    /// Where readers find it. `None`: no reader found it.
    pub location: Option<ModelLocation>,
    /// Chats need one that can be used.
    pub template: TemplateState,
    /// How it writes thoughts and calls; `None`: it has no template.
    pub reply: Option<Arc<ModelReply>>,
    /// tokenizer.json beside the model, with which readers make tokens.
    pub tokenizer_json: Option<PathBuf>,
    /// Remarks that do not keep the model from being used, in words for `rkllmd models`.
    pub notes: Vec<String>,
}

impl InstalledModel {
    /// A longer prompt does not fit the context, however few tokens it has.
    pub fn longest_prompt_bytes(&self) -> usize {
        longest_text_bytes(self.facts.context_tokens())
    }

    /// How an administrator gives it a chat template.
    pub fn template_advice(&self) -> String {
        match self
            .location
            .as_ref()
            .and_then(|location| location.file.as_ref())
        {
            Some(file) => format!(
                "put one beside its file as `{0}.jinja`, or name a template family in `{0}.toml` \
                 (`template = \"chatml\"`), then reload",
                file.name
            ),
            None => {
                "put `chat_template.jinja` or `tokenizer_config.json` beside its file, or name \
                     a template family in its `model.toml`, then reload"
                    .to_owned()
            }
        }
    }

    /// Whether a worker that has loaded this model would serve `new` as well. What only the daemon
    /// uses, such as the template, does not count.
    pub fn is_loaded_like(&self, new: &Self) -> bool {
        let (old, facts) = (&self.facts, &new.facts);
        let file = |facts: &ModelFacts| (facts.size_bytes, facts.created);
        let limits = |facts: &ModelFacts| (facts.context_length, facts.max_new_tokens);
        let placement = |facts: &ModelFacts| {
            (
                facts.kind,
                facts.cpu_mask,
                facts.base_domain_id,
                facts.parallel,
            )
        };
        self.path == new.path
            && self.tokenizer_json == new.tokenizer_json
            && file(old) == file(facts)
            && limits(old) == limits(facts)
            && placement(old) == placement(facts)
            && old.sampling == facts.sampling
            && old.extra_stop == facts.extra_stop
            && old.extra_eos_ids == facts.extra_eos_ids
            && old.prints_special_tokens == facts.prints_special_tokens
    }
}

/// A longer text has more than so many tokens, whatever they are.
pub fn longest_text_bytes(tokens: u32) -> usize {
    let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
    tokens.saturating_mul(MOST_TOKEN_BYTES)
}

/// Something wrong with an entry of the models folder, in words for `rkllmd models`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelProblem {
    pub path: PathBuf,
    pub problem: String,
    /// Whether the model serves all the same, without what is wrong.
    pub serves: bool,
}

/// All installed models.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    models: Vec<Arc<InstalledModel>>,
    problems: Vec<ModelProblem>,
    /// Models are still being read that are not in it.
    is_in_part: bool,
}

/// Why a name is no model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoModel {
    Unknown,
    /// It may be that of a model which is still being read.
    Unread,
}

impl Catalog {
    /// A catalog of models that were not found by scanning. The first of two with one name wins.
    pub fn of_models(models: impl IntoIterator<Item = InstalledModel>) -> Self {
        Self::new(models, Vec::new())
    }

    /// No model, because the folder could not be read.
    pub fn unread(folder: &Path, problem: String) -> Self {
        let problem = ModelProblem {
            path: folder.to_owned(),
            problem,
            serves: false,
        };
        Self::new([], vec![problem])
    }

    /// As `of_models`, with what was wrong besides.
    pub(super) fn new(
        models: impl IntoIterator<Item = InstalledModel>,
        mut problems: Vec<ModelProblem>,
    ) -> Self {
        let models = with_unique_names(models.into_iter().collect(), &mut problems);
        Self {
            models: models.into_iter().map(Arc::new).collect(),
            problems,
            is_in_part: false,
        }
    }

    /// The same, while more is being read.
    pub(super) fn in_part(self) -> Self {
        Self {
            is_in_part: true,
            ..self
        }
    }

    /// Whether more models are being read.
    pub fn is_in_part(&self) -> bool {
        self.is_in_part
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
            .find(|m| &*m.id == name || m.facts.aliases.iter().any(|a| a == name))
    }

    /// Finds the model that a client means: its id or alias as it is spelled, else without the tag that
    /// Ollama's clients add, else in any case.
    pub fn look_up(&self, name: &str) -> Result<&Arc<InstalledModel>, NoModel> {
        let found = self.find(name);
        match found.or_else(|| self.find(name.strip_suffix(LATEST)?)) {
            Some(model) => Ok(model),
            // One that is still being read may be spelled so.
            None if self.is_in_part => Err(NoModel::Unread),
            None => self.find_in_any_case(name).ok_or(NoModel::Unknown),
        }
    }

    fn find_in_any_case(&self, name: &str) -> Option<&Arc<InstalledModel>> {
        let wanted = plain(name);
        self.models.iter().find(|model| {
            let aliases = model.facts.aliases.iter().map(String::as_str);
            let mut names = std::iter::once(&*model.id).chain(aliases);
            names.any(|name| plain(name) == wanted)
        })
    }
}

/// What the spellings of a name have in common.
fn plain(name: &str) -> String {
    let lower = name.to_lowercase();
    match lower.strip_suffix(LATEST) {
        Some(plain) => plain.to_owned(),
        None => lower,
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
    // No manifest takes the name that another model has by its location.
    for model in models.iter().filter(|model| !model.named_by_manifest) {
        let owner = owners.entry(model.id.to_string());
        owner.or_insert_with(|| model.path.clone());
    }
    for model in models {
        match owners.get(&*model.id).filter(|owner| **owner != model.path) {
            Some(first) => problems.push(ModelProblem {
                problem: format!(
                    "its id `{}` is taken by {}; set another `id` in its model.toml",
                    model.id,
                    first.display()
                ),
                path: model.path,
                serves: false,
            }),
            None => {
                owners.insert(model.id.to_string(), model.path.clone());
                unique.push(model);
            }
        }
    }
    for model in &mut unique {
        let path = &model.path;
        model.facts.aliases.retain(|alias| match owners.get(alias) {
            Some(first) if first == path => false,
            Some(first) => {
                problems.push(ModelProblem {
                    path: path.clone(),
                    problem: format!("its alias `{alias}` is taken by {}", first.display()),
                    serves: true,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let model = |id: &str, aliases: &[&str]| InstalledModel {
            id: id.into(),
            path: id.into(),
            facts: ModelFacts {
                aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
                ..ModelFacts::default()
            },
            ..InstalledModel::default()
        };
        Catalog::of_models([
            model("Qwen/Qwen3-0.6B", &["small"]),
            model("small2:4b", &[]),
            model("SMALL", &[]),
        ])
    }

    fn found(catalog: &Catalog, name: &str) -> Result<String, NoModel> {
        catalog.look_up(name).map(|model| model.id.to_string())
    }

    #[test]
    fn a_name_is_known_with_its_tag_or_without_in_any_case() {
        let catalog = catalog();
        for (name, id) in [
            ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
            ("qwen/qwen3-0.6b:latest", "Qwen/Qwen3-0.6B"),
            ("QWEN/QWEN3-0.6B:LATEST", "Qwen/Qwen3-0.6B"),
            ("small:latest", "Qwen/Qwen3-0.6B"),
            ("SMALL", "SMALL"),
            ("SMALL:latest", "SMALL"),
            ("Small2:4B", "small2:4b"),
        ] {
            assert_eq!(found(&catalog, name).as_deref(), Ok(id), "{name}");
        }
        for name in ["small2", "small2:latest", "small:4b", "", ":latest", "qwen"] {
            assert_eq!(found(&catalog, name), Err(NoModel::Unknown), "{name}");
        }
    }

    #[test]
    fn another_case_waits_for_what_may_be_spelled_so() {
        let catalog = catalog().in_part();
        let small = Ok("Qwen/Qwen3-0.6B".to_owned());
        assert_eq!(found(&catalog, "small:latest"), small);
        assert_eq!(found(&catalog, "Small"), Err(NoModel::Unread));
    }
}
