//! The file of keys. The daemon reads it, and only `rkllmd keys` changes it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Gid;

use super::{Keyring, KeyringError};
use crate::durable_write::{LockedFolder, Readers};
use crate::regular_file;

/// A larger file is no file of keys. This has room for some ten thousand.
const LIMIT_BYTES: u64 = 4 << 20;

/// The path of a file of keys. The file is open only while it is read or written.
#[derive(Clone, Debug)]
pub struct KeysFile {
    path: PathBuf,
}

/// Each variant names its file.
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
        let text = self.read_text()?;
        text.map(|text| self.parse(&text)).transpose()
    }

    /// What is in the file; `None` when there is none.
    pub(super) fn read_text(&self) -> Result<Option<String>, KeysFileError> {
        match regular_file::read_text(&self.path, LIMIT_BYTES) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.unreadable(source)),
        }
    }

    pub(super) fn parse(&self, text: &str) -> Result<Keyring, KeysFileError> {
        Keyring::from_toml(text).map_err(|source| KeysFileError::Wrong {
            path: self.path.clone(),
            source,
        })
    }

    pub(super) fn unreadable(&self, source: io::Error) -> KeysFileError {
        KeysFileError::Unreadable {
            path: self.path.clone(),
            source,
        }
    }

    /// Changes the keys while no other process does, and has them on the disk before it returns. A file
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
        if text.len() as u64 > LIMIT_BYTES {
            let limit = format!("with this key it would have more than {LIMIT_BYTES} bytes");
            return Err(self.unwritable(io::Error::other(limit)));
        }
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

    /// The daemon must read what root writes. So root lets the file's group in, at first the folder's,
    /// which is the daemon's. Another user writes for a daemon of that user.
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
