//! The README says nothing about commands, settings, paths and errors that is not so.

mod daemon_support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use daemon_support::Setup;
use rkllmd::models::Catalog;
use rkllmd::settings::known_keys;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn readme() -> String {
    fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap()
}

/// Command lines in its `sh` blocks, continued lines joined.
fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in readme().replace("\\\n", " ").lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside => commands.push(command.to_owned()),
            _ => {}
        }
    }
    assert!(!commands.is_empty());
    commands
}

/// Texts in backticks.
fn quoted() -> Vec<String> {
    let text = readme();
    let outside_blocks: String = text.split("```").step_by(2).collect();
    outside_blocks
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_make_target_exists() {
    let mut targets: Vec<String> = commands()
        .into_iter()
        .chain(quoted())
        .filter_map(|command| command.strip_prefix("make ").map(str::to_owned))
        .collect();
    targets.sort();
    targets.dedup();
    assert!(targets.len() >= 3, "{targets:?}");
    for target in targets {
        let output = Command::new("make")
            .arg("-n")
            .args(target.split_whitespace())
            .current_dir(ROOT)
            .output()
            .expect("make is installed");
        assert!(output.status.success(), "make {target}: {output:?}");
    }
}

#[test]
fn every_rkllmd_command_line_is_accepted() {
    let lines: Vec<String> = commands()
        .into_iter()
        .chain(quoted())
        .filter_map(|command| command.strip_prefix("rkllmd ").map(str::to_owned))
        .collect();
    assert!(lines.len() >= 4, "{lines:?}");
    for line in lines {
        // With --help last, the parser has met everything before it and nothing is done.
        let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
            .args(line.split_whitespace())
            .arg("--help")
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "rkllmd {line}: {output:?}");
    }
}

#[test]
fn the_config_it_checks_is_right() {
    let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["check-config", "--config", "packaging/rkllmd.toml"])
        .current_dir(ROOT)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn every_key_and_variable_it_names_exists() {
    let keys = known_keys();
    let sections: Vec<&str> = keys.iter().map(|key| key.section.as_str()).collect();
    let mut seen = 0;
    for text in quoted() {
        if let Some((section, _)) = text.split_once('.')
            && sections.contains(&section)
            // A file's name, not a key.
            && !text.ends_with(".json")
        {
            assert!(keys.iter().any(|key| key.path() == text), "{text}");
            seen += 1;
        }
        // The journal's fields are no variables; a_stopped_journal_delays_nothing.rs reads them.
        let fields = include_str!("a_stopped_journal_delays_nothing.rs");
        let is_field = fields.contains(&format!("\"{text}\""));
        if text.starts_with("RKLLMD_") && text != "RKLLMD_" && !is_field {
            assert!(keys.iter().any(|key| key.variable() == text), "{text}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} keys are named");
}

#[test]
fn the_defaults_it_states_are_the_defaults() {
    let keys = known_keys();
    let mut seen = 0;
    for line in readme().lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, key, default, _, _] = cells[..] else {
            continue;
        };
        let Some(key) = keys
            .iter()
            .find(|known| format!("`{}`", known.path()) == key)
        else {
            continue;
        };
        let stated = default.trim_matches('`');
        let actual = match &key.default {
            serde_json::Value::Array(items) if items.is_empty() => "none".to_owned(),
            serde_json::Value::Array(items) => items[0].as_str().unwrap().to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(stated, actual, "{}", key.path());
        seen += 1;
    }
    assert_eq!(seen, 7, "rows of the settings table");
}

#[test]
fn every_linked_file_exists() {
    let text = readme();
    let links: Vec<&str> = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.starts_with("https://"))
        .collect();
    assert!(links.len() >= 3, "{links:?}");
    for link in links {
        assert!(Path::new(ROOT).join(link).exists(), "{link}");
    }
}

#[test]
fn the_rust_version_is_the_manifests() {
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \""))
        .unwrap()
        .trim_end_matches('"');
    assert!(readme().contains(&format!("Rust {version} or newer")));
}

#[test]
fn its_model_toml_is_accepted() {
    let text = readme();
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (manifest, _) = rest.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("qwen");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("Qwen3-1.7B-w8a8.rkllm"), "").unwrap();
    fs::write(model.join("model.toml"), manifest).unwrap();
    let catalog = Catalog::scan(folder.path()).unwrap();
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    let model = catalog.find("default").expect("its alias");
    assert_eq!(&*model.id, "qwen3");
    assert_eq!(model.context_length, Some(4096));
    assert_eq!(model.sampling.top_k, Some(20));
}

#[test]
fn the_api_table_is_what_openapi_describes() {
    let text = readme();
    let described: BTreeSet<String> = text
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let path = cells.get(1)?.trim_matches('`');
            (path.starts_with('/')).then(|| path.to_owned())
        })
        .collect();
    let daemon = Setup::new().start();
    let document = daemon.get("/openapi.json").json();
    let mut served: BTreeSet<String> = document["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .cloned()
        .collect();
    // The document does not describe itself.
    served.insert("/openapi.json".to_owned());
    assert_eq!(described, served);
}

#[test]
fn every_error_code_it_lists_exists() {
    let source = fs::read_to_string(Path::new(ROOT).join("src/http/status.rs")).unwrap();
    let text = readme();
    let (_, rest) = text.split_once("### Errors").unwrap();
    let (table, _) = rest.split_once("\n## ").unwrap();
    let codes: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| ") && line[2..].starts_with(char::is_numeric))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect();
    assert!(codes.len() > 20, "{codes:?}");
    for code in codes {
        assert!(source.contains(&format!("\"{code}\"")), "{code}");
    }
}
