//! What can be wrong with a configuration. Every problem names the place to mend (file and line,
//! environment variable or flag), and all of them are reported at once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::assignment::Origin;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{origin}: {message}")]
    Syntax { origin: Origin, message: String },
    #[error("{origin}: unknown key `{key}`{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        origin: Origin,
        key: String,
        nearest: Option<String>,
    },
    #[error(
        "environment variable {variable}: sets nothing{}",
        did_you_mean(.nearest.as_deref())
    )]
    UnknownVariable {
        variable: String,
        nearest: Option<String>,
    },
    #[error("{origin}: `{key}`: {reason}")]
    Invalid {
        origin: Origin,
        key: String,
        reason: String,
    },
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug)]
pub struct SettingsError {
    problems: Vec<Problem>,
}

impl SettingsError {
    /// Takes the problems in any order and keeps them as a reader meets them: files in the order
    /// given and by line, then variables by name, then flags.
    pub(super) fn new(mut problems: Vec<Problem>, files: &[PathBuf]) -> Self {
        problems.sort_by_cached_key(|problem| match problem {
            Problem::Unreadable { path, .. } => (file_rank(files, path), 0, String::new()),
            Problem::UnknownVariable { variable, .. } => (files.len(), 0, variable.clone()),
            Problem::Syntax { origin, .. }
            | Problem::UnknownKey { origin, .. }
            | Problem::Invalid { origin, .. } => match origin {
                Origin::File { path, line } => (file_rank(files, path), *line, String::new()),
                Origin::Variable(name) => (files.len(), 0, name.clone()),
                Origin::Flag(name) => (files.len() + 1, 0, (*name).to_owned()),
                Origin::Default => (files.len() + 2, 0, String::new()),
            },
        });
        Self { problems }
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

/// A path that is none of the files is the drop-in folder, which belongs to the main file.
fn file_rank(files: &[PathBuf], path: &Path) -> usize {
    files.iter().position(|file| file == path).unwrap_or(0)
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}
