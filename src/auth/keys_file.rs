//! The file of keys. Read by the daemon, changed by `rkllmd keys` and by nobody else.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Gid;

use super::durable_write::{LockedFolder, Readers};
use super::{Keyring, KeyringError};

/// A path and what is done with it; nothing is open in between.
#[derive(Clone, Debug)]
pub struct KeysFile {
    path: PathBuf,
}

/// Each says which file it is about.
#[derive(Debug, thiserror::Error)]
pub enum KeysFileError {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Wrong { path: PathBuf, source: KeyringError },
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Refused(KeyringError),
    #[error("making a key: {0}")]
    NoRandomness(io::Error),
}

impl KeysFile {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys; `None` when there is no such file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or something in it is wrong.
    pub fn read(&self) -> Result<Option<Keyring>, KeysFileError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(KeysFileError::Unreadable {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        match Keyring::from_toml(&text) {
            Ok(keyring) => Ok(Some(keyring)),
            Err(source) => Err(KeysFileError::Wrong {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Changes the keys, alone among all who do, and has them on the disk before it returns. A file
    /// that does not exist yet counts as one without keys.
    ///
    /// # Errors
    ///
    /// The file is wrong or cannot be written, or `change` refuses; then it stays as it was.
    pub fn change(
        &self,
        change: impl FnOnce(&mut Keyring) -> Result<(), KeyringError>,
    ) -> Result<(), KeysFileError> {
        let folder = self.lock()?;
        let mut keyring = self.read()?.unwrap_or_default();
        change(&mut keyring).map_err(KeysFileError::Refused)?;
        self.write(&folder, &keyring)
    }

    pub(super) fn lock(&self) -> Result<LockedFolder, KeysFileError> {
        LockedFolder::lock(self.folder()).map_err(|source| self.unwritable(source))
    }

    pub(super) fn write(
        &self,
        folder: &LockedFolder,
        keyring: &Keyring,
    ) -> Result<(), KeysFileError> {
        let text = keyring.to_toml().map_err(KeysFileError::Refused)?;
        let readers = self.readers().map_err(|source| self.unwritable(source))?;
        let name = self.name().map_err(|source| self.unwritable(source))?;
        folder
            .replace(name, text.as_bytes(), readers)
            .map_err(|source| self.unwritable(source))
    }

    pub(super) fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    pub(super) fn name(&self) -> io::Result<&str> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.ok_or_else(|| io::Error::other("its name is no UTF-8 text"))
    }

    /// The daemon must read what root writes, so root lets the file's group in, at first that of the
    /// folder, which is the daemon's. Anybody else writes for a daemon of their own.
    fn readers(&self) -> io::Result<Readers> {
        let file = fs::symlink_metadata(&self.path);
        let group = file.or_else(|_| fs::metadata(self.folder()))?.gid();
        if rustix::process::geteuid().is_root() && group != 0 {
            Ok(Readers::Group(Gid::from_raw(group)))
        } else {
            Ok(Readers::OwnerOnly)
        }
    }

    fn unwritable(&self, source: io::Error) -> KeysFileError {
        KeysFileError::Unwritable {
            path: self.path.clone(),
            source,
        }
    }
}
