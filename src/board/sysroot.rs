//! Where the kernel's files lie: under `/`, or under a folder that holds a copy of a board's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::regular_file;

/// What the kernel tells in one file is shorter.
const LIMIT_BYTES: u64 = 256 * 1024;
/// A folder of the kernel's has fewer entries that are looked at.
const MOST_NAMES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysroot(PathBuf);

impl Sysroot {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// This machine's own.
    pub fn own() -> Self {
        Self::new("/")
    }

    pub fn is_own(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Where a file of the board's lies on this machine.
    pub fn path(&self, of_board: impl AsRef<Path>) -> PathBuf {
        let of_board = of_board.as_ref();
        self.0.join(of_board.strip_prefix("/").unwrap_or(of_board))
    }

    /// What a file says, without the space around it; absent where it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        self.text_within(path, LIMIT_BYTES)
    }

    /// The same, of a file that may be longer than others.
    pub fn text_within(&self, path: &str, most_bytes: u64) -> Option<String> {
        let text = regular_file::read_text(&self.path(path), most_bytes).ok()?;
        Some(text.trim_matches(['\0', ' ', '\n', '\t']).to_owned())
    }

    /// A number that stands alone in a file.
    pub fn number<N: FromStr>(&self, path: &str) -> Option<N> {
        self.text(path)?.parse().ok()
    }

    /// Whether there is anything at the path, a link that leads nowhere included: the links of a copied
    /// `/sys` do.
    pub fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    /// The names in a folder, in order; none where it cannot be read.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else {
            return Vec::new();
        };
        let named = entries.flatten().take(MOST_NAMES);
        let mut names: Vec<_> = named
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// The size of a regular file, following links.
    pub fn file_bytes(&self, path: &Path) -> Option<u64> {
        let metadata = fs::metadata(self.path(path)).ok()?;
        metadata.is_file().then(|| metadata.size())
    }

    /// A line of /proc/meminfo, in bytes.
    pub fn memory_bytes(&self, name: &str) -> Option<u64> {
        of_meminfo(&self.text("/proc/meminfo")?, name)
    }
}

/// A line of /proc/meminfo's text, in bytes.
pub(super) fn of_meminfo(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found == name).then_some(value)
    })?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
