//! Takes an installed model out of the models folder. It is gone from there by one rename, into a folder that no
//! scan looks into, and is deleted in it; what a killed removal has left there is a leftover for
//! [`leftovers`](super::leftovers). No link is followed beneath the models folder: what a link leads to stays.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::manifest;
use super::plan::COMPANIONS;
use super::staging::{FOLDER, hold, make, remove_unheld};
use crate::ipc::ModelLocation;
use crate::reader::{ADAPTERS, kind_of};

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
    #[error("no pull has brought {path}: remove the model by `rkllmd rm`, or that file first")]
    HoldsMore { path: String },
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

    /// Removes it, but only where a pull has brought all that its folder holds. Blocking.
    ///
    /// # Errors
    ///
    /// It holds something else, or as of [`remove`](Self::remove).
    pub fn remove_what_was_pulled(&self) -> Result<(), RemovalError> {
        if let What::Folder(name) = &self.what {
            let above: PathBuf = self.above.iter().collect();
            let folder = self.models.join(above).join(name);
            let entries = fs::read_dir(&folder).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => RemovalError::Gone {
                    path: folder.display().to_string(),
                },
                _ => io_error(&folder, &error),
            })?;
            for entry in entries {
                let found = entry.map_err(|error| io_error(&folder, &error))?.path();
                if !is_of_a_pull(&found) {
                    return Err(RemovalError::HoldsMore {
                        path: found.display().to_string(),
                    });
                }
            }
        }
        self.remove()
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
        let name = free_name(&aside).map_err(|error| folder_error(&pulls, error))?;
        let put_aside = match &self.what {
            What::Folder(own) => put_folder_aside((&parent, own), (&aside, &name), &path),
            What::Files(files) => put_files_aside((&parent, files), (&aside, &name), &path),
        };
        // Held until all is gone, so that it becomes no other start's leftover.
        let _lock = match put_aside {
            Ok(lock) => lock,
            Err(error) => {
                remove_unheld(&pulls);
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
        remove_unheld(&pulls);
        Ok(())
    }
}

/// A name that nothing has there: in a container one daemon after another has the same process id, and what one
/// has left is not to be in the way of the next.
fn free_name(aside: &OwnedFd) -> Result<PathBuf, Errno> {
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = PathBuf::from(format!("{ASIDE}{}-{number}", std::process::id()));
        match rustix::fs::statat(aside, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(name),
            Err(error) => return Err(error),
        }
    }
}

fn put_folder_aside(
    (parent, own): (&OwnedFd, &Path),
    (aside, name): (&OwnedFd, &Path),
    above: &Path,
) -> Result<File, RemovalError> {
    let path = above.join(own);
    let folder = open(parent, own, OFlags::NOFOLLOW).map_err(|error| folder_error(&path, error))?;
    let failed = |error| folder_error(&path, error);
    let mut holds_folders = false;
    for name in folders_in(&folder).map_err(failed)? {
        // Its adapters are its own, and have no folders.
        holds_folders |= match name.to_bytes() == ADAPTERS.as_bytes() {
            true => {
                let adapters =
                    open(&folder, Path::new(ADAPTERS), OFlags::NOFOLLOW).map_err(failed)?;
                !folders_in(&adapters).map_err(failed)?.is_empty()
            }
            false => true,
        };
    }
    if holds_folders {
        return Err(RemovalError::HoldsFolders {
            path: path.display().to_string(),
        });
    }
    let lock = File::from(folder);
    if !hold(&lock).map_err(|error| folder_error(&path, error))? {
        return Err(RemovalError::InUse {
            path: path.display().to_string(),
        });
    }
    rustix::fs::renameat(parent, own, aside, name).map_err(|error| {
        // The place that it was to be put into may be gone, too.
        match rustix::fs::statat(parent, own, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => io_error(&path, &error.into()),
            Err(_) => folder_error(&path, error),
        }
    })?;
    Ok(lock)
}

/// The names of the folders in a folder, links not followed.
fn folders_in(folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_dots = matches!(name.to_bytes(), b"." | b"..");
        let is_folder = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
                found.is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Directory)
            }
            kind => kind == FileType::Directory,
        };
        if is_folder && !is_dots {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn put_files_aside(
    (parent, files): (&OwnedFd, &[PathBuf]),
    (aside, name): (&OwnedFd, &Path),
    above: &Path,
) -> Result<File, RemovalError> {
    let failed = |error: Errno| io_error(above, &error.into());
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

/// Whether a file of a model's folder is called as what pulls bring: a model has no other file of its kind beside it.
fn is_of_a_pull(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == manifest::NAME || COMPANIONS.contains(&name))
        || kind_of(path).is_some()
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
mod tests;
