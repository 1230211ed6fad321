//! What a library file says about itself before anything of it runs. Only its bytes are read, a
//! chunk at a time: the file may be anything, of any size, so no length in it is believed before
//! it has been compared with the file's own.

use crate::error::OpenError;
use memchr::memmem;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const ELF_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;
const PT_LOAD: u32 = 1;
const SHT_NOBITS: u32 = 8;
const ET_DYN: u16 = 3;

/// What a library's code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    /// Of this program.
    #[cfg(target_arch = "x86_64")]
    pub const OWN: Self = Self::X86_64;
    /// Of this program.
    #[cfg(target_arch = "aarch64")]
    pub const OWN: Self = Self::Aarch64;

    /// As in Debian's names of folders: `aarch64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    fn elf_machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }
}

const VERSION_PREFIX: &[u8] = b"RKLLM SDK (version: ";
/// Longest version text that is looked at, for instance `1.2.1b1`.
const VERSION_MAX_BYTES: usize = 32;
const CHUNK_BYTES: usize = 256 * 1024;

/// Checks that `path` is a whole shared library for `architecture` and returns the version text in
/// it, for instance `1.2.1b1`. Nothing of the file is run.
///
/// # Errors
///
/// The file cannot be read, is no such library, is cut off, or tells no version.
pub fn library_version(path: &Path, architecture: Architecture) -> Result<String, OpenError> {
    let read_error = |source| OpenError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read_error)?;
    let metadata = file.metadata().map_err(read_error)?;
    if !metadata.is_file() {
        return Err(OpenError::NotALibrary {
            path: path.to_owned(),
            found: "it is not a regular file".to_owned(),
        });
    }
    let mut elf = ElfFile {
        path,
        architecture,
        length: metadata.len(),
        file: &mut file,
    };
    let loaded = elf.check()?;
    for (offset, length) in loaded {
        if let Some(version) = find_version(elf.file, offset, length).map_err(read_error)? {
            return Ok(version);
        }
    }
    Err(OpenError::NoVersion {
        path: path.to_owned(),
    })
}

struct ElfFile<'a> {
    path: &'a Path,
    architecture: Architecture,
    length: u64,
    file: &'a mut File,
}

impl ElfFile<'_> {
    /// Checks the headers and returns the (offset, length) of every loaded part of the file: what
    /// the version is searched in, so that debug information costs no time and cannot match.
    fn check(&mut self) -> Result<Vec<(u64, u64)>, OpenError> {
        let header = self.header()?;
        let machine = u16_at(&header, 18);
        if machine != self.architecture.elf_machine() {
            return Err(OpenError::WrongArchitecture {
                path: self.path.to_owned(),
                found: machine_name(machine),
                expected: self.architecture.name(),
            });
        }
        if u16_at(&header, 16) != ET_DYN {
            return Err(self.not_a_library("an ELF file of another type (program or object)"));
        }

        let mut loaded = Vec::new();
        for entry in self.table(
            u64_at(&header, 32),
            (u16_at(&header, 54), u16_at(&header, 56)),
            PROGRAM_HEADER_BYTES,
            "program header table",
        )? {
            if u32_at(&entry, 0) == PT_LOAD {
                let (offset, length) = (u64_at(&entry, 8), u64_at(&entry, 32));
                self.require(offset, length, "code or data")?;
                loaded.push((offset, length));
            }
        }
        if loaded.is_empty() {
            return Err(self.not_a_library("an ELF file with nothing to load in it"));
        }
        // A library stripped of its section table is whole all the same.
        if u64_at(&header, 40) != 0 {
            for entry in self.table(
                u64_at(&header, 40),
                (u16_at(&header, 58), u16_at(&header, 60)),
                SECTION_HEADER_BYTES,
                "section header table",
            )? {
                if u32_at(&entry, 4) != SHT_NOBITS {
                    self.require(u64_at(&entry, 24), u64_at(&entry, 32), "section data")?;
                }
            }
        }
        Ok(loaded)
    }

    fn header(&mut self) -> Result<[u8; ELF_HEADER_BYTES], OpenError> {
        let mut header = [0; ELF_HEADER_BYTES];
        let present = usize::try_from(self.length)
            .map_or(ELF_HEADER_BYTES, |length| length.min(ELF_HEADER_BYTES));
        self.file
            .read_exact(&mut header[..present])
            .map_err(|source| self.read_error(source))?;
        if !header.starts_with(b"\x7fELF") {
            return Err(self.not_a_library(if present == 0 {
                "it is empty"
            } else if header[..present].iter().all(|byte| byte.is_ascii()) {
                "it is a text file"
            } else {
                "it does not start with the ELF magic number"
            }));
        }
        self.require(0, ELF_HEADER_BYTES as u64, "ELF header")?;
        match (header[4], header[5]) {
            (2, 1) => Ok(header),
            (1, _) => Err(OpenError::WrongArchitecture {
                path: self.path.to_owned(),
                found: format!("a 32-bit machine ({})", machine_name(u16_at(&header, 18))),
                expected: self.architecture.name(),
            }),
            _ => Err(self.not_a_library("an ELF file of an unknown class or byte order")),
        }
    }

    /// The entries of a header table; `shape` is (bytes an entry, number of entries).
    fn table(
        &mut self,
        offset: u64,
        shape: (u16, u16),
        minimum_entry_bytes: usize,
        part: &'static str,
    ) -> Result<Vec<Vec<u8>>, OpenError> {
        let (entry_bytes, count) = (usize::from(shape.0), usize::from(shape.1));
        if count == 0 {
            return Ok(Vec::new());
        }
        if entry_bytes < minimum_entry_bytes {
            return Err(self.not_a_library("an ELF file with a damaged header table"));
        }
        // At most 65535 entries of 65535 bytes by their types, and no more than the file has.
        let bytes = entry_bytes * count;
        self.require(offset, bytes as u64, part)?;
        let mut table = vec![0; bytes];
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(&mut table))
            .map_err(|source| self.read_error(source))?;
        Ok(table.chunks(entry_bytes).map(<[u8]>::to_vec).collect())
    }

    fn require(&self, offset: u64, length: u64, part: &'static str) -> Result<(), OpenError> {
        let needed = offset.saturating_add(length);
        if needed <= self.length {
            return Ok(());
        }
        Err(OpenError::Truncated {
            path: self.path.to_owned(),
            part,
            needed_bytes: needed,
            actual_bytes: self.length,
        })
    }

    fn not_a_library(&self, found: &str) -> OpenError {
        OpenError::NotALibrary {
            path: self.path.to_owned(),
            found: found.to_owned(),
        }
    }

    fn read_error(&self, source: io::Error) -> OpenError {
        OpenError::Read {
            path: self.path.to_owned(),
            source,
        }
    }
}

/// Searches `length` bytes from `offset` for the version text.
fn find_version(file: &mut File, offset: u64, length: u64) -> io::Result<Option<String>> {
    // What may straddle two chunks: the text is searched again in the tail of the last one.
    const OVERLAP: usize = VERSION_PREFIX.len() + VERSION_MAX_BYTES;
    let finder = memmem::Finder::new(VERSION_PREFIX);
    file.seek(SeekFrom::Start(offset))?;
    let mut rest = file.take(length);
    let mut window = Vec::with_capacity(CHUNK_BYTES + OVERLAP);
    loop {
        let carried = window.len();
        let read = rest
            .by_ref()
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut window)?;
        debug_assert_eq!(window.len(), carried + read);
        if let Some(version) = finder
            .find_iter(&window)
            .find_map(|at| version_text(&window[at + VERSION_PREFIX.len()..]))
        {
            return Ok(Some(version));
        }
        if read == 0 {
            return Ok(None);
        }
        window.drain(..window.len().saturating_sub(OVERLAP));
    }
}

/// `X.Y.Z` with an optional suffix of letters and digits (`b1`), ended by another character.
fn version_text(bytes: &[u8]) -> Option<String> {
    let end = bytes
        .iter()
        .take(VERSION_MAX_BYTES)
        .position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'.'))?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut parts = text.split('.');
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
    let well_formed = numeric(major)
        && numeric(minor)
        && patch.starts_with(|first: char| first.is_ascii_digit())
        && parts.next().is_none();
    well_formed.then(|| text.to_owned())
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "x86 (i386)".to_owned(),
        40 => "arm (32-bit)".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv".to_owned(),
        other => format!("ELF machine {other}"),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn version_in(bytes: &[u8]) -> Option<String> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        find_version(&mut file, 0, bytes.len() as u64).expect("read")
    }

    #[test]
    fn the_version_is_found_wherever_it_lies_across_chunks() {
        let text = b"RKLLM SDK (version: 1.2.1b1 | target: Linux | build: 1)";
        for start in CHUNK_BYTES - text.len()..=CHUNK_BYTES + 1 {
            let mut bytes = vec![0u8; start];
            bytes.extend_from_slice(text);
            bytes.extend_from_slice(&[0; 100]);
            assert_eq!(version_in(&bytes).as_deref(), Some("1.2.1b1"), "{start}");
        }
    }

    #[test]
    fn a_format_string_is_no_version_and_the_search_goes_on() {
        let bytes =
            b"RKLLM SDK (version: %s)\0RKLLM SDK (version: 1.3 )\0RKLLM SDK (version: 1.3.1)";
        assert_eq!(version_in(bytes).as_deref(), Some("1.3.1"));
        assert_eq!(version_in(b"RKLLM SDK (version: 1.3.1"), None, "cut off");
    }

    #[test]
    fn only_the_asked_range_is_searched() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(b"....RKLLM SDK (version: 1.3.1)")
            .expect("written");
        assert_eq!(find_version(&mut file, 0, 20).expect("read"), None);
        assert_eq!(
            find_version(&mut file, 4, 26).expect("read").as_deref(),
            Some("1.3.1")
        );
    }

    const VERSION: &[u8] = b"RKLLM SDK (version: 1.3.1 |";

    /// The least a library can be: an ELF header, one loaded part and one section.
    fn smallest_library() -> Vec<u8> {
        let parts = (ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES) as u64;
        let whole = parts + SECTION_HEADER_BYTES as u64 + VERSION.len() as u64;
        let mut elf = vec![0; whole as usize - VERSION.len()];
        let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &ET_DYN.to_le_bytes());
        put(18, &Architecture::OWN.elf_machine().to_le_bytes());
        put(32, &(ELF_HEADER_BYTES as u64).to_le_bytes());
        put(40, &parts.to_le_bytes());
        put(54, &(PROGRAM_HEADER_BYTES as u16).to_le_bytes());
        put(56, &1u16.to_le_bytes());
        put(58, &(SECTION_HEADER_BYTES as u16).to_le_bytes());
        put(60, &1u16.to_le_bytes());
        put(ELF_HEADER_BYTES, &PT_LOAD.to_le_bytes());
        put(ELF_HEADER_BYTES + 32, &whole.to_le_bytes());
        elf.extend_from_slice(VERSION);
        elf
    }

    fn version_of(bytes: &[u8]) -> Result<String, OpenError> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        library_version(file.path(), Architecture::OWN)
    }

    #[test]
    fn any_byte_of_the_headers_may_be_damaged() {
        let whole = smallest_library();
        assert_eq!(version_of(&whole).expect("whole"), "1.3.1");
        let headers = whole.len() - VERSION.len();
        let mut refused = 0;
        for at in 0..headers {
            for value in [0x00, 0x7F, 0xFF] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                // Not every byte matters; what counts is an answer for each.
                refused += usize::from(version_of(&damaged).is_err());
            }
        }
        assert!(refused > 0 && refused < headers * 3, "{refused}");
    }

    #[test]
    fn every_length_short_of_the_whole_is_refused() {
        let whole = smallest_library();
        for length in 4..whole.len() {
            let error = version_of(&whole[..length]).expect_err("cut off");
            assert!(
                matches!(error, OpenError::Truncated { .. }),
                "cut to {length}: {error}"
            );
        }
    }
}
