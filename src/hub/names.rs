//! Names that strangers chose, and what they may be. Pure. A name becomes a file's or a folder's only as
//! one that leads nowhere else, hides nothing and steers no terminal.

use crate::printable::is_printable;

/// The longest name of one file or folder, with room for what is put behind it.
const MOST_BYTES: usize = 200;
/// The longest path that a hub names.
const MOST_PATH_BYTES: usize = 1024;

/// Whether a name may become that of a file or folder.
pub(super) fn is_plain(name: &str) -> bool {
    is_segment(name) && name.len() <= MOST_BYTES && !name.starts_with(['.', '-'])
}

/// Whether a path of a listing leads to a file beneath its repository, wherever that is put.
pub(super) fn leads_beneath(path: &str) -> bool {
    !path.is_empty() && path.len() <= MOST_PATH_BYTES && path.split('/').all(is_segment)
}

fn is_segment(name: &str) -> bool {
    let is_dots = matches!(name, "" | "." | "..");
    !is_dots && name.len() <= 255 && !name.contains(['/', '\\', '\0']) && is_printable(name)
}

/// Whether a text is the owner or the name of a repository, as hubs allow them.
pub(super) fn is_repository_part(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty()
        && name.len() <= 96
        && name.chars().all(is_allowed)
        && !name.starts_with(['.', '-'])
        && !name.ends_with(['.', '-'])
        && !name.contains("..")
}

/// Whether a text may name a revision: a branch, a tag or a commit.
pub(super) fn is_revision(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    name.len() <= 200
        && name.chars().all(is_allowed)
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains(".."))
}

/// A part of a path as it stands in an address.
pub(super) fn encoded(text: &str, keep_slashes: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_kept = byte.is_ascii_alphanumeric()
            || b"-_.~".contains(&byte)
            || (keep_slashes && byte == b'/');
        match is_kept {
            true => shown.push(char::from(byte)),
            false => shown.push_str(&format!("%{byte:02X}")),
        }
    }
    shown
}

/// What stands so in an address; `None`: it is no text.
pub(super) fn decoded(shown: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(shown.len()), shown.as_bytes());
    while let [first, more @ ..] = rest {
        let (byte, more) = match (first, more) {
            (b'%', [high, low, more @ ..]) => {
                let digit = |digit: u8| char::from(digit).to_digit(16);
                let value = digit(*high)? * 16 + digit(*low)?;
                (u8::try_from(value).ok()?, more)
            }
            (b'%', _) => return None,
            (byte, more) => (*byte, more),
        };
        bytes.push(byte);
        rest = more;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        for wrong in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            "a\\b",
            "a\0b",
            ".hidden",
            "-rf",
            "a\n",
            "a\u{202e}b",
            "\u{1b}[2J",
        ] {
            assert!(!is_plain(wrong), "{wrong:?}");
        }
        assert!(!is_plain(&"a".repeat(201)));
        for right in ["model.gguf", "Qwen3-0.6B_w8a8.rkllm", "模型.gguf", "a b"] {
            assert!(is_plain(right), "{right}");
        }
        for wrong in ["", "/a", "a/", "a//b", "a/../b", "../../x", "./a", "a/\0"] {
            assert!(!leads_beneath(wrong), "{wrong:?}");
        }
        assert!(leads_beneath(".gitattributes") && leads_beneath("onnx/model.onnx"));
    }

    #[test]
    fn repositories_and_revisions_are_plain_words() {
        for wrong in ["", ".", "..", "a..b", "-a", "a-", "a b", "a/b", "ä", "a%2f"] {
            assert!(!is_repository_part(wrong), "{wrong:?}");
        }
        assert!(is_repository_part("Qwen3-0.6B_x"));
        for wrong in ["", "/", "a/", "../x", "a/../b", ".git", "a b", "a?b"] {
            assert!(!is_revision(wrong), "{wrong:?}");
        }
        for right in ["main", "refs/pr/1", "w8a8_g512-toolkitv1.1.1"] {
            assert!(is_revision(right), "{right}");
        }
    }

    #[test]
    fn what_is_no_word_is_escaped_in_an_address() {
        assert_eq!(encoded("a b/ü?#%", true), "a%20b/%C3%BC%3F%23%25");
        assert_eq!(encoded("refs/pr/1", false), "refs%2Fpr%2F1");
    }

    proptest! {
        #[test]
        fn a_plain_name_stays_in_its_folder(name in "\\PC{0,40}|[./\\\\a-z\0\n-]{0,12}") {
            if is_plain(&name) {
                let path = Path::new("/models").join(&name);
                let parts: Vec<_> = path.components().collect();
                prop_assert_eq!(parts.len(), 3);
                prop_assert!(matches!(parts[2], Component::Normal(_)));
                prop_assert!(!name.starts_with('.'));
            }
        }

        #[test]
        fn a_path_that_leads_beneath_never_goes_up(path in "[./\\\\a-c\0]{0,16}") {
            if leads_beneath(&path) {
                let all = Path::new(&path).components().all(|it| matches!(it, Component::Normal(_)));
                prop_assert!(all, "{}", path);
            }
        }
    }
}
