//! What a file must be: its checksum as a hub tells it, and the hashing that finds out whether it is.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use sha2::{Digest as _, Sha256};

/// The checksum of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hash {
    Sha256([u8; 32]),
    /// Git's own of a blob, which small files have.
    GitBlob([u8; 20]),
}

impl Hash {
    /// Of 64 or 40 hexadecimal digits, as they stand in a listing or, in quotes, in a header.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        match digits.len() {
            64 => bytes(digits).map(Self::Sha256),
            40 => bytes(digits).map(Self::GitBlob),
            _ => None,
        }
    }

    /// Of a large file, which has no other.
    pub fn parse_sha256(text: &str) -> Option<Self> {
        Self::parse(text).filter(|hash| matches!(hash, Self::Sha256(_)))
    }

    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(bytes) => hex(bytes),
            Self::GitBlob(bytes) => hex(bytes),
        }
    }
}

/// As clients of Ollama know digests.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Sha256(_) => "sha256",
            Self::GitBlob(_) => "git",
        };
        write!(f, "{kind}:{}", self.hex())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Hashes a file as it comes. The SHA-256 is always known in the end.
#[derive(Clone)]
pub(super) struct Hashing {
    sha256: Sha256,
    git: Option<Sha1>,
}

impl Hashing {
    /// For a file of so many bytes that is to have this checksum.
    pub fn new(wanted: &Hash, size: u64) -> Self {
        let git = match wanted {
            Hash::Sha256(_) => None,
            Hash::GitBlob(_) => {
                let mut git = Sha1::new();
                git.update(format!("blob {size}\0").as_bytes());
                Some(git)
            }
        };
        Self {
            sha256: Sha256::new(),
            git,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// The SHA-256 where it is the wanted file, else what it has instead.
    pub fn finish(self, wanted: &Hash) -> Result<String, String> {
        let sha256 = hex(&self.sha256.finalize());
        let found = match (wanted, self.git) {
            (Hash::Sha256(_), _) => sha256.clone(),
            (Hash::GitBlob(_), Some(git)) => hex(&git.finalize()),
            (Hash::GitBlob(_), None) => String::new(),
        };
        match found == wanted.hex() {
            true => Ok(sha256),
            false => Err(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `git hash-object` and `sha256sum` say it.
    const HELLO_GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const HELLO_SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn content_is_known_by_either_checksum() {
        for digits in [HELLO_GIT, HELLO_SHA256] {
            let wanted = Hash::parse(&format!("\"{digits}\"")).expect("a checksum");
            assert_eq!(wanted.hex(), digits);
            let mut hashing = Hashing::new(&wanted, 6);
            hashing.update(b"hel");
            hashing.update(b"lo\n");
            assert_eq!(hashing.clone().finish(&wanted), Ok(HELLO_SHA256.to_owned()));
            hashing.update(b"!");
            assert!(hashing.finish(&wanted).is_err());
        }
    }

    #[test]
    fn what_is_no_checksum_is_none() {
        for text in [
            "",
            "\"\"",
            "abc",
            &"g".repeat(40),
            &"0".repeat(63),
            &"é".repeat(20),
        ] {
            assert_eq!(Hash::parse(text), None, "{text}");
        }
        assert_eq!(Hash::parse_sha256(HELLO_GIT), None);
        assert!(Hash::parse_sha256(&HELLO_SHA256.to_uppercase()).is_some());
    }
}
