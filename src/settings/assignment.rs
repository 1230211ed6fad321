//! One key set to one value by one source. Files, environment and flags all become a list of these,
//! so that merging is "the last one wins" and every value remembers its source.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toml::de::DeTable;

use super::error::Problem;
use super::known_keys::{KnownKey, nearest_key, nearest_section, nearest_variable};
use super::load::VARIABLE_PREFIX;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(&'static str),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("built-in default"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub section: String,
    pub name: String,
    pub value: toml::Value,
    pub origin: Origin,
}

/// Reads one TOML file. Keys that are not known become problems and the rest is kept, so that one
/// run reports them all.
pub(super) fn from_file(
    path: &Path,
    keys: &[KnownKey],
    problems: &mut Vec<Problem>,
) -> Vec<Assignment> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) => {
            problems.push(Problem::Unreadable {
                path: path.to_owned(),
                source,
            });
            return Vec::new();
        }
    };
    let file = File { path, text: &text };
    // Parsed twice: the spanned form knows lines, the plain one has values that deserialise.
    let (spans, table) = match (DeTable::parse(&text), text.parse::<toml::Table>()) {
        (Ok(spans), Ok(table)) => (spans.into_inner(), table),
        (Err(error), _) | (_, Err(error)) => {
            problems.push(Problem::Syntax {
                origin: file.origin(error.span().map_or(0, |span| span.start)),
                message: error.message().to_owned(),
            });
            return Vec::new();
        }
    };
    let mut assignments = Vec::new();
    for (section, content) in table {
        let span = spans.get_key_value(section.as_str());
        let header = file.origin(span.map_or(0, |(key, _)| key.span().start));
        match section_content(&section, content, keys, header) {
            Ok(content) => {
                let spans = span.and_then(|(_, value)| value.get_ref().as_table());
                for (name, value) in content {
                    let span = spans.and_then(|table| table.get_key_value(name.as_str()));
                    let origin = file.origin(span.map_or(0, |(key, _)| key.span().start));
                    match assignment(&section, name, value, keys, origin) {
                        Ok(assignment) => assignments.push(assignment),
                        Err(problem) => problems.push(problem),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    assignments
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    /// The line, from 1, that holds a byte offset.
    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.as_bytes().iter().take(offset);
        Origin::File {
            path: self.path.to_owned(),
            line: before.filter(|byte| **byte == b'\n').count() + 1,
        }
    }
}

/// The keys of a top-level entry, when it is one of the sections.
fn section_content(
    section: &str,
    content: toml::Value,
    keys: &[KnownKey],
    origin: Origin,
) -> Result<toml::Table, Problem> {
    let known = keys.iter().any(|key| key.section == section);
    match content {
        toml::Value::Table(content) if known => Ok(content),
        toml::Value::Table(_) => Err(Problem::UnknownKey {
            origin,
            nearest: nearest_section(keys, section),
            key: section.to_owned(),
        }),
        other if known => Err(Problem::Invalid {
            origin,
            key: section.to_owned(),
            reason: format!("must be a table of keys, not a {}", other.type_str()),
        }),
        _ => Err(Problem::UnknownKey {
            origin,
            nearest: nearest_key(keys, "", section),
            key: section.to_owned(),
        }),
    }
}

fn assignment(
    section: &str,
    name: String,
    value: toml::Value,
    keys: &[KnownKey],
    origin: Origin,
) -> Result<Assignment, Problem> {
    let known = keys
        .iter()
        .any(|key| key.section == section && key.name == name);
    if known {
        Ok(Assignment {
            section: section.to_owned(),
            name,
            value,
            origin,
        })
    } else {
        Err(Problem::UnknownKey {
            origin,
            nearest: nearest_key(keys, section, &name),
            key: format!("{section}.{name}"),
        })
    }
}

/// Reads the variables that begin with `RKLLMD_` and no others.
pub(super) fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    keys: &[KnownKey],
    problems: &mut Vec<Problem>,
) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    for (variable, value) in environment {
        let Some(variable) = variable.to_str().filter(|v| v.starts_with(VARIABLE_PREFIX)) else {
            continue;
        };
        let Some(key) = keys.iter().find(|key| key.variable() == variable) else {
            problems.push(Problem::UnknownVariable {
                variable: variable.to_owned(),
                nearest: nearest_variable(keys, variable),
            });
            continue;
        };
        let origin = Origin::Variable(variable.to_owned());
        let Some(value) = value.to_str() else {
            problems.push(Problem::Invalid {
                origin,
                key: key.path(),
                reason: "is not UTF-8".to_owned(),
            });
            continue;
        };
        assignments.push(Assignment {
            section: key.section.clone(),
            name: key.name.clone(),
            value: typed(value, &key.default),
            origin,
        });
    }
    assignments
}

/// A variable's text as the type its key has. Text that does not fit stays a string, and the
/// deserialiser then says what it expected.
fn typed(text: &str, default: &Json) -> toml::Value {
    let string = || toml::Value::String(text.to_owned());
    match default {
        Json::Array(_) => toml::Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| toml::Value::String(item.to_owned()))
                .collect(),
        ),
        Json::Number(_) => text.parse().map_or_else(|_| string(), toml::Value::Integer),
        Json::Bool(_) => text.parse().map_or_else(|_| string(), toml::Value::Boolean),
        _ => string(),
    }
}
