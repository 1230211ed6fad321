//! Where a pulled model comes from: `[source]` of its `model.toml`, which a pull writes.

use serde::{Deserialize, Serialize};

use crate::printable::is_printable;

/// What a pull writes down.
const KEYS: [&str; 8] = [
    "endpoint",
    "repository",
    "revision",
    "commit",
    "file",
    "sha256",
    "licence",
    "tokenizer",
];

/// What is said of it; the file's editor may take anything away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSource {
    /// The hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The repository of its tokenizer and template where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

impl ModelSource {
    /// `None`: the table is empty, so no pull has put the model there.
    ///
    /// # Errors
    ///
    /// A key is none of a pull's, or holds no text.
    pub fn of(table: &toml::Table) -> Result<Option<Self>, String> {
        for (key, value) in table {
            if !KEYS.contains(&&**key) {
                let known = KEYS.join(", ");
                return Err(format!(
                    "unknown key `source.{key}`, expected one of {known}"
                ));
            }
            if !value.as_str().is_some_and(is_printable) {
                return Err(format!("source.{key} is no text"));
            }
        }
        let text = |key: &str| table.get(key)?.as_str().map(str::to_owned);
        let source = Self {
            endpoint: text("endpoint"),
            repository: text("repository"),
            revision: text("revision"),
            commit: text("commit"),
            file: text("file"),
            sha256: text("sha256"),
            licence: text("licence"),
            tokenizer: text("tokenizer"),
        };
        Ok((!table.is_empty()).then_some(source))
    }

    /// In a line, for people.
    pub fn line(&self) -> String {
        let mut line = self.repository.clone().unwrap_or_else(|| "?".to_owned());
        if let Some(commit) = &self.commit {
            let short: String = commit.chars().take(12).collect();
            line += &format!(" at {short}");
        }
        if let Some(file) = &self.file {
            line += &format!(", {file}");
        }
        if let Some(licence) = &self.licence {
            line += &format!(", licence {licence}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_what_a_pull_has_written() {
        let of = |text: &str| ModelSource::of(&text.parse().unwrap());
        assert_eq!(of(""), Ok(None));
        let source = of("repository = 'a/b'\ncommit = '0123456789abcdef'\nfile = 'm.rkllm'")
            .unwrap()
            .unwrap();
        assert_eq!(source.line(), "a/b at 0123456789ab, m.rkllm");
        assert_eq!(source.licence, None);
        assert!(of("x = 'y'").unwrap_err().contains("`source.x`"));
        assert_eq!(of("commit = 1").unwrap_err(), "source.commit is no text");
    }
}
