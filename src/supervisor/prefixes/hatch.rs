//! A worker's own folders among the prefixes, the only ones of all that it can reach where the kernel confines
//! it: what it is to load is given to it there under a further name, for as long as the call takes, and what it
//! saves is taken from there. So at no time does a worker reach a prefix of another tenant, or of another
//! model, that it was not given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::folder::Folder;
use super::index::PrefixId;
use crate::apart::{self, Subject};

const WORKERS: &str = ".worker-";

/// Dropping it removes the folders.
#[derive(Debug)]
pub struct Hatch {
    folder: PathBuf,
}

impl Hatch {
    /// Beneath the folder of prefixes; the worker makes it.
    pub fn beneath(prefixes: &Path) -> Self {
        // A worker of an earlier daemon, which may end a little later than that, uses another one.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let (now, number) = (since.unwrap_or_default().as_nanos(), next_number());
        Self {
            folder: prefixes.join(format!("{WORKERS}{now:x}-{number}")),
        }
    }

    /// Where the worker reads.
    pub fn given(&self) -> PathBuf {
        self.folder.join("given")
    }

    /// Where it writes.
    pub fn saved(&self) -> PathBuf {
        self.folder.join("saved")
    }
}

impl Drop for Hatch {
    fn drop(&mut self) {
        let folder = std::mem::take(&mut self.folder);
        apart::begin(Subject::File(folder.clone()), move || {
            // The next start removes what a worker that is still ending leaves.
            let _ = fs::remove_dir_all(folder);
        });
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whether a worker's folders are called so.
pub(super) fn is_workers(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(WORKERS.as_bytes())
}

/// A prefix where its worker can read it. Dropping it takes it back.
#[derive(Debug)]
pub(super) struct Given {
    path: PathBuf,
    is_further: bool,
}

impl Given {
    /// `given`: the worker's folder; `None`: it reaches all of them. Waits for the disk.
    pub fn new(folder: &Folder, id: PrefixId, given: Option<&Path>) -> io::Result<Self> {
        let cache = folder.cache(id);
        let Some(given) = given else {
            return Ok(Self {
                path: cache,
                is_further: false,
            });
        };
        // Slots may load the same one at the same time.
        let path = given.join(format!("{}.cache", next_number()));
        fs::hard_link(&cache, &path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Err(error),
            // A file system that knows no further names.
            _ => fs::copy(&cache, &path)
                .map(drop)
                .inspect_err(|_| drop(fs::remove_file(&path))),
        })?;
        Ok(Self {
            path,
            is_further: true,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if self.is_further {
            let path = std::mem::take(&mut self.path);
            apart::begin(Subject::File(path.clone()), move || {
                let _ = fs::remove_file(path);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_given_one_prefix_for_as_long_as_it_is_held() {
        let place = tempfile::tempdir().unwrap();
        let (folder, _) = Folder::open(place.path()).unwrap();
        for (id, cells) in [(1, "of one"), (2, "of another")] {
            fs::write(folder.cache(id), cells).unwrap();
        }
        let hatch = Hatch::beneath(folder.path());
        let given = hatch.given();
        fs::create_dir_all(&given).unwrap();
        let names = || fs::read_dir(&given).unwrap().count();
        let held = Given::new(&folder, 1, Some(&given)).unwrap();
        assert_eq!(fs::read(held.path()).unwrap(), b"of one");
        assert!(held.path().starts_with(&given));
        assert_eq!(names(), 1);
        // For another slot.
        let again = Given::new(&folder, 1, Some(&given)).unwrap();
        assert_eq!(names(), 2);
        for given_back in [held, again] {
            let path = given_back.path().to_owned();
            drop(given_back);
            wait_until(|| !path.exists());
        }
        assert_eq!(fs::read(folder.cache(1)).unwrap(), b"of one", "it stays");
        let all = Given::new(&folder, 2, None).unwrap();
        assert_eq!(all.path(), folder.cache(2));
        drop(all);
        assert!(folder.cache(2).exists());
        assert!(Given::new(&folder, 3, Some(&given)).is_err());
        let folders = given.parent().unwrap().to_owned();
        drop(hatch);
        wait_until(|| !folders.exists());
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !condition() {
            assert!(std::time::Instant::now() < until, "it did not happen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn two_workers_have_two_hatches() {
        let hatches = [(); 2].map(|()| Hatch::beneath(Path::new("/nowhere")));
        assert_ne!(hatches[0].folder, hatches[1].folder);
        let name = hatches[0].folder.file_name().unwrap();
        assert!(is_workers(name));
    }
}
