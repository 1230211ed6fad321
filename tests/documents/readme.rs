//! The README and the documents say nothing about commands, settings, paths and errors that is not
//! so, and leave none of them out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon_support::Setup;
use rkllmd::models::Catalog;
use rkllmd::settings::{Settings, known_keys};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A document and where it is, seen from the repository.
struct Document {
    path: PathBuf,
    text: String,
}

fn document(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn files_under(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<Document> {
    let top = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ];
    let documents: Vec<Document> = top
        .into_iter()
        .map(PathBuf::from)
        .chain(files_under("docs", "md"))
        .map(|path| Document {
            text: document(path.to_str().unwrap()),
            path,
        })
        .collect();
    assert!(documents.len() > 12, "{}", documents.len());
    documents
}

/// Command lines in the `sh` blocks of all documents, continued lines joined.
fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    for document in documents() {
        let mut inside = false;
        for line in document.text.replace("\\\n", " ").lines() {
            match line {
                "```sh" => inside = true,
                "```" => inside = false,
                command if inside => {
                    let command = command.trim_start_matches("sudo ");
                    commands.push(command.to_owned());
                }
                _ => {}
            }
        }
        assert!(!inside, "{}: a block has no end", document.path.display());
    }
    assert!(!commands.is_empty());
    commands
}

/// Texts in backticks of all documents.
fn quoted() -> Vec<String> {
    let mut quoted = Vec::new();
    for document in documents() {
        let outside_blocks: String = document.text.split("```").step_by(2).collect();
        quoted.extend(
            outside_blocks
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned),
        );
    }
    quoted
}

#[test]
fn the_readme_is_short() {
    let lines = document("README.md").lines().count();
    assert!(lines <= 200, "{lines} lines; details go to docs/");
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
        let text = text.split(" = ").next().unwrap();
        if let Some((section, _)) = text.split_once('.')
            && sections.contains(&section)
            // A file's name and a method's, not keys.
            && !text.ends_with(".json")
            && text != "rpc.discover"
        {
            assert!(keys.iter().any(|key| key.path() == text), "{text}");
            seen += 1;
        }
        // The journal's fields are no variables; a_stopped_journal_delays_nothing.rs reads them.
        let fields = include_str!("../parts/a_stopped_journal_delays_nothing.rs");
        let is_field = fields.contains(&format!("\"{text}\""));
        if text.starts_with("RKLLMD_") && text != "RKLLMD_" && !is_field {
            assert!(keys.iter().any(|key| key.variable() == text), "{text}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} keys are named");
}

/// The list is made of the shipped file, whose keys and defaults settings_default_config.rs holds to
/// the code.
#[test]
fn every_setting_is_in_the_list() {
    let mut found = String::new();
    let mut comment: Vec<&str> = Vec::new();
    let shipped = document("packaging/rkllmd.toml");
    let mut listed = 0;
    for line in shipped.lines() {
        if let Some(words) = line.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        let words = comment.join(" ").replace('|', "\\|");
        comment.clear();
        if line.starts_with('[') {
            let section = line.trim_matches(['[', ']']);
            let _ = write!(found, "\n### {section}\n\n");
            if !words.is_empty() {
                let _ = write!(found, "{words}\n\n");
            }
            let _ = writeln!(found, "| Key | Default | Meaning |\n|---|---|---|");
        } else if let Some((key, default)) =
            line.strip_prefix('#').and_then(|l| l.split_once(" = "))
        {
            let section = found.rsplit("### ").next().unwrap().lines().next().unwrap();
            let default = match default {
                "\"\"" => "unset".to_owned(),
                other => format!("`{other}`"),
            };
            let row = format!("| `{section}.{key}` | {default} | {words} |");
            let _ = writeln!(found, "{row}");
            listed += 1;
        }
    }
    assert_eq!(listed, known_keys().len());
    crate::rpc_support::document::check("docs/configuration.md", "settings", &found);
}

/// The names that a page of the repository gives to its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    text.split("```")
        .step_by(2)
        .flat_map(str::lines)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for from in documents() {
        let outside_blocks: String = from.text.split("```").step_by(2).collect();
        let links = outside_blocks
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("https://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = match file {
                "" => from.path.clone(),
                file => from.path.parent().unwrap().join(file),
            };
            let full = Path::new(ROOT).join(to);
            assert!(full.exists(), "{}: {link}", from.path.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(full).unwrap();
                let known = anchors(&text);
                assert!(known.contains(anchor), "{}: {link}", from.path.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} links");
}

/// `docs/vendor-library.md §N`, wherever it is cited.
#[test]
fn every_cited_section_of_vendor_library_exists() {
    const CITED: &str = "docs/vendor-library.md §";
    let sections = document("docs/vendor-library.md");
    let mut seen = 0;
    for folder in ["src", "rkllm-sys/src", "rkllm-cpu/src", "tests"] {
        for file in files_under(folder, "rs") {
            if file.ends_with("readme.rs") {
                continue;
            }
            let text = document(file.to_str().unwrap());
            for cited in text.split(CITED).skip(1) {
                let number: String = cited.chars().take_while(char::is_ascii_digit).collect();
                let heading = format!("\n## {number}. ");
                assert!(sections.contains(&heading), "{}: §{number}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "only {seen} citations");
}

/// The files that may be unsafe are those that architecture.md lists, with a reason for each.
#[test]
fn the_unsafe_list_is_complete() {
    let text = document("docs/architecture.md");
    let listed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `src/")?.split('`').next())
        .collect();
    let sources = files_under("src", "rs");
    let mut found = BTreeSet::new();
    for file in &sources {
        let text = document(file.to_str().unwrap());
        // Tests beside a module may, with their reason.
        let allowed =
            text.contains("#![allow(unsafe_code") || text.contains("#![expect(unsafe_code");
        if allowed {
            found.insert(file.strip_prefix("src").unwrap().to_str().unwrap());
        }
    }
    assert_eq!(listed, found);
}

#[test]
fn the_rust_version_is_the_manifests() {
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \""))
        .unwrap()
        .trim_end_matches('"');
    assert!(document("README.md").contains(&format!("Rust {version} or newer")));
}

#[test]
fn the_model_toml_of_the_documents_is_accepted() {
    let text = document("docs/configuration.md");
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (manifest, _) = rest.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("qwen");
    fs::create_dir_all(model.join("adapters")).unwrap();
    for file in ["Qwen3-1.7B-w8a8.rkllm", "adapters/tone.rkllm"] {
        fs::write(model.join(file), "").unwrap();
    }
    fs::write(model.join("model.toml"), manifest).unwrap();
    let mut settings = Settings::default();
    settings.models.dir = folder.path().to_owned();
    let program = env!("CARGO_BIN_EXE_rkllmd").into();
    let catalog = Catalog::scan_apart(&settings, Some(program)).unwrap();
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    let model = catalog.find("default").expect("its alias");
    assert_eq!(&*model.id, "qwen3");
    assert_eq!(model.facts.context_length, Some(4096));
    assert_eq!(model.facts.sampling.top_k, Some(20));
}

#[test]
fn the_api_table_is_what_openapi_describes() {
    let text = document("docs/api.md");
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
