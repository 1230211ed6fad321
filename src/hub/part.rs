//! A file that comes: written under the name of its checksum, hashed on its way, and given its own name once
//! it is what it is to be. One that was left behind is hashed again before it is gone on with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, Mode, OFlags};

use super::Hash;
use super::integrity::Hashing;

pub(super) const BUFFER_BYTES: usize = 128 * 1024;
/// Written bytes that may wait for the disk: more would stall who else writes, and be lost with the power.
const SYNC_BYTES: u64 = 16 << 20;
/// How a pointer of Git LFS begins, and its most bytes.
const POINTER: &[u8; 39] = b"version https://git-lfs.github.com/spec";
const MOST_POINTER_BYTES: u64 = 1024;
/// A user who may see the models folder may read what is in it.
pub(super) const FILE_MODE: u32 = 0o644;

pub(super) struct Part {
    file: File,
    path: PathBuf,
    wanted: Hash,
    size: u64,
    len: u64,
    unsynced: u64,
    hashing: Hashing,
    /// Whether it is of one piece of one answer.
    is_joined: bool,
}

/// Why a file has no name yet.
pub(super) enum NotWhole {
    Io(io::Error),
    /// It is another one, with this checksum.
    Other(String),
}

impl From<io::Error> for NotWhole {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the file is called until it is whole.
pub(super) fn name_of(wanted: &Hash) -> String {
    format!("{}.part", wanted.hex())
}

impl Part {
    pub fn open(folder: &Path, wanted: Hash, size: u64) -> io::Result<Self> {
        let path = folder.join(name_of(&wanted));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .mode(FILE_MODE)
            .open(&path)?;
        let len = file.metadata()?.len();
        let mut part = Self {
            file,
            path,
            wanted,
            size,
            len,
            unsynced: 0,
            hashing: Hashing::new(&wanted, size),
            is_joined: len > 0,
        };
        match len > size {
            true => part.restart()?,
            false => part.hash_what_is_there()?,
        }
        Ok(part)
    }

    fn hash_what_is_there(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = self.len;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(BUFFER_BYTES);
            let read = self.file.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.hashing.update(&buffer[..read]);
            left -= read as u64;
        }
        self.forget_pages();
        Ok(())
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn left(&self) -> u64 {
        self.size - self.len
    }

    /// It is gone on with by another answer than the one that it was begun by.
    pub fn join(&mut self) {
        self.is_joined |= self.len > 0;
    }

    /// Whether it might be another one because pieces do not belong together.
    pub fn is_joined(&self) -> bool {
        self.is_joined
    }

    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.len = 0;
        self.unsynced = 0;
        self.hashing = Hashing::new(&self.wanted, self.size);
        self.is_joined = false;
        Ok(())
    }

    /// Takes in what comes next; no more than is left.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // A part of it may have been written.
            self.file.set_len(self.len)?;
            self.file.seek(SeekFrom::Start(self.len))?;
            return Err(error);
        }
        self.hashing.update(bytes);
        self.len += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.forget_pages();
            self.unsynced = 0;
        }
        Ok(())
    }

    /// What was written is not read soon: its pages are left to the models that run.
    fn forget_pages(&self) {
        // Advice that is not taken harms nothing.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    /// Whether it says where a file lies instead of being that.
    pub fn is_pointer(&self) -> io::Result<bool> {
        if self.len > MOST_POINTER_BYTES || self.len < POINTER.len() as u64 {
            return Ok(false);
        }
        let mut beginning = [0; POINTER.len()];
        self.file.read_exact_at(&mut beginning, 0)?;
        Ok(beginning == *POINTER)
    }

    /// Gives it its name, for good. Returns its SHA-256.
    pub fn finish(self, folder: &Path, name: &str) -> Result<String, NotWhole> {
        let sha256 = self.hashing.finish(&self.wanted).map_err(NotWhole::Other)?;
        // The umask has taken bits from the mode.
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(FILE_MODE)).map_err(io::Error::from)?;
        self.file.sync_all()?;
        fs::rename(&self.path, folder.join(name))?;
        File::open(folder)?.sync_all()?;
        Ok(sha256)
    }
}

/// The SHA-256 of a file that was whole before, if it is still what it is to be.
pub(super) fn verified(path: &Path, wanted: &Hash, size: u64) -> Option<String> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() != size {
        return None;
    }
    let mut hashing = Hashing::new(wanted, size);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return hashing.finish(wanted).ok(),
            Ok(read) => hashing.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn wanted(content: &[u8]) -> Hash {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&Sha256::digest(content));
        Hash::Sha256(bytes)
    }

    #[test]
    fn a_file_is_there_by_its_name_only_when_it_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let (content, other) = (b"content".as_slice(), b"CONTENT".as_slice());
        let hash = wanted(content);
        let mut part = Part::open(folder.path(), hash, 7).unwrap();
        part.write(&other[..3]).unwrap();
        part.write(&other[3..]).unwrap();
        assert!(!part.is_joined());
        assert!(matches!(
            part.finish(folder.path(), "m"),
            Err(NotWhole::Other(_))
        ));
        assert!(!folder.path().join("m").exists());
        let mut again = Part::open(folder.path(), hash, 7).unwrap();
        assert_eq!((again.len(), again.left(), again.is_joined()), (7, 0, true));
        again.restart().unwrap();
        again.write(content).unwrap();
        assert!(again.finish(folder.path(), "m").is_ok());
        assert!(verified(&folder.path().join("m"), &hash, 7).is_some());
        assert!(!folder.path().join(name_of(&hash)).exists());
        assert_eq!(verified(&folder.path().join("m"), &wanted(other), 7), None);
        std::os::unix::fs::symlink("m", folder.path().join("link")).unwrap();
        assert_eq!(verified(&folder.path().join("link"), &hash, 7), None);
    }

    #[test]
    fn no_link_is_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let hash = wanted(b"x");
        std::os::unix::fs::symlink("/dev/null", folder.path().join(name_of(&hash))).unwrap();
        assert!(Part::open(folder.path(), hash, 1).is_err());
    }

    proptest! {
        #[test]
        fn however_it_was_cut_it_is_whole_in_the_end(
            content in prop::collection::vec(any::<u8>(), 1..2000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (hash, size) = (wanted(&content), content.len() as u64);
            for cut in cuts {
                let mut part = Part::open(folder.path(), hash, size).unwrap();
                let from = usize::try_from(part.len()).unwrap();
                let to = from + cut.index(content.len() - from + 1);
                part.write(&content[from..to]).unwrap();
            }
            let mut part = Part::open(folder.path(), hash, size).unwrap();
            let from = usize::try_from(part.len()).unwrap();
            part.write(&content[from..]).unwrap();
            prop_assert!(part.finish(folder.path(), "m").is_ok());
            prop_assert_eq!(std::fs::read(folder.path().join("m")).unwrap(), content);
        }
    }
}
