//! Telling files apart: a number that differs, for all practical purposes, between two models or
//! two adapters, and is found without reading all of a large file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Places a file is looked at, and bytes read at each.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: usize = 4096;

/// FNV-1a: stable across builds, which the standard library's hasher is not.
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn new() -> Fingerprint {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// Of a file's length and evenly spaced samples of it.
pub(crate) fn of_file(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut fingerprint = Fingerprint::new();
    fingerprint.add(&length.to_le_bytes());
    let mut buffer = [0; SAMPLE_BYTES];
    let last = length.saturating_sub(SAMPLE_BYTES as u64);
    for sample in 0..=SAMPLES {
        let at = (u128::from(last) * u128::from(sample) / u128::from(SAMPLES)) as u64;
        let read = file.read_at(&mut buffer, at)?;
        fingerprint.add(&buffer[..read]);
    }
    Ok(fingerprint.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fnv_1a() {
        let mut fingerprint = Fingerprint::new();
        fingerprint.add(b"foobar");
        assert_eq!(fingerprint.value(), 0x8594_4171_f739_67e8);
    }
}
