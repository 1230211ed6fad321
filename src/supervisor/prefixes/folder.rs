//! The folder on disk. A prefix is two files: what the library wrote, and behind it the record, which is
//! written last and whole or not at all. Without its record a prefix is not there: so what a kill or a
//! power cut leaves half done is never loaded, and goes at the next start. Everything here waits for
//! the disk.
//!
//! ```text
//!   <16 hexadecimal digits>.cache   the library's · .json   its record · written.json   of the last day
//!   .saving-<number>/               where a run writes · <name>.new   a record on its way
//!   .worker-<number>/               what a confined worker reaches of all this
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use super::daily::Daily;
use super::hatch::is_workers;
use super::index::PrefixId;
use super::record::{Record, VERSION};
use crate::supervisor::handle::{SavedPrompt, check_prompt_cache, is_unfinished_prompt_cache};

const WRITTEN: &str = "written.json";
const PROBE: &str = ".writable.new";
/// A record of the longest prompt there can be is smaller.
const MOST_RECORD_BYTES: u64 = 64 << 20;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    /// Its lock: what another daemon is in the middle of is not this one's to remove.
    _lock: Arc<File>,
}

/// What a start finds.
pub struct Contents {
    /// Those used least recently first.
    pub records: Vec<(PrefixId, Record)>,
    pub daily: Daily,
}

impl Folder {
    /// Makes it if it is not there, and removes what is not whole.
    pub fn open(path: &Path) -> io::Result<(Self, Contents)> {
        let path = std::path::absolute(path)?;
        let is_new = !path.exists();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        if is_new {
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        }
        let lock = File::open(&path)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let this = Self {
            path,
            _lock: Arc::new(lock),
        };
        // Whether it can be written is seen now and not at the first save.
        this.prove_writable()?;
        let contents = this.take_stock()?;
        Ok((this, contents))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what lies in it takes memory.
    pub fn is_in_memory(&self) -> bool {
        let kind = rustix::fs::statfs(&self.path).map(|it| it.f_type as u64 & 0xffff_ffff);
        matches!(kind, Ok(TMPFS_MAGIC | RAMFS_MAGIC))
    }

    /// Bytes that its disk has room for.
    pub fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    pub fn cache(&self, id: PrefixId) -> PathBuf {
        self.path.join(cache_name(id))
    }

    fn record(&self, id: PrefixId) -> PathBuf {
        self.path.join(record_name(id))
    }

    /// A place for a run to write the prefix to, in a folder of its worker's, if that has one.
    pub fn place(&self, id: PrefixId, run: u64, saved: Option<&Path>) -> io::Result<SavedPrompt> {
        let place = saved.unwrap_or(&self.path);
        SavedPrompt::begin_in(place, self.path.clone(), cache_name(id), run)
    }

    /// How many bytes were written, once they have their name; they are their owner's alone from now on.
    pub fn written(&self, id: PrefixId) -> io::Result<u64> {
        let cache = self.cache(id);
        fs::set_permissions(&cache, Permissions::from_mode(0o600))?;
        Ok(fs::metadata(&cache)?.len())
    }

    /// Reads all of a prefix that has so many bytes: then the library finds it in memory, and a disk that does
    /// not answer holds up the caller alone. Returns whether it is whole.
    pub fn read_through(&self, id: PrefixId, bytes: u64) -> io::Result<bool> {
        let path = self.cache(id);
        let no_links = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = File::options()
            .read(true)
            .custom_flags(no_links)
            .open(&path)?;
        let is_whole = file.metadata()?.is_file()
            && io::copy(&mut file, &mut io::sink())? == bytes
            && matches!(check_prompt_cache(&path), Ok(Ok(())));
        Ok(is_whole)
    }

    /// Whether its disk writes now: so much that a worker is not left waiting for it in the kernel.
    pub fn prove_writable(&self) -> io::Result<()> {
        let probe = self.path.join(PROBE);
        new_file(&probe)?.sync_all()?;
        fs::remove_file(&probe)
    }

    /// From now on it is there.
    pub fn publish(&self, id: PrefixId, record: &Record) -> io::Result<()> {
        self.replace(&self.record(id), &serde_json::to_vec(record)?)
    }

    pub fn remember(&self, daily: &Daily) -> io::Result<()> {
        self.replace(&self.path.join(WRITTEN), &serde_json::to_vec(daily)?)
    }

    /// Its record first: without that it is not there.
    pub fn remove(&self, ids: &[PrefixId]) {
        for &id in ids {
            for path in [self.record(id), self.cache(id)] {
                remove_file(&path);
            }
        }
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let written = new_file(&temporary)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| File::open(&self.path)?.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// Only what has a name of the daemon's is touched.
    fn take_stock(&self) -> io::Result<Contents> {
        let mut found: Vec<(SystemTime, PrefixId, Record)> = Vec::new();
        let mut caches = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            if is_unfinished_prompt_cache(&name) || is_workers(&name) {
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(path = %path.display(), %error, "an unfinished prefix stays");
                }
                continue;
            }
            let Some(name) = name.to_str() else { continue };
            match id_of(name) {
                Some((id, ".json")) => match self.read(id) {
                    Some(record) => {
                        let used = entry.metadata().and_then(|it| it.modified());
                        found.push((used.unwrap_or(SystemTime::UNIX_EPOCH), id, record));
                    }
                    None => self.remove(&[id]),
                },
                Some((id, ".cache")) => caches.push(id),
                Some((_, ".json.new")) => remove_file(&path),
                _ if name == format!("{WRITTEN}.new") || name == PROBE => {
                    remove_file(&path);
                }
                _ => {}
            }
        }
        for id in caches {
            if !found.iter().any(|(_, other, _)| *other == id) {
                remove_file(&self.cache(id));
            }
        }
        found.sort_by_key(|(used, id, _)| (*used, *id));
        let daily = fs::read(self.path.join(WRITTEN)).ok();
        Ok(Contents {
            records: found.into_iter().map(|(_, id, it)| (id, it)).collect(),
            daily: daily
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default(),
        })
    }

    /// The record of a prefix that is whole.
    fn read(&self, id: PrefixId) -> Option<Record> {
        let path = self.record(id);
        let length = fs::symlink_metadata(&path).ok()?.len();
        if length > MOST_RECORD_BYTES {
            return None;
        }
        let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let cache = self.cache(id);
        let file = fs::symlink_metadata(&cache).ok()?;
        let is_whole = file.is_file()
            && file.len() == record.bytes
            && record.version == VERSION
            && matches!(check_prompt_cache(&cache), Ok(Ok(())));
        is_whole.then_some(record)
    }
}

fn cache_name(id: PrefixId) -> String {
    format!("{id:016x}.cache")
}

fn record_name(id: PrefixId) -> String {
    format!("{id:016x}.json")
}

/// The id in a name of these, and what follows it.
fn id_of(name: &str) -> Option<(PrefixId, &str)> {
    let (id, rest) = name.split_at_checked(16)?;
    let is_ours = id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let id = is_ours.then(|| PrefixId::from_str_radix(id, 16).ok())??;
    Some((id, rest))
}

/// One that a killed daemon left is thrown away; no link is followed.
fn new_file(path: &Path) -> io::Result<File> {
    remove_file(path);
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn remove_file(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a file of a prefix stays");
    }
}

#[cfg(test)]
mod tests;
