//! One daemon a state folder: the daemon that holds the lock writes there, and a second one does not
//! start. The kernel gives the lock back when its holder ends, however it ends; children never have
//! it, so that one that cannot be killed does not keep the next daemon out. Commands such as
//! `rkllmd keys` take no part in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, OFlags, Uid};

use crate::settings::Settings;

/// In the state folder.
const FILE: &str = "lock";

/// The folder is locked until this is dropped.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

/// Why this daemon may not use its state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateFolderError {
    #[error(
        "another rkllmd{} uses the state folder {}; stop that one, or give this one a folder of its \
         own with `library.state-dir`",
        holder.map_or_else(String::new, |pid| format!(" (process {pid})")),
        folder.display()
    )]
    InUse {
        folder: PathBuf,
        holder: Option<u32>,
    },
    #[error("locking the state folder with {}: {source}", path.display())]
    Unusable { path: PathBuf, source: io::Error },
}

impl StateLock {
    /// Locks the folder, which is made if need be. `None`: it is not there, or this user may not
    /// write there; then nothing is kept in it either.
    pub fn take(settings: &Settings) -> Result<Option<Self>, StateFolderError> {
        let folder = &settings.library.state_dir;
        // The usual one is made where the package has made the folder around it.
        let is_usual = *folder == Settings::default().library.state_dir;
        Self::take_in(folder, !is_usual)
    }

    fn take_in(folder: &Path, with_parents: bool) -> Result<Option<Self>, StateFolderError> {
        let path = folder.join(FILE);
        let file = make(folder, with_parents).and_then(|()| open(&path));
        let mut file = match file {
            Ok(file) => file,
            Err(error) if is_out_of_reach(&error) => {
                let folder = folder.display();
                tracing::info!(%folder, %error, "the state folder cannot be written, and is not used");
                return Ok(None);
            }
            Err(source) => return Err(StateFolderError::Unusable { path, source }),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateFolderError::InUse {
                    folder: folder.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(error) => {
                return Err(StateFolderError::Unusable {
                    path,
                    source: error.into(),
                });
            }
        }
        // For people, and for the message of a second daemon; the lock is what counts.
        if let Err(error) = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
        {
            tracing::debug!(%error, "the lock of the state folder does not tell its holder");
        }
        Ok(Some(Self { _file: file }))
    }
}

fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn make(folder: &Path, with_parents: bool) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if with_parents {
        fs::create_dir_all(folder)?;
    } else {
        fs::create_dir(folder)?;
    }
    belongs_like(folder, folder.parent())
}

fn open(path: &Path) -> io::Result<File> {
    let is_new = fs::symlink_metadata(path).is_err();
    // A pipe in its place is opened at once, and refused.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    if is_new {
        belongs_like(path, path.parent())?;
    }
    Ok(file)
}

/// What root makes by hand belongs to the owner of the folder, as which the daemon runs next time.
fn belongs_like(path: &Path, parent: Option<&Path>) -> io::Result<()> {
    let Some(parent) = parent.filter(|_| rustix::process::geteuid().is_root()) else {
        return Ok(());
    };
    let owner = fs::metadata(parent)?;
    if owner.uid() == 0 {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    let no_link = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(rustix::fs::CWD, path, Some(user), Some(group), no_link)?;
    Ok(())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again_at_the_end() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("a/state");
        let held = StateLock::take_in(&folder, true).unwrap().unwrap();
        let error = StateLock::take_in(&folder, true).unwrap_err();
        let own = std::process::id();
        assert!(
            matches!(error, StateFolderError::InUse { holder: Some(pid), .. } if pid == own),
            "{error}"
        );
        drop(held);
        assert!(StateLock::take_in(&folder, true).unwrap().is_some());
    }

    #[test]
    fn the_usual_folder_is_not_made_on_a_machine_without_the_package() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("rkllmd/state");
        assert!(StateLock::take_in(&folder, false).unwrap().is_none());
        assert!(!around.path().join("rkllmd").exists());
        fs::create_dir(around.path().join("rkllmd")).unwrap();
        assert!(StateLock::take_in(&folder, false).unwrap().is_some());
    }

    #[test]
    fn what_is_no_file_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::create_dir(&path).unwrap();
        let error = StateLock::take_in(folder.path(), true).unwrap_err();
        assert!(error.to_string().contains("lock"), "{error}");
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(StateLock::take_in(folder.path(), true).is_err());
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        assert!(StateLock::take_in(folder.path(), true).is_err());
    }
}
