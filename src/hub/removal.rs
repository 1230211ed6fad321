//! Takes an installed model out of the models folder. It is gone from there by one rename, into a folder that no
//! scan looks into, and is deleted in it; what a killed removal has left there is a leftover for
//! [`leftovers`](super::leftovers). No link is followed beneath the models folder: what a link leads to stays.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::staging::{FOLDER, hold, make};
use crate::ipc::ModelLocation;

/// What a removal puts aside is called so, and a number. No pull's folder begins with a dot.
pub(super) const ASIDE: &str = ".removed-";
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// Tells the removals of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Why a model was not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalError {
    #[error("{path} is not there any more")]
    Gone { path: String },
    #[error("{path} is a link, or lies behind one: remove what it leads to, and it, by hand")]
    Linked { path: String },
    #[error("{path} holds folders, too, that belong to no model: remove it by hand")]
    HoldsFolders { path: String },
    #[error("{path} is being pulled or removed by another process")]
    InUse { path: String },
    #[error("{path}: {reason}")]
    Folder { path: String, reason: String },
}

/// What a model's removal takes away: its own folder, or its files among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    models: PathBuf,
    /// Folders between the models folder and what is removed.
    above: Vec<PathBuf>,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Folder(PathBuf),
    /// Those that are there go.
    Files(Vec<PathBuf>),
}

impl Removal {
    /// # Errors
    ///
    /// The model does not lie beneath the models folder.
    pub fn of(models: &Path, location: &ModelLocation) -> Result<Self, RemovalError> {
        let folder = location.folder.to_path();
        let elsewhere = || RemovalError::Linked {
            path: folder.display().to_string(),
        };
        let beneath = folder.strip_prefix(models).map_err(|_| elsewhere())?;
        let mut above = Vec::new();
        for part in beneath.components() {
            match part {
                Component::Normal(name) => above.push(PathBuf::from(name)),
                _ => return Err(elsewhere()),
            }
        }
        let what = match &location.file {
            Some(flat) => {
                let beside = [
                    format!("{}.toml", flat.name),
                    format!("{}.jinja", flat.name),
                ];
                let names = flat.files.iter().chain(&beside);
                What::Files(names.map(PathBuf::from).collect())
            }
            None => What::Folder(above.pop().ok_or_else(elsewhere)?),
        };
        Ok(Self {
            models: models.to_owned(),
            above,
            what,
        })
    }

    /// What goes, for people.
    pub fn paths(&self) -> Vec<PathBuf> {
        let above = self.models.join(self.above.iter().collect::<PathBuf>());
        match &self.what {
            What::Folder(name) => vec![above.join(name)],
            What::Files(names) => {
                let paths = names.iter().map(|name| above.join(name));
                paths
                    .filter(|path| path.symlink_metadata().is_ok())
                    .collect()
            }
        }
    }

    /// Removes it. Blocking.
    ///
    /// # Errors
    ///
    /// It is there then as it was; but where only the last step failed, what is left of it lies aside.
    pub fn remove(&self) -> Result<(), RemovalError> {
        let mut parent = open(CWD, &self.models, OFlags::empty())
            .map_err(|error| folder_error(&self.models, error))?;
        let mut path = self.models.clone();
        for name in &self.above {
            path.push(name);
            parent = open(&parent, name, OFlags::NOFOLLOW)
                .map_err(|error| folder_error(&path, error))?;
        }
        let pulls = self.models.join(FOLDER);
        make(&pulls).map_err(|error| io_error(&pulls, &error))?;
        let aside =
            open(CWD, &pulls, OFlags::NOFOLLOW).map_err(|error| folder_error(&pulls, error))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = PathBuf::from(format!("{ASIDE}{}-{number}", std::process::id()));
        let put_aside = match &self.what {
            What::Folder(own) => put_folder_aside((&parent, own), (&aside, &name), &path),
            What::Files(files) => put_files_aside((&parent, files), (&aside, &name), &path),
        };
        // Held until all is gone, so that it is nobody's leftover.
        let _lock = match put_aside {
            Ok(lock) => lock,
            Err(error) => {
                let _ = fs::remove_dir(&pulls);
                return Err(error);
            }
        };
        sync(parent.as_fd(), &path)?;
        let away = pulls.join(&name);
        // It follows no link that lies in there.
        fs::remove_dir_all(&away).map_err(|error| io_error(&away, &error))?;
        // Those that hold something else stay.
        if !self.above.is_empty() {
            let _ = fs::remove_dir(&path);
        }
        let _ = fs::remove_dir(&pulls);
        Ok(())
    }
}

fn put_folder_aside(
    (parent, own): (&OwnedFd, &Path),
    (aside, name): (&OwnedFd, &Path),
    above: &Path,
) -> Result<File, RemovalError> {
    let path = above.join(own);
    let folder = open(parent, own, OFlags::NOFOLLOW).map_err(|error| folder_error(&path, error))?;
    let entries = Dir::read_from(&folder).map_err(|error| folder_error(&path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| folder_error(&path, error))?;
        let is_dots = matches!(entry.file_name().to_bytes(), b"." | b"..");
        let is_folder = match entry.file_type() {
            FileType::Unknown => {
                let found =
                    rustix::fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                found.is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Directory)
            }
            kind => kind == FileType::Directory,
        };
        if is_folder && !is_dots {
            return Err(RemovalError::HoldsFolders {
                path: path.display().to_string(),
            });
        }
    }
    let lock = File::from(folder);
    if !hold(&lock).map_err(|error| folder_error(&path, error))? {
        return Err(RemovalError::InUse {
            path: path.display().to_string(),
        });
    }
    rustix::fs::renameat(parent, own, aside, name).map_err(|error| folder_error(&path, error))?;
    Ok(lock)
}

fn put_files_aside(
    (parent, files): (&OwnedFd, &[PathBuf]),
    (aside, name): (&OwnedFd, &Path),
    above: &Path,
) -> Result<File, RemovalError> {
    let failed = |error| folder_error(above, error);
    rustix::fs::mkdirat(aside, name, FOLDER_MODE).map_err(failed)?;
    let away = open(aside, name, OFlags::NOFOLLOW).map_err(failed)?;
    let lock = File::from(away.try_clone().map_err(|error| io_error(above, &error))?);
    hold(&lock).map_err(failed)?;
    let mut is_first = true;
    for file in files {
        let path = above.join(file);
        match rustix::fs::renameat(parent, file, &away, file) {
            Ok(()) => {}
            // Not every model has what may stand beside it.
            Err(Errno::NOENT) if !is_first => {}
            Err(error) => {
                if is_first {
                    let _ = rustix::fs::unlinkat(aside, name, AtFlags::REMOVEDIR);
                }
                return Err(folder_error(&path, error));
            }
        }
        // Without its first file it is no model.
        is_first = false;
    }
    Ok(lock)
}

fn open(at: impl AsFd, name: &Path, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn sync(folder: BorrowedFd<'_>, path: &Path) -> Result<(), RemovalError> {
    rustix::fs::fsync(folder).map_err(|error| folder_error(path, error))
}

fn folder_error(path: &Path, error: Errno) -> RemovalError {
    let shown = path.display().to_string();
    match error {
        Errno::NOENT => RemovalError::Gone { path: shown },
        // What no link may be in the place of is no folder.
        Errno::LOOP | Errno::NOTDIR => RemovalError::Linked { path: shown },
        error => io_error(path, &error.into()),
    }
}

fn io_error(path: &Path, error: &io::Error) -> RemovalError {
    RemovalError::Folder {
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::FlatFile;
    use std::os::unix::fs::symlink;

    fn own(folder: &Path) -> ModelLocation {
        ModelLocation {
            folder: folder.into(),
            file: None,
            template_file: None,
        }
    }

    fn flat(models: &Path, name: &str, file: &str) -> ModelLocation {
        ModelLocation {
            folder: models.into(),
            file: Some(FlatFile {
                name: name.to_owned(),
                files: vec![file.to_owned()],
            }),
            template_file: None,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_model_goes_with_its_folder_and_nothing_else() {
        let models = tempfile::tempdir().unwrap();
        let models = models.path();
        for folder in ["a/b", "a/c", "d"] {
            fs::create_dir_all(models.join(folder)).unwrap();
            fs::write(models.join(folder).join("m.gguf"), "m").unwrap();
        }
        let removal = Removal::of(models, &own(&models.join("a/b"))).unwrap();
        assert_eq!(removal.paths(), [models.join("a/b")]);
        assert_eq!(removal.remove(), Ok(()));
        assert_eq!(
            (names(models), names(&models.join("a"))),
            (vec!["a".to_owned(), "d".to_owned()], vec!["c".to_owned()])
        );
        let gone = RemovalError::Gone {
            path: models.join("a/b").display().to_string(),
        };
        assert_eq!(removal.remove(), Err(gone));
        for folder in ["a/c", "d"] {
            let removal = Removal::of(models, &own(&models.join(folder))).unwrap();
            assert_eq!(removal.remove(), Ok(()));
        }
        assert_eq!(names(models), Vec::<String>::new());
    }

    #[test]
    fn a_file_goes_with_what_stands_beside_it() {
        let models = tempfile::tempdir().unwrap();
        let models = models.path();
        for name in ["m.gguf", "m.toml", "n.gguf", "n.jinja"] {
            fs::write(models.join(name), name).unwrap();
        }
        let removal = Removal::of(models, &flat(models, "m", "m.gguf")).unwrap();
        assert_eq!(
            removal.paths(),
            [models.join("m.gguf"), models.join("m.toml")]
        );
        assert_eq!(removal.remove(), Ok(()));
        assert_eq!(names(models), ["n.gguf", "n.jinja"]);
        assert!(matches!(removal.remove(), Err(RemovalError::Gone { .. })));
        assert_eq!(
            names(models),
            ["n.gguf", "n.jinja"],
            "nothing is left aside"
        );
    }

    #[test]
    fn what_links_lead_to_stays() {
        let (models, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (models, other) = (models.path(), other.path());
        fs::create_dir(other.join("b")).unwrap();
        fs::write(other.join("b/m.gguf"), "m").unwrap();
        symlink(other, models.join("a")).unwrap();
        symlink(other.join("b"), models.join("d")).unwrap();
        symlink(other.join("b/m.gguf"), models.join("x.gguf")).unwrap();
        for folder in ["a/b", "d"] {
            let removal = Removal::of(models, &own(&models.join(folder))).unwrap();
            let refused = removal.remove();
            assert!(
                matches!(refused, Err(RemovalError::Linked { .. })),
                "{refused:?}"
            );
        }
        // The link goes, and not the file.
        let removal = Removal::of(models, &flat(models, "x", "x.gguf")).unwrap();
        assert_eq!(removal.remove(), Ok(()));
        assert!(models.join("x.gguf").symlink_metadata().is_err());
        fs::create_dir(models.join("own")).unwrap();
        symlink(other.join("b"), models.join("own/link")).unwrap();
        let removal = Removal::of(models, &own(&models.join("own"))).unwrap();
        assert_eq!(removal.remove(), Ok(()));
        assert!(!models.join("own").exists());
        assert_eq!(fs::read(other.join("b/m.gguf")).unwrap(), b"m");
    }

    #[test]
    fn what_is_elsewhere_or_holds_more_is_not_removed() {
        let models = tempfile::tempdir().unwrap();
        let models = models.path();
        for outside in ["/", "/etc", "relative"] {
            assert!(Removal::of(models, &own(Path::new(outside))).is_err());
        }
        let up = models.join("a/../../x");
        assert!(Removal::of(models, &own(&up)).is_err());
        assert!(Removal::of(models, &own(models)).is_err(), "not all of it");
        fs::create_dir_all(models.join("m/more")).unwrap();
        let removal = Removal::of(models, &own(&models.join("m"))).unwrap();
        let refused = removal.remove();
        assert!(
            matches!(refused, Err(RemovalError::HoldsFolders { .. })),
            "{refused:?}"
        );
        assert!(models.join("m/more").is_dir());
    }
}
