//! The models folder, read at start and again on reload.
//!
//! An installed model is a file `X.gguf` or `X.rkllm` in the folder (its id is `X`), or a folder that
//! holds exactly one such file: directly in the models folder (its id is the folder's name), or one
//! deeper, as `publisher/repository` (which is its id). Beside a file in a folder of its own may stand
//! `model.toml`, `chat_template.jinja`, `tokenizer_config.json` and `tokenizer.json`; beside a file in
//! the models folder itself, `X.toml` and `X.jinja`. Ids and aliases are unique among the models.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::adapted::adapted;
use super::{InstalledModel, Variant};
use crate::settings::ModelAlias;

/// The tag of a name that has no other.
pub const LATEST: &str = ":latest";

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
    /// These with their adapters.
    adapted: Vec<Arc<InstalledModel>>,
    /// Made of these by requests.
    variants: Vec<Arc<InstalledModel>>,
    problems: Vec<ModelProblem>,
    /// What other names mean.
    aliases: Vec<ModelAlias>,
    /// Models are still being read that are not in it.
    is_in_part: bool,
    /// The folder could not be read: it may hold any model.
    is_unread: bool,
    /// Places in the folder that there was no time to read.
    unread_places: Vec<PathBuf>,
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
        Self {
            is_unread: true,
            ..Self::new([], vec![problem])
        }
    }

    /// Whether what is installed is not known.
    pub fn is_unread(&self) -> bool {
        self.is_unread
    }

    /// As `of_models`, with what was wrong besides.
    pub(super) fn new(
        models: impl IntoIterator<Item = InstalledModel>,
        mut problems: Vec<ModelProblem>,
    ) -> Self {
        let models = with_unique_names(models.into_iter().collect(), &mut problems);
        let models: Vec<_> = models.into_iter().map(Arc::new).collect();
        Self {
            adapted: adapted(&models, &mut problems),
            models,
            variants: Vec::new(),
            problems,
            aliases: Vec::new(),
            is_in_part: false,
            is_unread: false,
            unread_places: Vec::new(),
        }
    }

    /// The same, in which further names mean its models.
    pub fn with_aliases(self, aliases: &[ModelAlias]) -> Self {
        Self {
            aliases: aliases.to_vec(),
            ..self
        }
    }

    /// The same, while more is being read.
    pub(super) fn in_part(self) -> Self {
        Self {
            is_in_part: true,
            ..self
        }
    }

    /// The same, without what there was no time to read.
    pub(super) fn without(self, unread_places: Vec<PathBuf>) -> Self {
        Self {
            unread_places,
            ..self
        }
    }

    /// The same with what was known of the places that there was no time to read: a model that was not
    /// looked at is not gone.
    #[must_use]
    pub fn with_what_was_known(mut self, before: &Self) -> Self {
        let is_unread = |model: &InstalledModel| {
            let mut places = self.unread_places.iter();
            places.any(|place| model.path.starts_with(place))
        };
        let known = before.models.iter().filter(|model| is_unread(model));
        let names: BTreeSet<_> = self.models.iter().map(|model| &model.id).collect();
        let kept: Vec<_> = known
            .filter(|model| !names.contains(&model.id))
            .cloned()
            .collect();
        self.models.extend(kept);
        self.models.sort_by(|a, b| a.path.cmp(&b.path));
        // What is wrong with their names was told before.
        self.adapted = adapted(&self.models, &mut Vec::new());
        self
    }

    /// Whether more models are being read.
    pub fn is_in_part(&self) -> bool {
        self.is_in_part
    }

    /// The same with the variants of its models that have a name of their own.
    #[must_use]
    pub fn with_variants(&self, variants: impl IntoIterator<Item = Variant>) -> Self {
        let installed = Self {
            variants: Vec::new(),
            ..self.clone()
        };
        let of = |variant: Variant| {
            let model = installed.listed().find(|it| *it.name() == variant.from)?;
            let is_free = installed.find_in_any_case(&variant.name).is_none();
            is_free.then(|| Arc::new(variant.of(model)))
        };
        Self {
            variants: variants.into_iter().filter_map(of).collect(),
            ..installed.clone()
        }
    }

    /// In the order of their file names.
    pub fn models(&self) -> &[Arc<InstalledModel>] {
        &self.models
    }

    /// Installed models, then these with their adapters, then those that were made of them.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<InstalledModel>> {
        let adapted = self.models.iter().chain(&self.adapted);
        adapted.chain(&self.variants)
    }

    pub fn problems(&self) -> &[ModelProblem] {
        &self.problems
    }

    /// Finds a model by id or alias.
    pub fn find(&self, name: &str) -> Option<&Arc<InstalledModel>> {
        self.listed()
            .find(|model| model.names().any(|own| own == name))
    }

    /// Finds the model that a client means: its id or alias as it is spelled, else without the tag that
    /// Ollama's clients add, else in any case, else what the settings say.
    pub fn look_up(&self, name: &str) -> Result<&Arc<InstalledModel>, NoModel> {
        let found = self.find(name);
        match found.or_else(|| self.find(name.strip_suffix(LATEST)?)) {
            Some(model) => Ok(model),
            // One that is still being read may be spelled so.
            None if self.is_in_part => Err(NoModel::Unread),
            None => {
                let found = self.find_in_any_case(name);
                found
                    .or_else(|| self.find_by_alias(name))
                    .ok_or(NoModel::Unknown)
            }
        }
    }

    fn find_by_alias(&self, name: &str) -> Option<&Arc<InstalledModel>> {
        let name = plain(name);
        let alias = self.aliases.iter().find(|alias| alias.means(&name))?;
        let found = self.find(&alias.model);
        found.or_else(|| self.find_in_any_case(&alias.model))
    }

    fn find_in_any_case(&self, name: &str) -> Option<&Arc<InstalledModel>> {
        let wanted = plain(name);
        self.listed()
            .find(|model| model.names().any(|name| plain(name) == wanted))
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
    use crate::reader::ModelFacts;

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
    fn other_names_mean_what_the_settings_say() {
        let aliases = ["gpt-*mini = SMALL2:4b", "gpt-* = small", "small* = SMALL"];
        let aliases = aliases.map(|alias| alias.parse().expect("an alias"));
        let catalog = catalog().with_aliases(&aliases);
        for (name, id) in [
            ("gpt-4o-mini", "small2:4b"),
            ("GPT-4o:latest", "Qwen/Qwen3-0.6B"),
            // A model's own name comes first.
            ("small", "Qwen/Qwen3-0.6B"),
            ("smallest", "SMALL"),
        ] {
            assert_eq!(found(&catalog, name).as_deref(), Ok(id), "{name}");
        }
        assert_eq!(found(&catalog, "claude"), Err(NoModel::Unknown));
        let gone = ["claude-* = gone".parse().expect("an alias")];
        let catalog = catalog.with_aliases(&gone);
        assert_eq!(found(&catalog, "claude-x"), Err(NoModel::Unknown));
    }

    #[test]
    fn a_variant_is_found_by_its_name_and_hides_no_model() {
        let variant = |name: &str, from: &str| Variant {
            name: name.into(),
            from: from.into(),
            created: 0,
            system: None,
            messages: Vec::new(),
            template: None,
            values: crate::models::VariantValues::default(),
            license: Vec::new(),
        };
        let catalog = catalog().with_variants([
            variant("Mine", "small2:4b"),
            variant("Small2:4B", "SMALL"),
            variant("orphan", "gone"),
        ]);
        let listed: Vec<&str> = catalog.listed().map(|it| &**it.name()).collect();
        assert_eq!(listed, ["Qwen/Qwen3-0.6B", "small2:4b", "SMALL", "Mine"]);
        assert_eq!(catalog.models().len(), 3);
        let found = catalog.look_up("mine:latest").expect("it is there");
        assert_eq!((&**found.name(), &*found.id), ("Mine", "small2:4b"));
        assert!(catalog.look_up("small2:4B").expect("one").variant.is_none());
        assert_eq!(catalog.look_up("orphan").err(), Some(NoModel::Unknown));
        // Made again for other models.
        assert_eq!(catalog.with_variants([]).listed().count(), 3);
    }

    #[test]
    fn another_case_waits_for_what_may_be_spelled_so() {
        let catalog = catalog().in_part();
        let small = Ok("Qwen/Qwen3-0.6B".to_owned());
        assert_eq!(found(&catalog, "small:latest"), small);
        assert_eq!(found(&catalog, "Small"), Err(NoModel::Unread));
    }
}
