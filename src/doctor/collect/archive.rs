//! A tar archive in memory. Everything in it is of one time and of root, so that it tells of the board alone.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::large_files::Sparse;

/// 2026-01-01: programs that unpack doubt the beginning of time.
const TIME: u64 = 1_767_225_600;

pub(super) struct Archive(Builder<GzEncoder<Vec<u8>>>);

impl Archive {
    pub fn new() -> Self {
        let packed = GzEncoder::new(Vec::new(), Compression::default());
        Self(Builder::new(packed))
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = header(EntryType::Regular, mode, content.len());
        self.0.append_data(&mut header, relative(path), content)
    }

    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        let mut header = header(EntryType::Directory, 0o755, 0);
        self.0.append_data(&mut header, relative(path), io::empty())
    }

    /// A file that is zero but for a few places, which takes no more room than those.
    pub fn sparse(&mut self, path: &str, mode: u32, file: &Sparse) -> io::Result<()> {
        let mut content = Vec::new();
        let parts = file.parts();
        for (_, part) in &parts {
            content.extend_from_slice(part);
        }
        let mut header = header(EntryType::GNUSparse, mode, content.len());
        let Some(gnu) = header.as_gnu_mut() else {
            return Err(io::Error::other("no header of GNU's form"));
        };
        gnu.set_real_size(file.bytes());
        let parts = parts
            .iter()
            .map(|(offset, part)| (*offset, part.len() as u64));
        // A file that ends in zeros has its end as an empty part.
        let ends = parts.clone().map(|(offset, bytes)| offset + bytes).max();
        let end = (ends.unwrap_or(0) < file.bytes()).then_some((file.bytes(), 0));
        let mut fields = gnu.sparse.iter_mut();
        for (offset, bytes) in parts.chain(end) {
            let Some(field) = fields.next() else {
                return Err(io::Error::other("too many parts of a file"));
            };
            field.set_offset(offset);
            field.set_length(bytes);
        }
        self.0
            .append_data(&mut header, relative(path), content.as_slice())
    }

    pub fn finish(self) -> io::Result<Vec<u8>> {
        let mut packed = self.0.into_inner()?;
        packed.flush()?;
        packed.finish()
    }
}

fn header(kind: EntryType, mode: u32, bytes: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}
