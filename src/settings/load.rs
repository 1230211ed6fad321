//! Files, environment and flags merged into one validated `Settings`. Either everything is right or
//! the caller gets every problem of every source; there is no half-loaded configuration.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::assignment::{Assignment, Origin, from_environment, from_file};
use super::error::{Problem, SettingsError};
use super::known_keys::known_keys;
use super::{CliOverrides, Settings, validate};

/// The file that is read when none is named; it need not exist.
pub const DEFAULT_CONFIG: &str = "/etc/rkllmd/rkllmd.toml";

/// Every environment variable that begins with this must set a key.
pub const VARIABLE_PREFIX: &str = "RKLLMD_";

impl Settings {
    /// Loads the configuration. A later source replaces a key as a whole (arrays included):
    /// the file, its drop-ins `FILE.d/*.toml` by name, the environment, the flags.
    ///
    /// # Errors
    ///
    /// Every problem found, when there is any.
    pub fn load(
        config: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: &CliOverrides,
    ) -> Result<Self, SettingsError> {
        let keys = known_keys();
        let mut problems = Vec::new();
        let mut assignments = Vec::new();
        let files = config_files(config, &mut problems);
        for file in &files {
            assignments.extend(from_file(file, &keys, &mut problems));
        }
        assignments.extend(from_environment(environment, &keys, &mut problems));
        assignments.extend(overrides.assignments());

        let settings = merge(&assignments, &mut problems);
        for violation in validate::violations(&settings) {
            let mut origin = origin_of(&assignments, violation.key);
            let (mut key, mut reason) = (violation.key, violation.reason);
            if matches!(origin, Origin::Default)
                && let Some(other) = violation.depends_on
            {
                reason = format!("with it, `{key}` cannot be as it is: {reason}");
                origin = origin_of(&assignments, other);
                key = other;
            }
            problems.push(Problem::Invalid {
                origin,
                key: key.to_owned(),
                reason,
            });
        }
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(SettingsError::new(problems, &files))
        }
    }
}

/// The main file, if there is one, and its drop-ins in the order they apply.
fn config_files(config: Option<&Path>, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let main = config.unwrap_or(Path::new(DEFAULT_CONFIG));
    let mut files = Vec::new();
    if config.is_some() || main.try_exists().unwrap_or(true) {
        files.push(main.to_owned());
    }
    let mut folder = main.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    match drop_ins(&folder) {
        Ok(found) => files.extend(found),
        Err(source) => problems.push(Problem::Unreadable {
            path: folder,
            source,
        }),
    }
    files
}

fn drop_ins(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Applies assignments in order. Each value is first deserialised alone, so that a wrong type is
/// reported with its own source and does not hide the next one.
fn merge(assignments: &[Assignment], problems: &mut Vec<Problem>) -> Settings {
    let mut merged = toml::Table::new();
    for assignment in assignments {
        match alone(assignment).try_into::<Settings>() {
            Ok(_) => set(&mut merged, assignment),
            Err(error) => problems.push(Problem::Invalid {
                origin: assignment.origin.clone(),
                key: format!("{}.{}", assignment.section, assignment.name),
                reason: error.message().to_owned(),
            }),
        }
    }
    match merged.try_into() {
        Ok(settings) => settings,
        // Every value fits its field alone, so this is a fault in `Settings`; it is reported like
        // any other problem rather than by a panic at start.
        Err(error) => {
            problems.push(Problem::Invalid {
                origin: Origin::Default,
                key: "settings".to_owned(),
                reason: error.message().to_owned(),
            });
            Settings::default()
        }
    }
}

fn alone(assignment: &Assignment) -> toml::Table {
    let mut table = toml::Table::new();
    set(&mut table, assignment);
    table
}

fn set(table: &mut toml::Table, assignment: &Assignment) {
    let section = table
        .entry(assignment.section.clone())
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let toml::Value::Table(section) = section {
        section.insert(assignment.name.clone(), assignment.value.clone());
    }
}

fn origin_of(assignments: &[Assignment], key: &str) -> Origin {
    assignments
        .iter()
        .rev()
        .find(|a| {
            key.split_once('.')
                .is_some_and(|(section, name)| a.section == section && a.name == name)
        })
        .map_or(Origin::Default, |a| a.origin.clone())
}
