//! Which of the places that may hold a model's chat template is taken.
//!
//! The first source that exists decides. A broken one is a problem and nothing further down is
//! tried, so that a model never speaks a format its owner did not mean.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::TemplateFamily;
use super::manifest::Manifest;
use super::model_files::read_text;
use super::tokenizer_files::TokenizerConfig;

const MAX_TEMPLATE_BYTES: u64 = 1024 * 1024;

/// Where a model's template came from, by falling priority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "from", content = "which")]
pub enum TemplateSource {
    /// The family that `template` in `model.toml` names.
    ManifestFamily(TemplateFamily),
    /// The file that `template-file` in `model.toml` names.
    ManifestFile(PathBuf),
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
    /// The folder that relative paths in the manifest start at.
    pub manifest_dir: &'a Path,
    /// The folder of the files beside the model; `None` for a file in the models folder itself.
    pub companions: Option<&'a Path>,
    pub tokenizer_config: Option<&'a TokenizerConfig>,
    pub gguf: Option<&'a str>,
    /// Names that may tell a family, the most telling first.
    pub names: [&'a str; 2],
}

impl Candidates<'_> {
    /// The source that decides and its text, or why the text cannot be had.
    pub fn choose(&self) -> Option<(TemplateSource, Result<String, String>)> {
        let owned = |text: &str| Ok(text.to_owned());
        if let Some(family) = self.manifest.template {
            let source = TemplateSource::ManifestFamily(family);
            return Some((source, owned(family.template())));
        }
        if let Some(path) = &self.manifest.template_file {
            let text = read(&self.manifest_dir.join(path));
            return Some((TemplateSource::ManifestFile(path.clone()), text));
        }
        if let Some(path) = self.companions.map(|dir| dir.join("chat_template.jinja"))
            && path.exists()
        {
            return Some((TemplateSource::ChatTemplateFile, read(&path)));
        }
        if let Some(text) = self.tokenizer_config.and_then(|c| c.chat_template()) {
            return Some((TemplateSource::TokenizerConfig, owned(text)));
        }
        if let Some(text) = self.gguf {
            return Some((TemplateSource::Gguf, owned(text)));
        }
        let family = self
            .names
            .iter()
            .find_map(|name| TemplateFamily::from_file_name(name))?;
        Some((TemplateSource::FileName(family), owned(family.template())))
    }
}

fn read(path: &Path) -> Result<String, String> {
    read_text(path, MAX_TEMPLATE_BYTES).map_err(|e| format!("{}: {e}", path.display()))
}
