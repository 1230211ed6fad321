//! Replaces a file so that a power cut leaves the old one or the new one, whole, and nothing else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode};

/// The users who may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// 0600.
    OwnerOnly,
    /// 0640 with this group.
    Group(Gid),
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::OwnerOnly => 0o600,
            Self::Group(_) => 0o640,
        }
    }
}

/// A folder in which only the holder of this writes, among the processes that lock it.
pub(crate) struct LockedFolder {
    folder: File,
    path: PathBuf,
}

/// Makes a folder for its owner alone in one that there is, if there is none, so that a power cut leaves it there.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let around = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(around).and_then(|folder| folder.sync_all());
    if synced.is_err() {
        // The next one to make it is to sync it.
        let _ = fs::remove_dir(path);
    }
    synced
}

impl LockedFolder {
    /// Waits for other writers. The lock is on the folder itself, so that no lock file is left.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let folder = File::open(path)?;
        rustix::fs::flock(&folder, FlockOperation::LockExclusive)?;
        Ok(Self {
            folder,
            path: path.to_owned(),
        })
    }

    /// Replaces `name`. It writes a temporary file, syncs it, renames it, and syncs the folder. A
    /// temporary file that a killed writer left is thrown away.
    pub fn replace(&self, name: &str, content: &[u8], readers: Readers) -> io::Result<()> {
        let (target, temporary) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let written = self
            .write(&temporary, content, readers)
            .and_then(|()| fs::rename(&temporary, &target))
            .and_then(|()| self.folder.sync_all());
        if written.is_err() {
            // The first error is returned.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes `name` for good.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.folder.sync_all()
    }

    fn write(&self, path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // `create_new` follows no link that another user put there.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        if let Readers::Group(group) = readers {
            rustix::fs::fchown(&file, None, Some(group))?;
        }
        // Set again because the umask has taken bits from the mode above.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(readers.mode()))?;
        file.write_all(content)?;
        file.sync_all()
    }
}
