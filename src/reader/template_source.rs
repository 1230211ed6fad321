//! Which of the places that may hold a model's chat template is taken.
//!
//! The first source that exists decides. A broken one is a problem and nothing further down is
//! tried, so that a model never speaks a format its owner did not mean.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::files::OpenFile;
use super::manifest::Manifest;
use super::read_text;
use super::tokenizer_files::TokenizerConfig;
use crate::prompt::TemplateFamily;

pub(super) const CHAT_TEMPLATE: &str = "chat_template.jinja";
const MAX_TEMPLATE_BYTES: u64 = 1024 * 1024;

/// Where a model's template came from, by falling priority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "from", content = "which")]
pub enum TemplateSource {
    /// The family that `template` in `model.toml` names.
    ManifestFamily(TemplateFamily),
    /// The file that `template-file` in `model.toml` names.
    ManifestFile(PathBuf),
    /// `X.jinja` beside a model's file `X` in the models folder.
    BesideFile(String),
    /// `chat_template.jinja` beside the model.
    ChatTemplateFile,
    /// `chat_template` in `tokenizer_config.json` beside the model.
    TokenizerConfig,
    /// The GGUF file's metadata.
    Gguf,
    /// The family that the file's name tells.
    FileName(TemplateFamily),
}

impl fmt::Display for TemplateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManifestFamily(family) => write!(f, "model.toml ({family})"),
            Self::ManifestFile(path) => write!(f, "model.toml ({})", path.display()),
            Self::BesideFile(name) => f.write_str(name),
            Self::ChatTemplateFile => f.write_str("chat_template.jinja"),
            Self::TokenizerConfig => f.write_str("tokenizer_config.json"),
            Self::Gguf => f.write_str("gguf"),
            Self::FileName(family) => write!(f, "file name ({family})"),
        }
    }
}

impl TemplateSource {
    /// The built-in family, where the source is one.
    pub fn family(&self) -> Option<TemplateFamily> {
        match self {
            Self::ManifestFamily(family) | Self::FileName(family) => Some(*family),
            _ => None,
        }
    }
}

/// Everything that may hold a template.
pub(super) struct Candidates<'a> {
    pub manifest: &'a Manifest,
    pub files: &'a TemplateFiles,
    pub tokenizer_config: Option<&'a TokenizerConfig>,
    pub gguf: Option<&'a str>,
    /// Names that may tell a family, the most telling first.
    pub names: [&'a str; 2],
}

/// A file that was there, or why it cannot be read.
pub(super) type Opened = Option<Result<OpenFile, String>>;

/// The template files that were opened.
#[derive(Debug, Default)]
pub(super) struct TemplateFiles {
    /// The one that the manifest names.
    pub of_manifest: Opened,
    /// `X.jinja` beside a model's file `X` in the models folder, with its name.
    pub beside: Option<(String, Result<OpenFile, String>)>,
    /// `chat_template.jinja` of the model's own folder.
    pub own: Opened,
    /// `chat_template.jinja` of the models folder, for files in it that bring no template.
    pub common: Opened,
}

impl Candidates<'_> {
    /// The source that decides and its text, or why the text cannot be had.
    pub fn choose(&self) -> Option<(TemplateSource, Result<String, String>)> {
        let owned = |text: &str| Ok(text.to_owned());
        if let Some(family) = self.manifest.template {
            let source = TemplateSource::ManifestFamily(family);
            return Some((source, owned(family.template())));
        }
        if let Some(name) = &self.manifest.template_file {
            let text = match &self.files.of_manifest {
                Some(file) => read(name, file),
                None => Err(format!("{name}: there is no such file")),
            };
            return Some((TemplateSource::ManifestFile(name.into()), text));
        }
        if let Some((name, file)) = &self.files.beside {
            return Some((TemplateSource::BesideFile(name.clone()), read(name, file)));
        }
        if let Some(file) = &self.files.own {
            return Some((TemplateSource::ChatTemplateFile, read(CHAT_TEMPLATE, file)));
        }
        if let Some(text) = self.tokenizer_config.and_then(|c| c.chat_template()) {
            return Some((TemplateSource::TokenizerConfig, owned(text)));
        }
        if let Some(text) = self.gguf {
            return Some((TemplateSource::Gguf, owned(text)));
        }
        if let Some(file) = &self.files.common {
            return Some((TemplateSource::ChatTemplateFile, read(CHAT_TEMPLATE, file)));
        }
        let family = self
            .names
            .iter()
            .find_map(|name| TemplateFamily::from_file_name(name))?;
        Some((TemplateSource::FileName(family), owned(family.template())))
    }
}

fn read(name: &str, file: &Result<OpenFile, String>) -> Result<String, String> {
    let file = file
        .as_ref()
        .map_err(|problem| format!("{name}: {problem}"))?;
    read_text(&file.file, MAX_TEMPLATE_BYTES).map_err(|e| format!("{name}: {e}"))
}
