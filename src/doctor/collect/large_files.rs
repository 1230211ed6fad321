//! What is kept of the library and of models: enough for the checks to find what they found on the board. All
//! else of them is zero, because it is the vendor's or the user's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Parts of sparse files in an archive begin and end there.
const BLOCK: u64 = 512;
/// A library is smaller.
const MOST_BYTES: u64 = 256 << 20;

const ELF_HEADER_BYTES: usize = 64;
const VERSION: &str = "RKLLM SDK (version: ";
const TOOLKIT: &str = "rkllm-toolkit version: ";

/// A file that is zero but for a few places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    bytes: u64,
    /// By their number; each is whole, but for the file's last.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Sparse {
    fn new(bytes: u64) -> Self {
        let blocks = BTreeMap::new();
        Self { bytes, blocks }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is past the end is left out.
    fn keep(&mut self, offset: u64, kept: &[u8]) {
        let length = self.bytes;
        for (at, byte) in (offset..length).zip(kept) {
            let number = at / BLOCK;
            let block = self.blocks.entry(number).or_insert_with(|| {
                let end = ((number + 1) * BLOCK).min(length);
                vec![0; (end - number * BLOCK) as usize]
            });
            block[(at % BLOCK) as usize] = *byte;
        }
    }

    /// Places that are not zero, each with its offset, none beside another.
    pub fn parts(&self) -> Vec<(u64, Vec<u8>)> {
        let mut parts: Vec<(u64, Vec<u8>)> = Vec::new();
        for (number, block) in &self.blocks {
            let offset = number * BLOCK;
            match parts.last_mut() {
                Some((begin, part)) if *begin + part.len() as u64 == offset => {
                    part.extend_from_slice(block);
                }
                _ => parts.push((offset, block.clone())),
            }
        }
        parts
    }
}

/// The headers of a library and the `version` that it tells, at their places in a file of its length. What is no
/// file is not asked for its version.
pub(super) fn library(path: &Path, version: impl FnOnce() -> Option<String>) -> io::Result<Sparse> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() > MOST_BYTES {
        return Err(io::Error::other("it is too long for a library"));
    }
    let version = version();
    Ok(library_of(&fs::read(path)?, version.as_deref()))
}

fn library_of(content: &[u8], version: Option<&str>) -> Sparse {
    let mut sparse = Sparse::new(content.len() as u64);
    if !content.starts_with(b"\x7fELF") {
        // Of what is no library it is told only whether it is text.
        let begin = &content[..content.len().min(ELF_HEADER_BYTES)];
        let kept = if begin.is_ascii() { b'x' } else { 0xff };
        sparse.keep(0, &[kept; ELF_HEADER_BYTES]);
        return sparse;
    }
    let header = &content[..content.len().min(ELF_HEADER_BYTES)];
    sparse.keep(0, header);
    if header.len() == ELF_HEADER_BYTES {
        let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let offset = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        for (table, shape) in [(32, 54), (40, 58)] {
            let bytes = usize::from(number(shape)) * usize::from(number(shape + 2));
            let begin = offset(table);
            let from = usize::try_from(begin).ok();
            let Some(rest) = from.and_then(|from| content.get(from..)) else {
                continue;
            };
            sparse.keep(begin, &rest[..bytes.min(rest.len())]);
        }
    }
    if let Some(version) = version {
        let text = format!("{VERSION}{version}");
        let mut windows = content.windows(text.len());
        if let Some(at) = windows.position(|window| window == text.as_bytes()) {
            // What comes next ends the version.
            sparse.keep(at as u64, format!("{text} ").as_bytes());
        }
    }
    sparse
}

/// A model of that size, whose end tells the `toolkit` that made it.
pub(super) fn model(bytes: u64, toolkit: Option<&str>) -> Sparse {
    let mut sparse = Sparse::new(bytes);
    if let Some(toolkit) = toolkit {
        let text = format!("{TOOLKIT}{toolkit}\0");
        sparse.keep(bytes.saturating_sub(text.len() as u64), text.as_bytes());
    }
    sparse
}
