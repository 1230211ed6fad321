//! A model's LoRA adapters: files in the folder `adapters` in the model's own, which `model.toml` names.
//!
//! All that lies there is opened before the reader is locked up, because what `model.toml` says is read
//! behind that. An adapter that cannot be used is a problem of its own, and none of its model.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::facts::ModelKind;
use super::files::{self, Links, OpenFile};
use super::{gguf, model_files};

/// In the model's folder.
pub const ADAPTERS: &str = "adapters";
/// Each is loaded with its model.
const MOST_ADAPTERS: usize = 16;
/// Files that are opened.
const MOST_FILES: usize = 64;
const MOST_NAME_BYTES: usize = 64;
const MOST_SCALE: f32 = 100.0;
/// A tag of Ollama's that names the model itself.
const LATEST: &str = "latest";

/// One of `[[adapters]]` in `model.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Entry {
    /// Behind the model's id and a colon it is that of the model with the adapter.
    name: String,
    /// Its name in the folder `adapters`.
    file: String,
    /// What its difference counts.
    #[serde(default = "whole")]
    scale: f32,
}

fn whole() -> f32 {
    1.0
}

/// What is known of an adapter without loading it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdapterFacts {
    pub name: String,
    /// Its name in the folder `adapters`.
    pub file: String,
    pub scale: f32,
    pub size_bytes: u64,
    /// Seconds since the epoch, its file's modification time.
    pub modified: u64,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

impl AdapterFacts {
    /// Tells it from every other, and from itself with another file or scale.
    pub fn stamp(&self) -> String {
        let Self {
            name,
            file,
            scale,
            size_bytes,
            modified,
            ..
        } = self;
        format!("{name} {size_bytes} {modified} {scale} {file}")
    }
}

/// The files of a model's adapters, by their names; `None`: the model has no folder of its own.
pub(super) type AdapterFiles = Option<BTreeMap<String, Result<OpenFile, String>>>;

/// Opens what lies in the model's folder of adapters.
pub(super) fn open(model: &OwnedFd) -> AdapterFiles {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::openat(model, ADAPTERS, flags, Mode::empty()) else {
        return Some(BTreeMap::new());
    };
    let entries = files::list(&folder).map(|(entries, _)| entries);
    let entries = entries.unwrap_or_default();
    let names = entries.iter().filter_map(|entry| entry.name.as_str());
    let names = names.filter(|name| model_files::kind_of(Path::new(name)).is_some());
    let opened = names.take(MOST_FILES).filter_map(|name| {
        let path = Path::new(ADAPTERS).join(name);
        let opened = files::open_file(model, &path, Links::InFolder).transpose()?;
        Some((name.to_owned(), opened))
    });
    Some(opened.collect())
}

/// Refuses what can be no adapters, whatever their files are.
pub(super) fn check(entries: &[Entry]) -> Result<(), String> {
    if entries.len() > MOST_ADAPTERS {
        let count = entries.len();
        return Err(format!(
            "it names {count} adapters, allowed are {MOST_ADAPTERS}"
        ));
    }
    let mut names = BTreeSet::new();
    for Entry { name, file, scale } in entries {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=MOST_NAME_BYTES).contains(&name.len()) || !name.chars().all(is_plain) {
            return Err(format!(
                "{name:?} is no name for an adapter: 1 to {MOST_NAME_BYTES} of the characters a-z, A-Z, \
                 0-9, `-`, `_` and `.`"
            ));
        }
        let lower = name.to_ascii_lowercase();
        if lower == LATEST {
            return Err(format!(
                "{name:?} is no name for an adapter: with it clients mean the model itself"
            ));
        }
        if !names.insert(lower) {
            return Err(format!("two adapters have the name {name:?}"));
        }
        if file.contains('/') || file.contains('\0') || file.starts_with('.') {
            return Err(format!(
                "the adapter {name:?}: file is {file:?}, allowed is the name of a file in the folder \
                 `{ADAPTERS}`"
            ));
        }
        if !(-MOST_SCALE..=MOST_SCALE).contains(scale) {
            return Err(format!(
                "the adapter {name:?}: scale is {scale}, allowed is -{MOST_SCALE} to {MOST_SCALE}"
            ));
        }
    }
    Ok(())
}

/// What is known of those that the manifest names, for a model of this kind and architecture.
pub(super) fn read(
    entries: &[Entry],
    files: &AdapterFiles,
    (kind, architecture): (ModelKind, Option<&str>),
) -> Vec<AdapterFacts> {
    let read = |entry: &Entry| {
        let found = found(&entry.file, files);
        let (size_bytes, modified) = found
            .as_ref()
            .map_or((0, 0), |file| (file.len, file.modified));
        let checked = found.and_then(|file| fits(file, &entry.file, (kind, architecture)));
        AdapterFacts {
            name: entry.name.clone(),
            file: entry.file.clone(),
            scale: entry.scale,
            size_bytes,
            modified,
            problem: checked.err(),
        }
    };
    entries.iter().map(read).collect()
}

fn found<'a>(name: &str, files: &'a AdapterFiles) -> Result<&'a OpenFile, String> {
    let files = files
        .as_ref()
        .ok_or("only a model in a folder of its own can have adapters")?;
    match files.get(name) {
        Some(Ok(file)) => Ok(file),
        Some(Err(problem)) => Err(problem.clone()),
        None => Err(format!(
            "no .gguf or .rkllm file of this name is among the first {MOST_FILES} in the folder \
             `{ADAPTERS}` of the model's"
        )),
    }
}

fn fits(
    file: &OpenFile,
    name: &str,
    (kind, architecture): (ModelKind, Option<&str>),
) -> Result<(), String> {
    if model_files::kind_of(Path::new(name)) != Some(kind) {
        return Err(match kind {
            ModelKind::Gguf => "a GGUF model takes a GGUF adapter".to_owned(),
            ModelKind::Rkllm => "an .rkllm model takes an .rkllm adapter".to_owned(),
        });
    }
    if kind == ModelKind::Rkllm {
        // Its format is not documented, and the vendor's library has the last word.
        return Ok(());
    }
    let facts = gguf::read(&file.file, file.len);
    let facts = facts.map_err(|error| format!("its GGUF header is unusable: {error}"))?;
    if facts.kind.as_deref() != Some("adapter") {
        return Err("it is no LoRA adapter".to_owned());
    }
    match (facts.architecture.as_deref(), architecture) {
        (Some(own), Some(models)) if own != models => Err(format!(
            "it is for models of the architecture {own:?}, and this one's is {models:?}"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(toml: &str) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Named {
            adapters: Vec<Entry>,
        }
        let named: Named = toml::from_str(toml).map_err(|error| error.to_string())?;
        check(&named.adapters)
    }

    fn entry(name: &str, file: &str, scale: &str) -> String {
        format!("[[adapters]]\nname = '{name}'\nfile = '{file}'\nscale = {scale}\n")
    }

    #[test]
    fn an_adapter_has_a_name_that_no_tag_is_taken_for_and_a_file_in_its_folder() {
        assert_eq!(checked(&entry("tone", "a.gguf", "0.5")), Ok(()));
        assert_eq!(checked("[[adapters]]\nname = 'a'\nfile = 'a.gguf'"), Ok(()));
        for (name, file, scale) in [
            ("latest", "a.gguf", "1.0"),
            ("Latest", "a.gguf", "1.0"),
            ("a:b", "a.gguf", "1.0"),
            ("a/b", "a.gguf", "1.0"),
            ("", "a.gguf", "1.0"),
            ("a", "../a.gguf", "1.0"),
            ("a", "/etc/passwd", "1.0"),
            ("a", ".a.gguf", "1.0"),
            ("a", "a.gguf", "nan"),
            ("a", "a.gguf", "inf"),
            ("a", "a.gguf", "101.0"),
        ] {
            let result = checked(&entry(name, file, scale));
            assert!(result.is_err(), "{name:?} {file:?} {scale}");
        }
        let twice = entry("a", "a.gguf", "1.0") + &entry("A", "b.gguf", "1.0");
        assert!(checked(&twice).unwrap_err().contains("two adapters"));
        let many: String = (0..=MOST_ADAPTERS)
            .map(|nth| entry(&format!("a{nth}"), "a.gguf", "1.0"))
            .collect();
        assert!(checked(&many).unwrap_err().contains("17 adapters"));
        let unknown = entry("a", "a.gguf", "1.0") + "rank = 4\n";
        assert!(checked(&unknown).is_err());
    }

    #[test]
    fn an_adapter_with_another_file_or_scale_has_another_stamp() {
        let facts = AdapterFacts {
            name: "a".to_owned(),
            file: "a.gguf".to_owned(),
            scale: 1.0,
            size_bytes: 5,
            modified: 7,
            problem: None,
        };
        let scaled = AdapterFacts {
            scale: 0.5,
            ..facts.clone()
        };
        let newer = AdapterFacts {
            modified: 8,
            ..facts.clone()
        };
        assert_ne!(facts.stamp(), scaled.stamp());
        assert_ne!(facts.stamp(), newer.stamp());
    }
}
