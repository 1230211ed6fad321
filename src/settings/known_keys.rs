//! The list of keys, derived from `Settings` itself: a field that is added there is at once a TOML
//! key, an environment variable and a line of `--help`, and there is no second list to forget.

use serde_json::Value;

use super::{Settings, VARIABLE_PREFIX};

/// A suggestion may differ from a written name by one letter in this many.
const LETTERS_A_SLIP: usize = 3;
/// A written name with this many letters that begins a key's name is that name cut short.
const LETTERS_OF_A_BEGINNING: usize = 4;

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownKey {
    pub section: String,
    pub name: String,
    /// The default as JSON; null for a key that is unset. Its type is the key's type.
    pub default: Value,
}

impl KnownKey {
    /// `section.name`, as messages show it.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        let upper = |s: &str| s.replace('-', "_").to_uppercase();
        format!(
            "{VARIABLE_PREFIX}{}__{}",
            upper(&self.section),
            upper(&self.name)
        )
    }
}

/// Every key, in the order of the structs.
pub fn known_keys() -> Vec<KnownKey> {
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let mut keys = Vec::new();
    for (section, table) in defaults.as_object().into_iter().flatten() {
        for (name, default) in table.as_object().into_iter().flatten() {
            keys.push(KnownKey {
                section: section.clone(),
                name: name.clone(),
                default: default.clone(),
            });
        }
    }
    keys
}

/// The known key that a wrong one was probably meant to be. A right name in a wrong section wins, then a
/// near name of its own section.
pub(super) fn nearest_key(keys: &[KnownKey], section: &str, name: &str) -> Option<String> {
    if let Some(key) = keys.iter().find(|key| key.name == name) {
        return Some(key.path());
    }
    let among = |own: bool| {
        let keys = keys
            .iter()
            .filter(move |key| (key.section == section) == own);
        nearest(name, keys.map(|key| (key.name.clone(), key.path())))
    };
    among(true).or_else(|| among(false))
}

/// Section and name are compared separately: the section in common would make all keys look similar.
pub(super) fn nearest_variable(keys: &[KnownKey], wrong: &str) -> Option<String> {
    let bare = |variable: &str| {
        let bare = variable.strip_prefix(VARIABLE_PREFIX).unwrap_or(variable);
        bare.replace("__", "_")
    };
    let section = |variable: &str| variable.split('_').next().map(str::len).unwrap_or_default();
    let wrong = bare(wrong);
    let length = wrong.len() - section(&wrong).min(wrong.len());
    let candidates = keys.iter().map(KnownKey::variable);
    candidates
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wrong, &bare(&candidate)),
                candidate,
            )
        })
        .filter(|(slips, _)| *slips <= (length / LETTERS_A_SLIP).max(1))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

pub(super) fn nearest_section(keys: &[KnownKey], wrong: &str) -> Option<String> {
    nearest(
        wrong,
        keys.iter()
            .map(|key| (key.section.clone(), key.section.clone())),
    )
}

/// The nearest of some names; each stands beside what is suggested for it.
fn nearest(wrong: &str, names: impl Iterator<Item = (String, String)>) -> Option<String> {
    let begins = |name: &str| wrong.len() >= LETTERS_OF_A_BEGINNING && name.starts_with(wrong);
    names
        .filter_map(|(name, suggestion)| {
            let slips = strsim::damerau_levenshtein(wrong, &name);
            let near = slips <= (wrong.len() / LETTERS_A_SLIP).max(1) || begins(&name);
            near.then_some((slips, suggestion))
        })
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, suggestion)| suggestion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let keys = known_keys();
        for (section, name, expected) in [
            ("http", "listn", Some("http.listen")),
            ("http", "lisetn", Some("http.listen")),
            ("http", "body-limit", Some("http.body-limit-bytes")),
            ("http", "cors-origin", Some("http.cors-origins")),
            ("http", "max-conections", Some("http.max-connections")),
            ("http", "keep-alive-timout", Some("http.keep-alive-timeout")),
            ("http", "preload", Some("models.preload")),
            ("models", "dirs", Some("models.dir")),
            ("http", "port", None),
            ("http", "host", None),
            ("http", "bind", None),
            ("http", "tls", None),
            ("http", "address", None),
            ("models", "path", None),
            ("log", "level", None),
            ("queue", "x", None),
        ] {
            let nearest = nearest_key(&keys, section, name);
            assert_eq!(nearest.as_deref(), expected, "{section}.{name}");
        }
        for (section, expected) in [
            ("htp", Some("http")),
            ("model", Some("models")),
            ("server", None),
        ] {
            assert_eq!(
                nearest_section(&keys, section).as_deref(),
                expected,
                "{section}"
            );
        }
        for (variable, expected) in [
            ("RKLLMD_HTTP__LISTN", Some("RKLLMD_HTTP__LISTEN")),
            ("RKLLMD_HTTP_LISTEN", Some("RKLLMD_HTTP__LISTEN")),
            ("RKLLMD_HTTP__PORT", None),
            ("RKLLMD_PORT", None),
        ] {
            assert_eq!(
                nearest_variable(&keys, variable).as_deref(),
                expected,
                "{variable}"
            );
        }
    }
}
