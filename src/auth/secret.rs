//! The plaintext of a key, and what is kept of it.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Tells people, and programs that search for leaked secrets, that this is a key.
const PREFIX: &str = "rkllmd-";

/// Random bytes of a key: 256 bits, so that hashing it once is enough.
const SECRET_BYTES: usize = 32;

/// The plaintext that a client shows. It is not `Debug`, so no log holds one.
pub struct Secret(String);

impl Secret {
    /// A new key: `rkllmd-` and 64 hexadecimal digits from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// The operating system's, when it has no randomness to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", hexadecimal(&bytes))))
    }

    pub fn plaintext(&self) -> &str {
        &self.0
    }

    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(self.0.as_bytes())
    }
}

/// SHA-256 of a key's plaintext.
#[derive(Clone)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of a text that a client showed.
    pub fn of(plaintext: &[u8]) -> Self {
        Self(Sha256::digest(plaintext).into())
    }

    pub(super) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hexadecimal(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok()?;
        }
        Some(Self(digest))
    }
}

impl ConstantTimeEq for KeyDigest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_256_bits_of_randomness() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let digits = one.plaintext().strip_prefix(PREFIX).unwrap();
        assert_eq!(digits.len() * 4, 256);
        assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one.plaintext(), other.plaintext());
    }

    #[test]
    fn the_digest_is_sha_256() {
        // The test vector of FIPS 180-2 for "abc".
        assert_eq!(
            KeyDigest::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = KeyDigest::of(b"x");
        let read = KeyDigest::from_hexadecimal(&digest.to_string()).unwrap();
        assert!(bool::from(read.ct_eq(&digest)));
        for wrong in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert!(KeyDigest::from_hexadecimal(wrong).is_none(), "{wrong}");
        }
    }
}
