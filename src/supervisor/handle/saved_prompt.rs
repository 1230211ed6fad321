//! A prompt cache on its way to its name. The library writes into a folder of the run's own, and
//! what it wrote gets its name when the run has ended and it is whole; so a name belongs to a whole
//! cache at every moment, and what a run, a worker or a daemon left unfinished goes with that folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::prompt_cache_file;
use crate::apart::{self, Subject};
use crate::library_calls::LibraryError;

/// Folders of runs are called so; no client can name one.
const UNFINISHED: &str = ".saving-";
/// For what is no reading or writing of gigabytes.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no cache.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Unsaved {
    /// The library has written none, or none that is whole.
    Library(String),
    Disk(String),
}

/// A cache that is whole and on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) struct WholeCache {
    pub bytes: u64,
    /// Of the keys and values of each token, where its format tells.
    pub cell_bytes: Option<u64>,
}

/// Held while a name gets another file, or loses the one that was found broken: else a whole cache that has
/// come meanwhile would go in its place.
static NAMES: Mutex<()> = Mutex::new(());

/// The right to give and to take names, in a call that may wait for the disk.
pub(super) fn names() -> MutexGuard<'static, ()> {
    // There is nothing in it that could be half done.
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Dropping it removes what was written.
#[derive(Debug)]
pub(in crate::supervisor) struct SavedPrompt {
    name: String,
    folder: PathBuf,
    caches: PathBuf,
}

impl SavedPrompt {
    /// A place for the run of this number to save what is to be called `name` in the folder `caches`.
    pub fn begin(caches: PathBuf, name: String, run: u64) -> io::Result<Self> {
        let place = caches.clone();
        Self::begin_in(&place, caches, name, run)
    }

    /// The same, written beneath `place`, which is on the disk of `caches`.
    pub fn begin_in(place: &Path, caches: PathBuf, name: String, run: u64) -> io::Result<Self> {
        let folder = place.join(format!("{UNFINISHED}{run}"));
        let place = Self {
            name,
            folder,
            caches,
        };
        empty(&place.folder)?;
        Ok(place)
    }

    /// Where the library is to write.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Forgets what a worker left that was lost.
    pub async fn begin_again(&self) -> Result<(), LibraryError> {
        let folder = self.folder.clone();
        let emptied = apart::ask(self.subject(), LIMIT, move || empty(&folder)).await;
        match emptied {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(self.failed(error)),
            None => Err(self.failed("the disk does not answer")),
        }
    }

    /// Gives what was written its name, if it is whole; else it is removed. `limit` is that of
    /// bringing it to the disk.
    pub async fn finish(self, limit: Duration) -> Result<(), LibraryError> {
        let name = self.name.clone();
        let published = self.publish(limit).await;
        published.map_err(|(Unsaved::Library(reason) | Unsaved::Disk(reason))| {
            LibraryError::PromptCacheBroken { name, reason }
        })
    }

    /// What was written, once it is whole and on the disk. It has no name yet.
    pub async fn written(&self, limit: Duration) -> Result<WholeCache, Unsaved> {
        let path = self.path();
        let written = apart::ask(self.subject(), limit, move || -> Result<_, Unsaved> {
            check(&path)?;
            let look = || -> io::Result<_> {
                let file = File::open(&path)?;
                file.sync_all()?;
                Ok((
                    file.metadata()?.len(),
                    prompt_cache_file::cell_bytes(&path)?,
                ))
            };
            let (bytes, cell_bytes) = look().map_err(to_disk)?;
            let cell_bytes = cell_bytes.map_err(Unsaved::Library)?;
            Ok(WholeCache { bytes, cell_bytes })
        });
        written.await.unwrap_or_else(|| Err(too_slow()))
    }

    /// How many bytes were written, whole or not; `None`: the disk does not answer.
    pub async fn size(&self) -> Option<u64> {
        let path = self.path();
        let length = move || fs::metadata(path).map_or(0, |file| file.len());
        apart::ask(self.subject(), LIMIT, length).await
    }

    /// As `finish`.
    pub async fn publish(self, limit: Duration) -> Result<(), Unsaved> {
        let (path, folder) = (self.path(), self.folder.clone());
        let target = self.caches.join(&self.name);
        let finish = move || {
            let finished = publish(&path, &target);
            // Before the client is told, so that nothing of it is found any more.
            let removed = fs::remove_dir_all(folder);
            finished.and(removed.map_err(|error| Unsaved::Disk(error.to_string())))
        };
        let finished = apart::ask(self.subject(), limit, finish).await;
        finished.unwrap_or_else(|| Err(too_slow()))
    }

    fn subject(&self) -> Subject {
        Subject::File(self.folder.clone())
    }

    fn failed(&self, reason: impl ToString) -> LibraryError {
        LibraryError::PromptCacheBroken {
            name: self.name.clone(),
            reason: reason.to_string(),
        }
    }
}

impl Drop for SavedPrompt {
    fn drop(&mut self) {
        let folder = std::mem::take(&mut self.folder);
        apart::begin(Subject::File(folder.clone()), move || {
            // Gone already where it was finished.
            let _ = fs::remove_dir_all(folder);
        });
    }
}

fn empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(folder)
}

pub(super) fn give_name(path: &Path, target: &Path) -> io::Result<()> {
    let _names = names();
    fs::rename(path, target)
}

fn publish(path: &Path, target: &Path) -> Result<(), Unsaved> {
    check(path)?;
    File::open(path)
        .and_then(|file| file.sync_all())
        .and_then(|()| give_name(path, target))
        .map_err(to_disk)
}

fn to_disk(error: io::Error) -> Unsaved {
    Unsaved::Disk(format!("it cannot be brought to the disk: {error}"))
}

fn too_slow() -> Unsaved {
    Unsaved::Disk("it could not be brought to the disk in time".to_owned())
}

fn check(path: &Path) -> Result<(), Unsaved> {
    // Of a format that does not tell its length this is all there is to see.
    if is_disk_full(path.parent().unwrap_or(path)) {
        return Err(Unsaved::Disk("no room is left on its disk".to_owned()));
    }
    match prompt_cache_file::check(path) {
        Ok(whole) => whole.map_err(Unsaved::Library),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Unsaved::Library("the library wrote none".to_owned()))
        }
        Err(error) => Err(Unsaved::Disk(format!("it cannot be read: {error}"))),
    }
}

fn is_disk_full(path: &Path) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    rustix::fs::statvfs(path)
        .is_ok_and(|disk| 0 == if is_root { disk.f_bfree } else { disk.f_bavail })
}

/// Removes what runs of a daemon that has ended left in the state folder. Only for its one user.
pub(crate) fn remove_unfinished(state_dir: &Path) {
    let Ok(entries) = fs::read_dir(state_dir.join(super::state_folder::PROMPT_CACHES)) else {
        return;
    };
    for entry in entries.flatten() {
        if is_unfinished(&entry.file_name())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "an unfinished prompt cache stays");
        }
    }
}

pub(in crate::supervisor) fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
}
