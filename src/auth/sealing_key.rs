//! The key by which the daemon knows again what it gave a client to keep. It tells what is the daemon's own from
//! what is not; it hides nothing.
//!
//! The key lies in the state folder, for the daemon alone, and is made when a daemon first finds none. Without that
//! folder there is one for as long as the process lives.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::KeyDigest;
use crate::durable_write::{LockedFolder, Readers};
use crate::regular_file;

/// In the state folder.
const FILE: &str = "sealing-key";
/// Enough for a key and the end of its line.
const LIMIT_BYTES: u64 = 256;
const KEY_BYTES: usize = 32;
/// Of SHA-256.
const BLOCK_BYTES: usize = 64;

/// What a seal has, behind what it is of.
pub const SEAL_BYTES: usize = 32;

/// It is not `Debug`, so no log holds one.
#[derive(Clone)]
pub struct SealingKey([u8; KEY_BYTES]);

#[derive(Debug, thiserror::Error)]
#[error("the sealing key {}: {source}", path.display())]
pub struct SealingKeyError {
    path: PathBuf,
    source: io::Error,
}

impl SealingKey {
    /// One for as long as this process lives.
    ///
    /// # Panics
    ///
    /// The operating system has no randomness, without which the standard library's maps end a process as well.
    pub fn of_this_process() -> Self {
        Self::random().expect("the operating system has randomness")
    }

    /// The folder's, if there is one that it can be kept in. What is wrong with it does not keep a daemon from
    /// serving: seals hold until it ends.
    pub fn kept_in(folder: Option<&Path>) -> Self {
        let kept = folder.map(Self::of_folder).transpose();
        kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "what is sealed is known until the daemon ends");
            None
        })
        .unwrap_or_else(Self::of_this_process)
    }

    /// The folder's, which is made if there is none.
    ///
    /// # Errors
    ///
    /// It can be neither read nor made.
    pub fn of_folder(folder: &Path) -> Result<Self, SealingKeyError> {
        let path = folder.join(FILE);
        let read = match regular_file::read_text(&path, LIMIT_BYTES) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(folder),
            Err(error) => Err(error),
        };
        read.map_err(|source| SealingKeyError { path, source })
    }

    fn random() -> io::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    fn make(folder: &Path) -> io::Result<Self> {
        let key = Self::random()?;
        let digits: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{digits}\n");
        LockedFolder::lock(folder)?.replace(FILE, line.as_bytes(), Readers::OwnerOnly)?;
        Ok(key)
    }

    fn parse(text: &str) -> io::Result<Self> {
        let key = KeyDigest::from_hexadecimal(text.trim_end());
        key.map(|key| Self(key.bytes())).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not hold 64 hexadecimal digits",
            )
        })
    }

    /// The seal of a text: HMAC-SHA-256, as RFC 2104 has it.
    pub fn seal(&self, text: &[u8]) -> [u8; SEAL_BYTES] {
        of_key(&self.0, text)
    }

    /// Whether a seal is that of a text, in a time that says nothing of where it differs.
    pub fn is_seal_of(&self, seal: &[u8], text: &[u8]) -> bool {
        self.seal(text)[..].ct_eq(seal).into()
    }
}

fn of_key(key: &[u8], text: &[u8]) -> [u8; SEAL_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    // Keys here are shorter than a block.
    for (place, byte) in block.iter_mut().zip(key) {
        *place = *byte;
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new_with_prefix(padded(0x36))
        .chain_update(text)
        .finalize();
    Sha256::new_with_prefix(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_seal_is_hmac_sha_256() {
        // The test cases 1, 2 and 3 of RFC 4231.
        for (key, text, expected) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
        ] {
            assert_eq!(hexadecimal(&of_key(key, text)), expected);
        }
    }

    #[test]
    fn a_folder_has_one_key_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |folder: &Path| SealingKey::of_folder(folder).map_err(|error| error.to_string());
        let (one, again) = (key(folder.path()).expect("made"), key(folder.path()));
        let seal = one.seal(b"text");
        let again = again.expect("read");
        assert!(again.is_seal_of(&seal, b"text"));
        assert!(!again.is_seal_of(&seal, b"other") && !again.is_seal_of(&seal[1..], b"text"));
        assert!(!SealingKey::of_this_process().is_seal_of(&seal, b"text"));
        let path = folder.path().join(FILE);
        let mode = std::fs::metadata(&path).expect("a file").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        std::fs::write(&path, "no key").expect("written");
        assert!(key(folder.path()).is_err(), "nothing is made over it");
        assert!(key(&folder.path().join("nowhere")).is_err());
    }
}
