//! What somebody asks for: a repository, perhaps a revision of it, and which of its models. Pure.
//!
//! ```text
//! OWNER/NAME[@REVISION][:FILE or VARIANT]     hf.co/OWNER/NAME:Q4_K_M     OWNER/NAME/FILE.rkllm
//! https://huggingface.co/OWNER/NAME/blob/REVISION/FILE.gguf, as a browser shows it
//! ```

use std::path::Path;

use super::PullError;
use super::names::{decoded, is_repository_part, is_revision, leads_beneath};
use crate::printable::{is_printable, printable};
use crate::reader::kind_of;

/// Of the hub itself, in the spellings that other programs take. They name no other host than the settings do.
const HUBS: [&str; 4] = [
    "https://huggingface.co/",
    "https://hf.co/",
    "huggingface.co/",
    "hf.co/",
];
/// What stands before a revision in the addresses of a hub's pages.
const PAGES: [&str; 3] = ["tree", "blob", "resolve"];
const NO_TAG: &str = "latest";
const MAIN: &str = "main";
/// Longer than any name that a hub gives.
const MOST_BYTES: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub owner: String,
    pub name: String,
    pub revision: String,
    pub selection: Selection,
}

/// Which of a repository's models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The one that suits the machine best.
    Best,
    /// Likewise, among those whose names have this in them.
    Variant(String),
    File(String),
}

impl Reference {
    /// # Errors
    ///
    /// It names no repository, or names a host.
    pub fn parse(text: &str) -> Result<Self, PullError> {
        let bad = |reason: &str| PullError::BadName {
            name: printable(&text.chars().take(200).collect::<String>()).into_owned(),
            reason: reason.to_owned(),
        };
        let form = "is no model of a hub: write OWNER/NAME, OWNER/NAME:VARIANT or OWNER/NAME:FILE";
        if text.len() > MOST_BYTES || !is_printable(text) {
            return Err(bad(form));
        }
        let known = HUBS.iter().find_map(|hub| text.strip_prefix(hub));
        let rest = known.unwrap_or(text);
        if rest.contains("://") {
            return Err(bad(
                "names a host; models come from `endpoint` in the [hub] settings alone",
            ));
        }
        let (place, selected) = match rest.split_once(':') {
            Some((place, selected)) => (place, Some(selected)),
            None => (rest, None),
        };
        let (place, revision) = match place.split_once('@') {
            Some((place, revision)) => (place, Some(revision)),
            None => (place, None),
        };
        let mut parts = place.splitn(3, '/');
        let owner = parts.next().unwrap_or_default();
        let name = parts.next().unwrap_or_default();
        if !is_repository_part(owner) || !is_repository_part(name) {
            return Err(bad(form));
        }
        let inner = parts.next();
        let page = inner.filter(|_| known.is_some()).and_then(page_in);
        let (revision, inner) = match (&page, revision) {
            (Some(_), Some(_)) => return Err(bad(form)),
            (Some((revision, inner)), None) => (Some(revision.as_str()), inner.as_deref()),
            (None, revision) => (revision, inner),
        };
        let selected = match (inner, selected) {
            (None, selected) => selected,
            (Some(path), None) => Some(file_in(path).ok_or_else(|| bad(form))?),
            (Some(_), Some(_)) => return Err(bad(form)),
        };
        let revision = revision.unwrap_or(MAIN);
        if !is_revision(revision) {
            return Err(bad("names a revision that no hub can have"));
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
            selection: Selection::of(selected)
                .ok_or_else(|| bad("names a file that cannot lie in a repository"))?,
        })
    }

    /// As hubs name it.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// The revision and the file of a page, such as `blob/main/model.gguf?download=true`.
fn page_in(inner: &str) -> Option<(String, Option<String>)> {
    let inner = inner.split(['?', '#']).next()?;
    let (kind, rest) = inner.split_once('/')?;
    if !PAGES.contains(&kind) {
        return None;
    }
    let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
    let file = decoded(file)?;
    Some((decoded(revision)?, Some(file).filter(|it| !it.is_empty())))
}

/// The model's file, before a name that some programs put behind it.
fn file_in(path: &str) -> Option<&str> {
    if kind_of(Path::new(path)).is_some() {
        return Some(path);
    }
    let (file, _) = path.rsplit_once('/')?;
    kind_of(Path::new(file)).map(|_| file)
}

impl Selection {
    /// `None`: no repository can have it.
    fn of(selected: Option<&str>) -> Option<Self> {
        let Some(selected) = selected.filter(|it| !it.is_empty() && *it != NO_TAG) else {
            return Some(Self::Best);
        };
        if kind_of(Path::new(selected)).is_some() {
            return leads_beneath(selected).then(|| Self::File(selected.to_owned()));
        }
        let is_word = !selected.contains(['/', '\\']) && selected.len() <= 200;
        is_word.then(|| Self::Variant(selected.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_repository_is_named_in_every_usual_way() {
        let best = Selection::Best;
        let variant = |text: &str| Selection::Variant(text.to_owned());
        let file = |text: &str| Selection::File(text.to_owned());
        for (text, repository, revision, selection) in [
            ("a/b", "a/b", "main", &best),
            ("a/b:latest", "a/b", "main", &best),
            ("hf.co/a/b", "a/b", "main", &best),
            (
                "https://huggingface.co/a/b:Q4_K_M",
                "a/b",
                "main",
                &variant("Q4_K_M"),
            ),
            ("a/b:w8a8_g128", "a/b", "main", &variant("w8a8_g128")),
            ("a/b@v1.2:x", "a/b", "v1.2", &variant("x")),
            ("a/b@refs/pr/1", "a/b", "refs/pr/1", &best),
            ("a/b:c.rkllm", "a/b", "main", &file("c.rkllm")),
            ("a/b:d/c.GGUF", "a/b", "main", &file("d/c.GGUF")),
            ("a/b/c.rkllm", "a/b", "main", &file("c.rkllm")),
            ("a/b/c.rkllm/my-name", "a/b", "main", &file("c.rkllm")),
            ("https://huggingface.co/a/b/tree/main", "a/b", "main", &best),
            (
                "https://huggingface.co/a/b/tree/v2/:x",
                "a/b",
                "v2",
                &variant("x"),
            ),
            (
                "https://hf.co/a/b/blob/v2/d/c.gguf",
                "a/b",
                "v2",
                &file("d/c.gguf"),
            ),
            (
                "https://huggingface.co/a/b/blob/refs%2Fpr%2F1/d%20%C3%BC/50%25.gguf",
                "a/b",
                "refs/pr/1",
                &file("d ü/50%.gguf"),
            ),
            (
                "https://huggingface.co/a/b/resolve/main/c.rkllm?download=true",
                "a/b",
                "main",
                &file("c.rkllm"),
            ),
        ] {
            let found = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found.repository(), repository, "{text}");
            assert_eq!(
                (&*found.revision, &found.selection),
                (revision, selection),
                "{text}"
            );
        }
    }

    #[test]
    fn hosts_and_paths_are_no_repositories() {
        for text in [
            "",
            "llama3",
            "a/",
            "/a",
            "a//b",
            "../b",
            "a/..",
            "https://evil.example/a/b",
            "http://169.254.169.254/latest",
            "evil.example/a/b",
            "registry.ollama.ai/library/llama3",
            "a/b:../../x.gguf",
            "a/b:/etc/passwd.gguf",
            "a/b:x/y",
            "a/b/c.rkllm:d",
            "a/b/tree/main",
            "https://hf.co/a/b/tree/main/folder",
            "https://hf.co/a/b/blob/main/c.gguf@v1",
            "https://hf.co/a/b/blob/../c.gguf",
            "https://hf.co/a/b/blob/main/../c.gguf",
            "https://hf.co/a/b/blob/main/%2e%2E/c.gguf",
            "https://hf.co/a/b/blob/main/%2Fetc/c.gguf",
            "https://hf.co/a/b/blob/main/%00c.gguf",
            "a/b@../x",
            "a/b\u{202e}",
            "a/b:\n",
            "file:///etc/passwd",
        ] {
            let refused = Reference::parse(text);
            assert!(
                matches!(refused, Err(PullError::BadName { .. })),
                "{text:?}: {refused:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_stays_one_repository(text in "[a-z0-9:/@.\\\\ -]{0,30}|\\PC{0,30}") {
            if let Ok(found) = Reference::parse(&text) {
                for part in [&found.owner, &found.name] {
                    prop_assert!(is_repository_part(part));
                }
                prop_assert!(is_revision(&found.revision));
                if let Selection::File(path) = &found.selection {
                    prop_assert!(leads_beneath(path));
                }
            }
        }
    }
}
