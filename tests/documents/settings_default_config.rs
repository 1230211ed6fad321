//! The configuration file that is shipped documents every key with its true default.

use std::collections::BTreeSet;
use std::fs;

use rkllmd::settings::{CliOverrides, Settings, known_keys};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/rkllmd.toml");

/// The shipped file with each commented key (`#key = value`, no space) made active.
fn uncommented() -> String {
    fs::read_to_string(SHIPPED)
        .unwrap()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn as_shipped_it_changes_nothing() {
    let settings = Settings::load(Some(SHIPPED.as_ref()), [], &CliOverrides::default()).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn with_every_key_uncommented_it_is_exactly_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rkllmd.toml");
    fs::write(&path, uncommented()).unwrap();
    let settings = Settings::load(Some(&path), [], &CliOverrides::default()).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn it_lists_every_key_there_is() {
    let shipped: toml::Table = uncommented().parse().unwrap();
    let shipped: BTreeSet<String> = shipped
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_table()
                .unwrap()
                .keys()
                .map(move |name| format!("{section}.{name}"))
        })
        .collect();
    let known: BTreeSet<String> = known_keys().iter().map(|key| key.path()).collect();
    assert_eq!(shipped, known);
}

#[test]
fn every_key_is_explained() {
    let text = fs::read_to_string(SHIPPED).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for key in known_keys() {
        let assignment = format!("#{} = ", key.name);
        let mut found = false;
        for (index, line) in lines.iter().enumerate() {
            if line.starts_with(&assignment) {
                found = true;
                assert!(
                    lines[index - 1].starts_with("# "),
                    "{} has no explanation above it",
                    key.path()
                );
            }
        }
        assert!(found, "{} is missing", key.path());
    }
}
