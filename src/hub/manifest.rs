//! The `model.toml` of a pulled model: where it comes from, for people and for the next pull.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::PullError;
use crate::regular_file;

pub(super) const NAME: &str = "model.toml";
const MOST_BYTES: u64 = 1 << 20;
/// How one begins that a pull has written.
pub(super) const BEGINNING: &str = "# Written by `rkllmd pull`.";
const HEADING: &str = " Everything may be added to; [source] tells what was pulled.\n\n";

/// Where a model comes from, the `[source]` of its `model.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Source {
    pub endpoint: String,
    pub repository: String,
    pub revision: String,
    pub commit: String,
    pub file: String,
    pub sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The repository of its tokenizer and template where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

#[derive(Serialize)]
struct Manifest<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<&'a str>,
    source: &'a Source,
}

/// The text of a manifest.
pub(super) fn text(aliases: Vec<&str>, source: &Source) -> Result<String, PullError> {
    let manifest = Manifest { aliases, source };
    let text = toml::to_string(&manifest).map_err(|error| PullError::Settings {
        what: NAME.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(format!("{BEGINNING}{HEADING}{text}"))
}

/// Whether a pull has written the manifest in this folder; nothing of it is parsed.
pub(super) fn is_of_a_pull(folder: &Path) -> bool {
    let text = regular_file::read_text(&folder.join(NAME), MOST_BYTES);
    text.is_ok_and(|text| text.starts_with(BEGINNING))
}

/// Where the model in this folder comes from; `None`: no pull has put it there.
pub(super) fn source_of(folder: &Path) -> Option<Source> {
    let text = regular_file::read_text(&folder.join(NAME), MOST_BYTES).ok()?;
    let mut manifest: toml::Table = text.parse().ok()?;
    manifest.remove("source")?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_beside_what_others_add() {
        let source = Source {
            endpoint: "https://hub.lan".to_owned(),
            repository: "a/b".to_owned(),
            revision: "main".to_owned(),
            commit: "c".to_owned(),
            file: "x \"y\".gguf".to_owned(),
            sha256: "s".to_owned(),
            licence: None,
            tokenizer: Some("d/e".to_owned()),
        };
        let folder = tempfile::tempdir().unwrap();
        let text = text(vec!["a/b:q4_0"], &source).unwrap();
        let more = format!("{text}\n[sampling]\ntemperature = 0.5\n");
        std::fs::write(folder.path().join(NAME), more).unwrap();
        assert_eq!(source_of(folder.path()), Some(source));
        assert!(is_of_a_pull(folder.path()));
        std::fs::write(folder.path().join(NAME), "id = \"x\"\n").unwrap();
        assert_eq!(source_of(folder.path()), None);
        assert!(!is_of_a_pull(folder.path()));
    }
}
