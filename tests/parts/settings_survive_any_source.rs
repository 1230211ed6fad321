//! No file, drop-in or variable whatever breaks the loading of settings: they are taken whole, or every
//! problem is told with its place. What was taken can be written down and is then read as the same.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;
use proptest::sample::Index;
use rkllmd::settings::{CliOverrides, KnownKey, Settings, SettingsError, known_keys};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/rkllmd.toml");

fn load(
    toml: impl AsRef<[u8]>,
    environment: Vec<(OsString, OsString)>,
) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rkllmd.toml");
    fs::write(&path, toml).expect("room");
    Settings::load(Some(&path), environment, &CliOverrides::default())
}

/// Loads, and checks what every outcome promises. Gives whether it was accepted.
fn check(toml: impl AsRef<[u8]>, environment: Vec<(OsString, OsString)>) -> bool {
    match load(toml, environment) {
        Ok(settings) => {
            let written = toml::to_string(&settings).expect("settings have a TOML form");
            match load(&written, Vec::new()) {
                Ok(again) => assert_eq!(again, settings, "{written}"),
                Err(error) => panic!("{error}\nin\n{written}"),
            }
            true
        }
        Err(error) => {
            assert!(!error.problems().is_empty());
            for problem in error.problems() {
                let text = problem.to_string();
                let has_place =
                    text.contains("rkllmd.toml") || text.contains("environment variable ");
                assert!(has_place, "{text}");
            }
            false
        }
    }
}

/// The shipped file with each commented key made active, which is accepted.
fn uncommented() -> String {
    let shipped = fs::read_to_string(SHIPPED).expect("the shipped file");
    let lines = shipped.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
        _ => line,
    });
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// Texts that mean something to one key or another, and some that do not.
const TELLING: &str = r#"  | |0|1|-1|2|64|65537|8388608|1e3|true|false|0s|1ms|5s|1h 30m|1year|
    100years|999999999999999999999s|1s1s|1ns|1.5s|s|18446744073709551615s|
    18446744073709551615s 18446744073709551615s|127.0.0.1:0|[::1]:8080|127.0.0.1|
    127.0.0.1:0,127.0.0.1:0|*|a,b|,|/|neutralise|reject|keys|none|0660|0o660|info|rkllmd=debug|rkllmd[{x="|a=b=c|[|off|
    1.3.1|€|"|'|= |#|[http]|"#;

fn telling() -> impl Strategy<Value = String> {
    let known: Vec<String> = TELLING
        .split('|')
        .map(|text| text.trim_start_matches(['\n', ' ']).to_owned())
        .collect();
    prop_oneof![
        4 => prop::sample::select(known),
        1 => "\\PC{0,12}",
        1 => "[0-9]{1,21}(ns|us|ms|s|m|h|d|w|M|y)",
    ]
}

fn toml_value() -> impl Strategy<Value = toml::Value> {
    let leaf = prop_oneof![
        4 => telling().prop_map(toml::Value::String),
        1 => any::<i64>().prop_map(toml::Value::Integer),
        2 => (0i64..100).prop_map(toml::Value::Integer),
        1 => any::<bool>().prop_map(toml::Value::Boolean),
        1 => any::<f64>().prop_map(toml::Value::Float),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(toml::Value::Array),
            prop::collection::btree_map("[a-z-]{1,8}", inner, 0..3)
                .prop_map(|table| toml::Value::Table(table.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = KnownKey> {
    prop::sample::select(known_keys())
}

/// The nearest place before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        check(bytes, Vec::new());
    }

    #[test]
    fn arbitrary_text_of_toml(
        text in r#"([a-z.-]{0,8}( = |=|\[|\]|"|'''|\n|#|[0-9]|,|\{|\}|\PC)){0,20}"#,
    ) {
        check(text, Vec::new());
    }

    #[test]
    fn known_keys_with_arbitrary_values(
        values in prop::collection::vec((any_key(), toml_value()), 0..6),
    ) {
        let mut sections = BTreeMap::<String, toml::Table>::new();
        for (key, value) in values {
            sections.entry(key.section).or_default().insert(key.name, value);
        }
        check(toml::to_string(&sections).expect("a TOML form"), Vec::new());
    }

    #[test]
    fn the_shipped_file_with_damage(
        damage in prop::collection::vec((any::<Index>(), 0usize..12, telling()), 1..4),
    ) {
        let mut text = uncommented();
        for (at, length, instead) in damage {
            let start = boundary(&text, at.index(text.len() + 1));
            let end = boundary(&text, start + length).max(start);
            text.replace_range(start..end, &instead);
        }
        check(text, Vec::new());
    }

    #[test]
    fn variables_with_arbitrary_values(
        values in prop::collection::vec((any_key(), telling()), 0..6),
    ) {
        let environment = values
            .into_iter()
            .map(|(key, value)| (key.variable().into(), value.into()));
        check("", environment.collect());
    }

    #[test]
    fn arbitrary_variables(
        values in prop::collection::vec(
            ("(RKLLMD_)?[A-Z_€]{0,20}", prop::collection::vec(1u8.., 0..12)),
            0..6,
        ),
    ) {
        let environment = values
            .into_iter()
            .map(|(name, value)| (name.into(), OsStr::from_bytes(&value).to_owned()));
        check("", environment.collect());
    }
}

/// The mutations above start from something that is accepted.
#[test]
fn what_is_damaged_was_right() {
    assert!(check(uncommented(), Vec::new()));
    let texts = known_keys()
        .into_iter()
        .filter_map(|key| Some((key.variable().into(), key.default.as_str()?.into())));
    assert!(check("", texts.collect()));
}

/// Files that were found to be met wrongly, or that are hard by construction.
#[test]
fn known_hard_files() {
    for (toml, accepted) in [
        ("", true),
        ("\u{feff}", true),
        ("[http]\r\n", true),
        ("http = {}", true),
        ("[[http]]", false),
        ("[http]\n[http]", false),
        ("http.listen.x = 1", false),
        ("'' = 1", false),
        ("[''.'']", false),
        ("\"http\".\"keep-alive\" = '1s'", true),
        ("[deadlines]\nspawn = '365days'", true),
        ("[deadlines]\nspawn = '365days 1ns'", false),
        ("[deadlines]\nspawn = '18446744073709551615s 1s'", false),
        ("[deadlines]\ntotal = 5", false),
        ("[deadlines]\ntotal = ''", true),
        ("[deadlines]\ntotal = '1m 1ns'", true),
        ("[queue]\ncapacity = 9223372036854775807", false),
        ("[queue]\ncapacity = -1", false),
        ("[queue]\ncapacity = nan", false),
        ("[http]\nlisten = ['[fe80::1%1]:80']", true),
        ("[log]\nfilter = ''", true),
        ("[log]\nfilter = 'a[b{c=d}]=trace,off'", true),
        ("[models]\ndir = '../relative'", true),
    ] {
        assert_eq!(check(toml, Vec::new()), accepted, "{toml:?}");
    }
    let deep = format!("x = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(!check(deep, Vec::new()));
}
