//! The key that an installation begins with. Its plaintext lies beside the file of keys, for root
//! alone, until it is acknowledged. The plaintext is on the disk before the key counts, so there is
//! never a first key that cannot be shown.

use std::io;
use std::path::PathBuf;

use super::{ApiKey, Keyring, KeysFile, KeysFileError, Role, Secret};
use crate::durable_write::Readers;
use crate::generation::Weight;
use crate::regular_file;

/// Enough for a key and the end of its line.
const LIMIT_BYTES: u64 = 1024;

/// The file with its plaintext.
const FILE: &str = "first-key";

/// The first key's name in the list of keys.
const NAME: &str = "first";

/// The first key of a file of keys.
#[derive(Clone, Debug)]
pub struct FirstKey {
    keys: KeysFile,
}

#[derive(Debug, thiserror::Error)]
pub enum FirstKeyError {
    #[error(transparent)]
    Keys(#[from] KeysFileError),
    #[error("{}: {source}", path.display())]
    Plaintext { path: PathBuf, source: io::Error },
    #[error(
        "there is no first key to show ({} does not exist): it was acknowledged, or there never was one",
        path.display()
    )]
    Absent { path: PathBuf },
    #[error(
        "the first key was revoked; `rkllmd keys first --acknowledge` removes its plaintext, {}",
        path.display()
    )]
    Revoked { path: PathBuf },
}

impl FirstKey {
    pub fn new(keys: KeysFile) -> Self {
        Self { keys }
    }

    /// `first-key` beside the file of keys.
    pub fn path(&self) -> PathBuf {
        self.keys.folder().join(FILE)
    }

    /// Makes an admin key named `first` unless there is a file of keys. `false`: there is one, and
    /// nothing was done.
    ///
    /// # Errors
    ///
    /// One of the two files cannot be written.
    pub fn generate(&self, created: String) -> Result<bool, FirstKeyError> {
        let folder = self.keys.lock()?;
        if self.keys.read()?.is_some() {
            return Ok(false);
        }
        let secret = Secret::generate().map_err(KeysFileError::NoRandomness)?;
        let line = format!("{}\n", secret.plaintext());
        folder
            .replace(FILE, line.as_bytes(), Readers::OwnerOnly)
            .map_err(|source| self.plaintext_error(source))?;
        let mut keyring = Keyring::default();
        let key = ApiKey {
            name: NAME.parse().map_err(|reason| {
                KeysFileError::Refused(super::KeyringError::BadKey {
                    name: NAME.to_owned(),
                    reason,
                })
            })?,
            digest: secret.digest(),
            role: Role::Admin,
            models: None,
            weight: Weight::default(),
            tenant: None,
            created,
        };
        keyring.add(key).map_err(KeysFileError::Refused)?;
        self.keys.write(&folder, &keyring)?;
        Ok(true)
    }

    /// Its plaintext.
    ///
    /// # Errors
    ///
    /// It was acknowledged or revoked, or only root may see it.
    pub fn read(&self) -> Result<String, FirstKeyError> {
        let text = regular_file::read_text(&self.path(), LIMIT_BYTES)
            .map_err(|error| self.plaintext_error(error))?;
        let plaintext = text.trim_end();
        let keyring = self.keys.read()?.unwrap_or_default();
        match keyring.find(plaintext.as_bytes()) {
            Some(_) => Ok(plaintext.to_owned()),
            None => Err(FirstKeyError::Revoked { path: self.path() }),
        }
    }

    /// Removes the plaintext; the key itself stays.
    ///
    /// # Errors
    ///
    /// It was acknowledged before, or only root may do that.
    pub fn acknowledge(&self) -> Result<(), FirstKeyError> {
        let folder = self.keys.lock()?;
        folder
            .remove(FILE)
            .map_err(|error| self.plaintext_error(error))
    }

    fn plaintext_error(&self, source: io::Error) -> FirstKeyError {
        let path = self.path();
        match source.kind() {
            io::ErrorKind::NotFound => FirstKeyError::Absent { path },
            _ => FirstKeyError::Plaintext { path, source },
        }
    }
}
