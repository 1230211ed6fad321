//! What is brought of a repository, and where it is put. Pure.

use super::listing::MOST_SIZE;
use super::names::is_plain;
use super::variant::Variant;
use super::{Hash, Listing, PullError, Reference, RemoteFile};
use crate::printable::printable;
use crate::reader::{ModelKind, check_name};

/// What stands beside a model and tells how to speak with it.
pub(super) const COMPANIONS: [&str; 4] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
];
/// A larger one is no such file.
const MOST_COMPANION_BYTES: u64 = 128 << 20;

/// A file that is to be brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub repository: String,
    pub commit: String,
    /// In the repository.
    pub path: String,
    /// In the model's folder.
    pub name: String,
    /// Neither is known where the listing does not tell.
    pub size: Option<u64>,
    pub hash: Option<Hash>,
}

/// A model, its files and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The folders of the models folder that it is put into; its id is both.
    pub publisher: String,
    pub folder: String,
    pub model: Wanted,
    pub companions: Vec<Wanted>,
    pub kind: ModelKind,
}

impl Wanted {
    fn of(file: &RemoteFile, repository: &str, listing: &Listing) -> Result<Self, PullError> {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if !is_plain(name) {
            let reason = format!("no file here can be called `{}`", printable(name));
            return Err(PullError::bad_answer(reason));
        }
        Ok(Self {
            repository: repository.to_owned(),
            commit: listing.commit.clone(),
            path: file.path.clone(),
            name: name.to_owned(),
            size: file.size,
            hash: file.hash,
        })
    }

    /// The largest size that is believed of it.
    pub fn most_bytes(&self) -> u64 {
        match self.is_companion() {
            true => MOST_COMPANION_BYTES,
            false => MOST_SIZE,
        }
    }

    /// Whether it is no model.
    pub fn is_companion(&self) -> bool {
        COMPANIONS.contains(&&*self.name)
    }
}

impl Plan {
    /// For the chosen file of a repository; `name` is what its owner wants the model's folder to be called.
    pub fn of(
        reference: &Reference,
        listing: &Listing,
        file: &RemoteFile,
        name: Option<&str>,
    ) -> Result<Self, PullError> {
        let repository = reference.repository();
        let model = Wanted::of(file, &repository, listing)?;
        let variants: Vec<Variant<'_>> = listing
            .files
            .iter()
            .filter_map(|file| Variant::of(file, &[]))
            .collect();
        let whole = variants.iter().filter(|variant| !variant.is_part).count();
        let chosen = variants.iter().find(|variant| variant.file == file);
        let kind = chosen.map(|variant| variant.kind).unwrap_or_default();
        let folder = match (name, model.name.rsplit_once('.')) {
            (Some(name), _) => name,
            // Of several models of a repository each has a folder of its own.
            (None, Some((stem, _))) if whole > 1 => stem,
            (None, _) => &reference.name,
        };
        if !is_plain(folder) || check_name(&format!("{}/{folder}", reference.owner)).is_err() {
            return Err(PullError::BadName {
                name: printable(folder).into_owned(),
                reason: "cannot be the name of a model's folder: choose one with --name".to_owned(),
            });
        }
        let mut plan = Self {
            publisher: reference.owner.clone(),
            folder: folder.to_owned(),
            model,
            companions: Vec::new(),
            kind,
        };
        plan.add_companions(&repository, listing);
        Ok(plan)
    }

    pub fn id(&self) -> String {
        format!("{}/{}", self.publisher, self.folder)
    }

    /// Which of them it has not got; a template may stand in the configuration instead.
    pub fn lacks(&self) -> Vec<&'static str> {
        let has = |name: &&str| self.companions.iter().any(|it| it.name == **name);
        COMPANIONS.into_iter().filter(|name| !has(name)).collect()
    }

    /// Takes what it lacks of a repository. Returns whether there was any.
    pub fn add_companions(&mut self, repository: &str, listing: &Listing) -> bool {
        let before = self.companions.len();
        for name in self.lacks() {
            let Some(file) = listing.file(name) else {
                continue;
            };
            let is_one = |size| (1..=MOST_COMPANION_BYTES).contains(&size);
            if !file.size.is_none_or(is_one) {
                continue;
            }
            // The name is one of those above.
            self.companions
                .extend(Wanted::of(file, repository, listing));
        }
        self.companions.len() > before
    }

    /// All files: the small ones first, because they fail soonest.
    pub fn files(&self) -> impl Iterator<Item = &Wanted> {
        self.companions.iter().chain([&self.model])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let files = paths.iter().map(|path| RemoteFile {
            path: (*path).to_owned(),
            size: Some(1),
            hash: None,
        });
        Listing {
            commit: "c".to_owned(),
            files: files.collect(),
            ..Listing::default()
        }
    }

    fn plan(asked: &str, paths: &[&str], name: Option<&str>) -> Result<Plan, PullError> {
        let listing = listing(paths);
        let reference = Reference::parse(asked).unwrap();
        Plan::of(&reference, &listing, &listing.files[0], name)
    }

    #[test]
    fn a_model_has_its_repositorys_name_or_its_own() {
        let id = |paths, name| plan("a/b", paths, name).map(|plan| plan.id());
        assert_eq!(id(&["m.gguf", "x/y.md"], None), Ok("a/b".to_owned()));
        assert_eq!(id(&["x/m.gguf", "n.gguf"], None), Ok("a/m".to_owned()));
        assert_eq!(id(&["m.gguf"], Some("mine")), Ok("a/mine".to_owned()));
        for wrong in ["..", ".x", "a/b", "", "a\u{202e}"] {
            let refused = id(&["m.gguf"], Some(wrong));
            assert!(
                matches!(refused, Err(PullError::BadName { .. })),
                "{wrong:?}"
            );
        }
        let refused = plan("a/b", &[".m.gguf"], None);
        assert!(matches!(refused, Err(PullError::BadAnswer { .. })));
    }

    #[test]
    fn what_tells_how_to_speak_with_it_comes_along() {
        let paths = [
            "m.rkllm",
            "tokenizer.json",
            "x/chat_template.jinja",
            "README.md",
        ];
        let mut plan = plan("a/b", &paths, None).unwrap();
        let names = |plan: &Plan| plan.files().map(|it| it.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&plan), ["tokenizer.json", "m.rkllm"]);
        let base = listing(&[
            "chat_template.jinja",
            "tokenizer.json",
            "tokenizer_config.json",
        ]);
        assert!(plan.add_companions("c/d", &base));
        assert_eq!(
            names(&plan),
            [
                "tokenizer.json",
                "tokenizer_config.json",
                "chat_template.jinja",
                "m.rkllm"
            ]
        );
        assert_eq!(plan.companions[0].repository, "a/b");
        assert_eq!(plan.companions[1].repository, "c/d");
        assert_eq!(plan.lacks(), ["generation_config.json"]);
    }
}
