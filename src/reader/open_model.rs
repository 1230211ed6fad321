//! The files of one model are opened first; they are read when nothing can be opened any more
//! (`read_model`).

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::adapters::{self, ADAPTERS, AdapterFiles};
use super::facts::ModelKind;
use super::files::{self, Links, OpenFile};
use super::manifest;
use super::model_files::ModelFile;
use super::template_source::{CHAT_TEMPLATE, Opened, TemplateFiles};
use crate::ipc::{EntryKind, FlatFile, ListedEntry, ModelLocation, RawPath};

pub const TOKENIZER: &str = "tokenizer.json";
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Older models list their special tokens here, by the names of tokenizer_config.json's fields.
pub const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
pub const MANIFEST: &str = "model.toml";

/// What was found in a location.
pub enum Contents {
    Model(Box<OpenModel>),
    /// There is no model, but there are these folders.
    Folders(Vec<RawPath>),
    Nothing,
    Unusable(Unusable),
}

/// Why there is no model; `file` is the name of the one to blame, `None`: the folder.
#[derive(Debug)]
pub struct Unusable {
    pub file: Option<RawPath>,
    pub problem: String,
}

impl Unusable {
    pub fn of(file: &str, problem: impl Into<String>) -> Self {
        Self {
            file: Some(RawPath::from(file)),
            problem: problem.into(),
        }
    }

    pub fn folder(problem: impl Into<String>) -> Self {
        Self {
            file: None,
            problem: problem.into(),
        }
    }
}

/// A model's files, open and not yet read.
pub struct OpenModel {
    /// The id, if the manifest gives no other.
    pub name: String,
    pub kind: ModelKind,
    pub file_name: String,
    pub file: OpenFile,
    /// Of all parts of the model.
    pub size_bytes: u64,
    pub parts: usize,
    pub manifest_name: String,
    pub manifest: Opened,
    pub templates: TemplateFiles,
    pub template_file: Option<String>,
    pub tokenizer_config: Opened,
    pub special_tokens_map: Opened,
    pub tokenizer: Opened,
    pub adapters: AdapterFiles,
    /// Folders beside the model's file, which are not looked at.
    pub inner_folders: Vec<String>,
}

/// Opens everything that belongs to the model at `location`.
pub fn open(location: &ModelLocation) -> Contents {
    let folder = match files::open_folder(&location.folder.to_path()) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Contents::Nothing;
        }
        Err(error) => {
            return Contents::Unusable(Unusable::folder(format!("not readable: {error}")));
        }
    };
    let opened = match &location.file {
        Some(file) => open_flat(&folder, file, location.template_file.as_deref()),
        None => match open_own(&folder, location) {
            Ok(contents) => return contents,
            Err(unusable) => Err(unusable),
        },
    };
    opened.map_or_else(Contents::Unusable, |model| Contents::Model(Box::new(model)))
}

fn open_flat(
    folder: &OwnedFd,
    flat: &FlatFile,
    template_file: Option<&str>,
) -> Result<OpenModel, Unusable> {
    let mut model = open_weights(folder, &flat.name, &flat.files)?;
    let beside =
        |name: &str| files::open_file(folder, Path::new(name), Links::InFolder).transpose();
    model.manifest_name = format!("{}.toml", flat.name);
    model.manifest = beside(&model.manifest_name);
    let jinja = format!("{}.jinja", flat.name);
    model.templates = TemplateFiles {
        of_manifest: template_file.and_then(beside),
        beside: beside(&jinja).map(|opened| (jinja, opened)),
        own: None,
        common: beside(CHAT_TEMPLATE),
    };
    model.template_file = template_file.map(str::to_owned);
    Ok(model)
}

fn open_own(folder: &OwnedFd, location: &ModelLocation) -> Result<Contents, Unusable> {
    let (entries, more) =
        files::list(folder).map_err(|error| Unusable::folder(format!("not readable: {error}")))?;
    if more {
        let most = files::MOST_ENTRIES;
        return Err(Unusable::folder(format!(
            "it holds more than {most} entries"
        )));
    }
    let path = location.folder.to_path();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(Unusable::folder("its name is not UTF-8"));
    };
    let mut models = ModelFile::group(&file_names(&entries)?)
        .into_iter()
        .filter(|file| !matches!(file, Ok(file) if file.name.starts_with("mmproj")))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|bad| Unusable::of(&bad.file, bad.problem))?;
    let folders: Vec<RawPath> = entries
        .iter()
        // No link: only the models folder's own entries may lead elsewhere.
        .filter(|entry| matches!(entry.kind, EntryKind::Folder | EntryKind::Unknown))
        .map(|entry| entry.name.clone())
        .collect();
    let beside =
        |name: &str| files::open_file(folder, Path::new(name), Links::InFolder).transpose();
    let Some(file) = models.pop() else {
        if entries
            .iter()
            .any(|entry| entry.name.as_str() == Some(MANIFEST))
        {
            let problem = "it has a model.toml and no .gguf or .rkllm file";
            return Err(Unusable::folder(problem));
        }
        return Ok(match folders.is_empty() {
            true => Contents::Nothing,
            false => Contents::Folders(folders),
        });
    };
    if !models.is_empty() {
        models.push(file);
        let names: Vec<_> = models.iter().map(|model| model.files[0].clone()).collect();
        return Err(Unusable::folder(format!(
            "it holds {} model files ({}), a folder is one model",
            names.len(),
            names.join(", ")
        )));
    }
    let mut model = open_weights(folder, name, &file.files)?;
    model.manifest_name = MANIFEST.to_owned();
    model.manifest = beside(MANIFEST);
    model.templates = TemplateFiles {
        of_manifest: location.template_file.as_deref().and_then(beside),
        own: beside(CHAT_TEMPLATE),
        ..TemplateFiles::default()
    };
    model.template_file = location.template_file.clone();
    model.tokenizer_config = beside(TOKENIZER_CONFIG);
    model.special_tokens_map = beside(SPECIAL_TOKENS_MAP);
    model.tokenizer = beside(TOKENIZER);
    model.adapters = adapters::open(folder);
    model.inner_folders = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Folder && entry.name.as_str() != Some(ADAPTERS))
        .map(|entry| entry.name.to_path().display().to_string())
        .collect();
    Ok(Contents::Model(Box::new(model)))
}

/// The names of files, of which a model's must be UTF-8: they are ids.
fn file_names(entries: &[ListedEntry]) -> Result<BTreeSet<String>, Unusable> {
    let mut names = BTreeSet::new();
    for entry in entries
        .iter()
        .filter(|entry| entry.kind != EntryKind::Folder)
    {
        match entry.name.as_str() {
            Some(name) => drop(names.insert(name.to_owned())),
            None if super::model_files::kind_of(&entry.name.to_path()).is_some() => {
                return Err(Unusable {
                    file: Some(entry.name.clone()),
                    problem: "its name is not UTF-8".to_owned(),
                });
            }
            None => {}
        }
    }
    Ok(names)
}

fn open_weights(folder: &OwnedFd, name: &str, names: &[String]) -> Result<OpenModel, Unusable> {
    let open = |name: &String| match files::open_file(folder, Path::new(name), Links::Anywhere) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(Unusable::of(
            name,
            "not readable: it, or what it links to, is gone",
        )),
        Err(problem) => Err(Unusable::of(name, problem)),
    };
    let Some((first, parts)) = names.split_first() else {
        return Err(Unusable::folder("a model without a file"));
    };
    manifest::check_name(name).map_err(|problem| Unusable::of(first, problem))?;
    let file = open(first)?;
    let mut size_bytes = file.len;
    for part in parts {
        size_bytes = size_bytes.saturating_add(open(part)?.len);
    }
    Ok(OpenModel {
        name: name.to_owned(),
        kind: super::model_files::kind_of(Path::new(first)).unwrap_or_default(),
        file_name: first.clone(),
        file,
        size_bytes,
        parts: names.len(),
        manifest_name: String::new(),
        manifest: None,
        templates: TemplateFiles::default(),
        template_file: None,
        tokenizer_config: None,
        special_tokens_map: None,
        tokenizer: None,
        adapters: None,
        inner_folders: Vec::new(),
    })
}
