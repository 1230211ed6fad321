//! What stands in the models folder and is to be read.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::problem;
use crate::ipc::{EntryKind, FlatFile, ListedEntry, ModelLocation, RawPath};
use crate::models::ModelProblem;
use crate::reader::{ModelFile, kind_of};

/// A location to be read.
#[derive(Clone)]
pub(super) struct Job {
    /// The file or folder, for problems.
    pub path: PathBuf,
    /// The id it gives.
    pub name: String,
    pub location: ModelLocation,
    /// Folders between the models folder and this one.
    pub depth: usize,
}

impl Job {
    /// Under which the files lie that it is about.
    pub fn paths(&self) -> Vec<PathBuf> {
        match &self.location.file {
            Some(flat) => {
                let folder = self.location.folder.to_path();
                flat.files.iter().map(|name| folder.join(name)).collect()
            }
            None => vec![self.path.clone()],
        }
    }
}

/// What is to be read of these entries, and what stands there without belonging to a model.
pub(super) fn jobs(folder: &Path, entries: &[ListedEntry]) -> (Vec<Job>, Vec<ModelProblem>) {
    let mut jobs = Vec::new();
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for entry in entries.iter().filter(|e| e.kind != EntryKind::Folder) {
        let path = folder.join(entry.name.to_path());
        match entry.name.as_str() {
            Some(name) => drop(names.insert(name.to_owned())),
            None if kind_of(&path).is_some() => {
                problems.push(problem(&path, "its name is not UTF-8"));
            }
            None => {}
        }
    }
    for file in ModelFile::group(&names) {
        match file {
            Ok(file) => jobs.push(Job {
                path: folder.join(&file.files[0]),
                name: file.name.clone(),
                location: ModelLocation {
                    folder: folder.into(),
                    file: Some(FlatFile {
                        name: file.name,
                        files: file.files,
                    }),
                    template_file: None,
                },
                depth: 0,
            }),
            Err(bad) => problems.push(problem(&folder.join(bad.file), &bad.problem)),
        }
    }
    let is_orphan = |name: &&String| {
        let stem = Path::new(name).file_stem().and_then(OsStr::to_str);
        Path::new(name).extension() == Some(OsStr::new("toml"))
            && !jobs.iter().any(|job| Some(&*job.name) == stem)
    };
    for name in names.iter().filter(is_orphan) {
        let text = "no .gguf or .rkllm file of this name stands beside it";
        problems.push(problem(&folder.join(name), text));
    }
    for entry in entries {
        let path = folder.join(entry.name.to_path());
        let may_be_folder = match entry.kind {
            EntryKind::Folder => true,
            // It is more likely a link to a file.
            EntryKind::Link | EntryKind::Unknown => kind_of(&path).is_none(),
            EntryKind::File | EntryKind::Other => false,
        };
        if may_be_folder {
            jobs.push(Job::of_folder(path, String::new(), 1));
        }
    }
    (jobs, problems)
}

impl Job {
    /// `prefix` comes before the folder's own name.
    pub fn of_folder(path: PathBuf, prefix: String, depth: usize) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self {
            name: prefix + &name,
            location: ModelLocation {
                folder: RawPath::from(&path),
                file: None,
                template_file: None,
            },
            path,
            depth,
        }
    }
}
