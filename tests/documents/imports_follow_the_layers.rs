//! Nothing runs back up: a part of the program imports what lies below it in the table of layers of
//! docs/architecture.md, and nothing else.
//!
//! Every path of the sources counts, in `use` items and elsewhere, also inside macros. Modules of unit
//! tests do not. What is excepted stands in [`EXCEPTIONS`] with its reason, and an exception that no
//! import needs any more fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::named_paths::Named;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Something that is imported back up all the same.
struct Exception {
    /// A file or folder beneath `src`.
    from: &'static str,
    /// What it imports, and what is in that.
    path: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        from: "reader",
        path: "models",
        reason: "what is read is said in the words of the list of models",
    },
    Exception {
        from: "reader/pool.rs",
        path: "telemetry::Metrics",
        reason: "counts the deadlines that passed",
    },
    Exception {
        from: "http",
        path: "http::HttpState",
        reason: "what all listeners and handlers share names each of them",
    },
    Exception {
        from: "http/request/error.rs",
        path: "http::request::content_coding",
        reason: "says which codings are read",
    },
    Exception {
        from: "http/transport",
        path: "http::router::Routes",
        reason: "a connection hands its requests to the router",
    },
    Exception {
        from: "http/transport",
        path: "http::response::error_shape::ErrorShape",
        reason: "what is no request is refused before the router sees it",
    },
    Exception {
        from: "http/transport/listener.rs",
        path: "http::request::access::Rule",
        reason: "its address decides which clients are let in",
    },
    Exception {
        from: "http/response/error_shape.rs",
        path: "http::rpc",
        reason: "errors on /rpc are JSON-RPC's",
    },
    Exception {
        from: "http/response/error_shape.rs",
        path: "http::dialects::ollama::error",
        reason: "errors below /api are Ollama's",
    },
    Exception {
        from: "http/response/error_shape.rs",
        path: "http::dialects::anthropic::error",
        reason: "errors below /v1/messages are Anthropic's",
    },
    Exception {
        from: "http/response/error_shape.rs",
        path: "http::dialects::responses::error",
        reason: "errors below /v1/responses name the fields of responses",
    },
    Exception {
        from: "http/pages/openapi.rs",
        path: "http::dialects",
        reason: "describes every route",
    },
];

/// Folders of dialects, and the only file outside that may import from them.
const DIALECTS: &str = "http/dialects/";
const ROUTER: &str = "http/router.rs";

/// The rows of the table, from the top: what is in one row may import every row below it.
fn layers() -> Vec<Vec<String>> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/architecture.md")).unwrap();
    let (_, rest) = text
        .split_once("## Who may import whom")
        .expect("the section");
    let (section, _) = rest.split_once("\n## ").expect("the next section");
    // A row begins with a part in backticks, and its first cell names the others.
    let rows: Vec<Vec<String>> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cell = line[2..].split(" | ").next().unwrap();
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        })
        .collect();
    assert!(rows.len() > 8, "{rows:?}");
    rows
}

/// Each part and its row.
fn rows_of_parts() -> BTreeMap<String, usize> {
    let mut parts = BTreeMap::new();
    for (row, names) in layers().into_iter().enumerate() {
        for name in names {
            let before = parts.insert(name.clone(), row);
            assert_eq!(before, None, "{name} is in the table twice");
        }
    }
    parts
}

fn sources() -> Vec<PathBuf> {
    let source = Path::new(ROOT).join("src");
    let mut found = Vec::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(&source).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The module that a file is, as the parts of its path.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// The innermost part of the table that holds this path.
fn part_of<'a>(parts: &'a BTreeMap<String, usize>, path: &[String]) -> Option<&'a str> {
    (1..=path.len()).rev().find_map(|length| {
        let (name, _) = parts.get_key_value(&path[..length].join("/"))?;
        Some(name.as_str())
    })
}

struct Import {
    file: String,
    from: String,
    to: String,
    path: String,
}

/// What one part takes from another.
fn imports(parts: &BTreeMap<String, usize>) -> Vec<Import> {
    let mut found = Vec::new();
    for file in sources() {
        let module = module_of(&file);
        let is_test = module.last().is_some_and(|last| last == "tests");
        // The roots bring everything together.
        if module.is_empty() || is_test {
            continue;
        }
        let from = part_of(parts, &module)
            .unwrap_or_else(|| panic!("src/{} is in no layer", file.display()));
        let text = fs::read_to_string(Path::new(ROOT).join("src").join(&file)).unwrap();
        for path in Named::of(&module, &text).paths {
            // Items of the crate's root, such as macros, are in no part.
            let Some(to) = part_of(parts, &path) else {
                continue;
            };
            if to != from {
                found.push(Import {
                    file: file.to_str().unwrap().to_owned(),
                    from: from.to_owned(),
                    to: to.to_owned(),
                    path: path.join("::"),
                });
            }
        }
    }
    found
}

impl Exception {
    fn allows(&self, import: &Import) -> bool {
        let is_in = |text: &str, whole: &str, separator: &str| {
            text.strip_prefix(whole)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
        };
        is_in(&import.file, self.from, "/") && is_in(&import.path, self.path, "::")
    }
}

#[test]
fn nothing_runs_back_up() {
    let parts = rows_of_parts();
    let imports = imports(&parts);
    assert!(imports.len() > 200, "only {} imports", imports.len());
    let mut needed = BTreeSet::new();
    let mut wrong = Vec::new();
    for import in &imports {
        let is_dialect = import.to.starts_with(DIALECTS) && import.file != ROUTER;
        if !is_dialect && parts[&import.from] < parts[&import.to] {
            continue;
        }
        match EXCEPTIONS
            .iter()
            .position(|exception| exception.allows(import))
        {
            Some(index) => {
                needed.insert(index);
            }
            None => wrong.push(format!(
                "src/{} ({}) imports {} ({})",
                import.file, import.from, import.path, import.to
            )),
        }
    }
    assert!(
        wrong.is_empty(),
        "back up the layers:\n{}",
        wrong.join("\n")
    );
    for (index, exception) in EXCEPTIONS.iter().enumerate() {
        let Exception { from, path, reason } = exception;
        assert!(
            needed.contains(&index),
            "src/{from} does not import {path} any more, which was excepted because: {reason}"
        );
    }
}
