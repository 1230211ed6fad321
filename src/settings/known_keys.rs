//! The list of keys, derived from `Settings` itself: a field that is added there is at once a TOML
//! key, an environment variable and a line of `--help`, and there is no second list to forget.

use serde_json::Value;

use super::{Settings, VARIABLE_PREFIX};

/// A suggestion must be at least this similar (Jaro-Winkler, 0 to 1) to be worth printing.
const SIMILAR: f64 = 0.8;

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

/// The known key a wrong one was probably meant to be. A right name in a wrong section wins.
pub(super) fn nearest_key(keys: &[KnownKey], section: &str, name: &str) -> Option<String> {
    if let Some(key) = keys.iter().find(|key| key.name == name) {
        return Some(key.path());
    }
    let wrong = if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    };
    nearest(&wrong, keys.iter().map(KnownKey::path))
}

pub(super) fn nearest_variable(keys: &[KnownKey], wrong: &str) -> Option<String> {
    // The shared prefix would make everything look similar.
    let wrong = wrong.strip_prefix(VARIABLE_PREFIX).unwrap_or(wrong);
    let names = keys
        .iter()
        .map(|key| key.variable()[VARIABLE_PREFIX.len()..].to_owned());
    nearest(wrong, names).map(|name| format!("{VARIABLE_PREFIX}{name}"))
}

pub(super) fn nearest_section(keys: &[KnownKey], wrong: &str) -> Option<String> {
    nearest(wrong, keys.iter().map(|key| key.section.clone()))
}

fn nearest(wrong: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(wrong, &candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
