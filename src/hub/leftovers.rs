//! What pulls and removals have left in a models folder: pulls that were not gone on with, removals that were
//! killed, and what came beside a model whose own file is gone. What another process is at is left alone. Names
//! decide, and the first words of a manifest; none is parsed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::plan::COMPANIONS;
use super::removal::ASIDE;
use super::staging::{FOLDER, held_bytes, remove_unheld};
use super::{PullError, manifest};
use crate::reader::kind_of;

/// Folders inside each other that are measured.
const DEEPEST: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftoverKind {
    /// A pull that did not come to its end.
    Pull,
    /// A removal that did not.
    Removal,
    /// What came beside a model whose file is not there any more.
    Beside,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    pub path: PathBuf,
    pub kind: LeftoverKind,
    pub bytes: u64,
    /// Another process is at it, so that it stays.
    pub in_use: bool,
}

/// What there is, and removes it where that is wished.
///
/// # Errors
///
/// The folder cannot be listed, or something in it cannot be removed.
pub fn leftovers(models: &Path, removes: bool) -> Result<Vec<Leftover>, PullError> {
    let mut found = Vec::new();
    let pulls = models.join(FOLDER);
    for path in folders_in(&pulls)? {
        if is_aside(&path) {
            found.push(handle(path, LeftoverKind::Removal, removes)?);
            continue;
        }
        for path in folders_in(&path)? {
            found.push(handle(path, LeftoverKind::Pull, removes)?);
        }
        remove_empty(&path, removes);
    }
    if removes {
        remove_unheld(&pulls);
    }
    for publisher in folders_in(models)?.into_iter().filter(|it| *it != pulls) {
        if is_without_model(&publisher)? {
            found.push(handle(publisher, LeftoverKind::Beside, removes)?);
            continue;
        }
        let mut had_any = false;
        for path in folders_in(&publisher)? {
            if is_without_model(&path)? {
                had_any = true;
                found.push(handle(path, LeftoverKind::Beside, removes)?);
            }
        }
        remove_empty(&publisher, removes && had_any);
    }
    Ok(found)
}

fn is_aside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(ASIDE))
}

/// Folders in a folder, no links; none where it is not there, or a link itself.
fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, PullError> {
    let listed = || -> io::Result<Vec<PathBuf>> {
        if !fs::symlink_metadata(folder)?.is_dir() {
            return Ok(Vec::new());
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    match listed() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        // Another's, such as `lost+found`.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Vec::new()),
        listed => listed.map_err(|error| PullError::folder(folder, error)),
    }
}

/// Whether all that a folder holds is what a pull puts beside a model, with a manifest that a pull has written.
fn is_without_model(folder: &Path) -> Result<bool, PullError> {
    let looked = || -> io::Result<bool> {
        let mut has_manifest = false;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return Ok(false);
            };
            let is_known = name == manifest::NAME || COMPANIONS.contains(&name);
            if !is_known || kind_of(Path::new(name)).is_some() || !entry.file_type()?.is_file() {
                return Ok(false);
            }
            has_manifest |= name == manifest::NAME;
        }
        Ok(has_manifest && manifest::is_of_a_pull(folder))
    };
    match looked() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        looked => looked.map_err(|error| PullError::folder(folder, error)),
    }
}

fn handle(path: PathBuf, kind: LeftoverKind, removes: bool) -> Result<Leftover, PullError> {
    let failed = |error: io::Error| PullError::folder(&path, error);
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&path);
    let lock: File = opened.map_err(failed)?;
    let in_use = match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => false,
        Err(Errno::WOULDBLOCK) => true,
        Err(error) => return Err(failed(error.into())),
    };
    let bytes = held_bytes(&path, DEEPEST).map_err(failed)?;
    if removes && !in_use {
        // It follows no link that lies in there.
        fs::remove_dir_all(&path).map_err(failed)?;
    }
    Ok(Leftover {
        path,
        kind,
        bytes,
        in_use,
    })
}

/// One that holds anything stays.
fn remove_empty(folder: &Path, removes: bool) {
    if removes {
        let _ = fs::remove_dir(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::super::removal::Removal;
    use super::super::staging::{HeldPulls, Staging};
    use super::*;
    use crate::ipc::ModelLocation;

    fn write(models: &Path, files: &[&str]) {
        for file in files {
            let path = models.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let is_own = file.ends_with("hand/model.toml");
            let content = match file.ends_with("model.toml") && !is_own {
                true => manifest::BEGINNING,
                false => "12345",
            };
            fs::write(path, content).unwrap();
        }
    }

    fn seen(models: &Path, found: &[Leftover]) -> Vec<(String, LeftoverKind, u64)> {
        let seen = found.iter().map(|it| {
            let path = it.path.strip_prefix(models).unwrap();
            (path.display().to_string(), it.kind, it.bytes)
        });
        seen.collect()
    }

    #[test]
    fn what_was_left_goes_and_models_stay() {
        let models = tempfile::tempdir().unwrap();
        let models = models.path();
        let (kept, left) = (
            [
                "hand/model.toml",
                "a/b/m.gguf",
                "a/b/model.toml",
                "c/model.toml",
                "c/notes",
                "m.toml",
                "d/x/y",
            ],
            [
                ".pulls/a/c/sha256-1",
                ".pulls/.removed-1-0/m.gguf",
                "a/gone/model.toml",
                "a/gone/tokenizer.json",
                "own/model.toml",
                "p/q/model.toml",
            ],
        );
        write(models, &kept);
        write(models, &left);
        let manifest = manifest::BEGINNING.len() as u64;
        let expected = [
            (".pulls/.removed-1-0".to_owned(), LeftoverKind::Removal, 5),
            (".pulls/a/c".to_owned(), LeftoverKind::Pull, 5),
            ("a/gone".to_owned(), LeftoverKind::Beside, manifest + 5),
            ("own".to_owned(), LeftoverKind::Beside, manifest),
            ("p/q".to_owned(), LeftoverKind::Beside, manifest),
        ];
        let told = leftovers(models, false).unwrap();
        assert_eq!(seen(models, &told), expected);
        assert!(left.iter().all(|file| models.join(file).exists()));
        let removed = leftovers(models, true).unwrap();
        assert_eq!(seen(models, &removed), expected);
        assert!(kept.iter().all(|file| models.join(file).exists()));
        for gone in [".pulls", "a/gone", "own", "p"] {
            assert!(!models.join(gone).exists(), "{gone}");
        }
        assert_eq!(leftovers(models, true), Ok(Vec::new()));
    }

    #[test]
    fn what_is_being_pulled_stays() {
        let models = tempfile::tempdir().unwrap();
        let staging = Staging::begin(models.path(), "a", "b").unwrap();
        staging.write("part", b"123").unwrap();
        let found = leftovers(models.path(), true).unwrap();
        assert!(found.len() == 1 && found[0].in_use, "{found:?}");
        assert!(staging.folder().join("part").exists());
        drop(staging);
        let found = leftovers(models.path(), true).unwrap();
        assert!(found.len() == 1 && !found[0].in_use, "{found:?}");
        assert!(!models.path().join(FOLDER).exists());
    }

    #[test]
    fn the_folder_that_a_transfer_is_confined_to_stays() {
        let models = tempfile::tempdir().unwrap();
        let models = models.path();
        let pulls = models.join(FOLDER);
        write(models, &["m/m.gguf"]);
        let held = HeldPulls::hold(models).unwrap();
        assert_eq!(leftovers(models, true), Ok(Vec::new()));
        assert!(pulls.exists());
        let location = ModelLocation {
            folder: models.join("m").as_path().into(),
            file: None,
            template_file: None,
        };
        Removal::of(models, &location).unwrap().remove().unwrap();
        assert!(pulls.exists() && !models.join("m").exists());
        drop(held);
        assert_eq!(leftovers(models, true), Ok(Vec::new()));
        assert!(!pulls.exists());
    }

    #[test]
    fn links_are_not_followed() {
        let (models, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(other.path(), &["c/part", "model.toml"]);
        std::os::unix::fs::symlink(other.path(), models.path().join(FOLDER)).unwrap();
        std::os::unix::fs::symlink(other.path(), models.path().join("x")).unwrap();
        assert_eq!(leftovers(models.path(), true), Ok(Vec::new()));
        assert!(other.path().join("c/part").exists());
    }
}
