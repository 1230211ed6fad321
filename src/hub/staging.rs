//! The folder in which a model is put together, beneath `.pulls` in the models folder, where no scan looks:
//! it is on the same file system, and becomes the model's own by one rename. The process that pulls a model holds its
//! lock; what a killed one has left is gone on with.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::part::FILE_MODE;
use super::{HubAccess, PullError};

pub(super) const FOLDER: &str = ".pulls";
const FOLDER_MODE: u32 = 0o755;
/// Folders inside each other that are measured: publisher, model, and one more.
const DEEPEST: usize = 4;
/// A pull that was ended just now holds its lock until the kernel is done with its process.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_EVERY: Duration = Duration::from_millis(20);

pub(super) struct Staging {
    models: PathBuf,
    pulls: PathBuf,
    folder: PathBuf,
    /// The folder's, locked.
    _lock: File,
    publisher: PathBuf,
    target: PathBuf,
}

/// Where a model is put.
pub(super) fn target(models: &Path, publisher: &str, name: &str) -> PathBuf {
    models.join(publisher).join(name)
}

impl Staging {
    /// # Errors
    ///
    /// Another process is at it, or the models folder cannot be written to.
    pub fn begin(models: &Path, publisher: &str, name: &str) -> Result<Self, PullError> {
        let pulls = models.join(FOLDER);
        // A repository's name holds no slash, so that no two have one folder.
        let folder = pulls.join(publisher).join(name);
        for path in [&pulls, &pulls.join(publisher), &folder] {
            make(path).map_err(|error| PullError::folder(path, error))?;
        }
        let lock = File::open(&folder).map_err(|error| PullError::folder(&folder, error))?;
        let is_held = hold(&lock).map_err(|error| PullError::folder(&folder, error))?;
        // Meanwhile another one may have put the folder into its place.
        let is_there = fs::symlink_metadata(&folder).is_ok_and(|now| {
            let held = lock.metadata();
            held.is_ok_and(|held| (held.dev(), held.ino()) == (now.dev(), now.ino()))
        });
        if !is_held || !is_there {
            return Err(PullError::InUse {
                name: format!("{publisher}/{name}"),
            });
        }
        Ok(Self {
            models: models.to_owned(),
            pulls,
            folder,
            _lock: lock,
            publisher: models.join(publisher),
            target: target(models, publisher, name),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes of a file that lie there already.
    pub fn bytes_of(&self, name: &str) -> u64 {
        let found = fs::symlink_metadata(self.folder.join(name));
        found.map_or(0, |found| if found.is_file() { found.len() } else { 0 })
    }

    /// Throws away what belongs to no file of this pull, such as a part of what the repository held before.
    pub fn keep_only(&self, names: &BTreeSet<String>) -> Result<(), PullError> {
        let cleared = fs::read_dir(&self.folder).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let is_kept = entry
                    .file_name()
                    .to_str()
                    .is_some_and(|it| names.contains(it));
                if is_kept {
                    continue;
                }
                match entry.file_type()?.is_dir() {
                    true => fs::remove_dir_all(entry.path())?,
                    false => fs::remove_file(entry.path())?,
                }
            }
            Ok(())
        });
        cleared.map_err(|error| PullError::folder(&self.folder, error))
    }

    /// Refuses what has no room, before any of it comes.
    pub fn check_room(&self, needed: u64, hub: &HubAccess) -> Result<(), PullError> {
        if let Some(quota) = hub.quota_bytes {
            let held = held_bytes(&self.models, DEEPEST);
            let held = held.map_err(|error| PullError::folder(&self.models, error))?;
            let would_hold = held.saturating_add(needed);
            if would_hold > quota {
                return Err(PullError::Quota { would_hold, quota });
            }
        }
        let free = free_bytes(&self.folder)?;
        let kept_free = hub.keep_free_bytes;
        match needed.saturating_add(kept_free) > free && needed > 0 {
            true => Err(self.no_space(needed, free, kept_free)),
            false => Ok(()),
        }
    }

    /// What a failed write means.
    pub fn failed(&self, error: io::Error, left: u64) -> PullError {
        let is_full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        match free_bytes(&self.folder) {
            Ok(free) if is_full => self.no_space(left, free, 0),
            _ => PullError::folder(&self.folder, error),
        }
    }

    fn no_space(&self, needed: u64, free: u64, kept_free: u64) -> PullError {
        PullError::NoSpace {
            folder: self.models.display().to_string(),
            needed,
            free,
            kept_free,
        }
    }

    /// Writes a small file, whole.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), PullError> {
        let (path, new) = (
            self.folder.join(name),
            self.folder.join(format!("{name}.new")),
        );
        let written = || -> io::Result<()> {
            fs::write(&new, content)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(FILE_MODE))?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, &path)
        };
        written().map_err(|error| self.failed(error, content.len() as u64))
    }

    /// Puts the model into its place, for good.
    pub fn install(self) -> Result<PathBuf, PullError> {
        let installed = || -> io::Result<()> {
            make(&self.publisher)?;
            File::open(&self.folder)?.sync_all()?;
            // Nothing that is there is replaced but an empty folder.
            fs::rename(&self.folder, &self.target)?;
            for folder in [&self.publisher, &self.models] {
                File::open(folder)?.sync_all()?;
            }
            Ok(())
        };
        match installed() {
            Ok(()) => {}
            Err(error) if is_taken(&error) => {
                return Err(PullError::Exists {
                    path: self.target.display().to_string(),
                });
            }
            Err(error) => return Err(PullError::folder(&self.target, error)),
        }
        // Those that other pulls need stay, because they are not empty.
        if let Some(publisher) = self.folder.parent() {
            let _ = fs::remove_dir(publisher);
        }
        remove_unheld(&self.pulls);
        Ok(self.target)
    }
}

/// Keeps the folder of pulls from being removed: a transfer that is confined to it reaches none that is made
/// anew.
pub(super) struct HeldPulls {
    folder: PathBuf,
    _lock: File,
}

impl HeldPulls {
    /// Makes it, where it is not there.
    pub fn hold(models: &Path) -> io::Result<Self> {
        let folder = models.join(FOLDER);
        loop {
            make(&folder)?;
            let lock = File::open(&folder)?;
            rustix::fs::flock(&lock, FlockOperation::LockShared)?;
            // Meanwhile it may have been removed.
            let there = fs::symlink_metadata(&folder);
            let held = lock.metadata()?;
            if there.is_ok_and(|now| (held.dev(), held.ino()) == (now.dev(), now.ino())) {
                return Ok(Self {
                    folder,
                    _lock: lock,
                });
            }
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Removes the folder of pulls, if it is empty and no other transfer is confined to it.
pub(super) fn remove_unheld(pulls: &Path) {
    let Ok(lock) = File::open(pulls) else { return };
    let is_unheld = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    if is_unheld {
        let _ = fs::remove_dir(pulls);
    }
}

/// Takes the lock of a folder; `false`: another process keeps it.
pub(super) fn hold(folder: &File) -> Result<bool, Errno> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(LOCK_EVERY),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
    )
}

/// A folder that every user may list; one that is there must be one and no link.
pub(super) fn make(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(FOLDER_MODE).create(path) {
        // The umask has taken bits from the mode.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path)?.is_dir() {
                true => Ok(()),
                false => Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    "it is no folder",
                )),
            }
        }
        Err(error) => Err(error),
    }
}

fn free_bytes(folder: &Path) -> Result<u64, PullError> {
    let found = rustix::fs::statvfs(folder);
    let found = found.map_err(|error| PullError::folder(folder, error))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of the files beneath a folder; links count as nothing.
pub(super) fn held_bytes(folder: &Path, depth: usize) -> io::Result<u64> {
    let mut held = 0u64;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What is gone by now counts as nothing.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_file() {
            held = held.saturating_add(metadata.len());
        } else if metadata.is_dir() && depth > 0 {
            held = held.saturating_add(match held_bytes(&entry.path(), depth - 1) {
                // Another's, such as `lost+found`; or gone by now.
                Err(error) if is_not_ours(&error) => 0,
                held => held?,
            });
        }
    }
    Ok(held)
}

fn is_not_ours(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> HubAccess {
        let mut settings = crate::settings::Settings::default();
        settings.hub.keep_free_bytes = 0;
        super::super::Job::new("a/b", &settings).hub
    }

    #[test]
    fn one_at_a_time_and_none_over_another() {
        let models = tempfile::tempdir().unwrap();
        let staging = Staging::begin(models.path(), "a", "b").unwrap();
        let second = Staging::begin(models.path(), "a", "b");
        assert!(matches!(second.err(), Some(PullError::InUse { .. })));
        assert!(Staging::begin(models.path(), "a", "c").is_ok());
        fs::write(staging.folder().join("old.part"), "x").unwrap();
        staging.write("m.gguf", b"model").unwrap();
        assert_eq!(staging.bytes_of("m.gguf"), 5);
        staging.keep_only(&["m.gguf".to_owned()].into()).unwrap();
        let target = staging.install().unwrap();
        let names: Vec<_> = fs::read_dir(&target)
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        assert_eq!(names, ["m.gguf"]);
        assert_eq!(target, models.path().join("a/b"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&target), mode(&target.join("m.gguf"))),
            (0o755, 0o644)
        );
        // The place is taken now.
        let again = Staging::begin(models.path(), "a", "b").unwrap();
        again.write("m.gguf", b"other").unwrap();
        assert!(matches!(again.install(), Err(PullError::Exists { .. })));
        assert_eq!(fs::read(target.join("m.gguf")).unwrap(), b"model");
    }

    #[test]
    fn the_folder_of_pulls_stays_while_a_transfer_is_confined_to_it() {
        let models = tempfile::tempdir().unwrap();
        let pulls = models.path().join(FOLDER);
        let held = HeldPulls::hold(models.path()).unwrap();
        assert_eq!(held.folder(), pulls);
        Staging::begin(models.path(), "a", "b")
            .unwrap()
            .install()
            .unwrap();
        assert!(pulls.exists());
        drop(held);
        Staging::begin(models.path(), "a", "c")
            .unwrap()
            .install()
            .unwrap();
        assert!(!pulls.exists());
    }

    #[test]
    fn a_folder_that_is_a_link_is_not_used() {
        let (models, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(other.path(), models.path().join(FOLDER)).unwrap();
        let refused = Staging::begin(models.path(), "a", "b");
        assert!(matches!(refused.err(), Some(PullError::Folder { .. })));
    }

    #[test]
    fn room_is_asked_for_before_anything_comes() {
        let models = tempfile::tempdir().unwrap();
        fs::create_dir(models.path().join("m")).unwrap();
        fs::write(models.path().join("m/m.gguf"), [0; 100]).unwrap();
        let staging = Staging::begin(models.path(), "a", "b").unwrap();
        let mut hub = hub();
        assert_eq!(staging.check_room(1000, &hub), Ok(()));
        hub.quota_bytes = Some(1100);
        assert_eq!(staging.check_room(1000, &hub), Ok(()));
        let over = PullError::Quota {
            would_hold: 1101,
            quota: 1100,
        };
        assert_eq!(staging.check_room(1001, &hub), Err(over));
        hub.quota_bytes = None;
        let refused = staging.check_room(1 << 60, &hub);
        assert!(matches!(refused, Err(PullError::NoSpace { needed, .. }) if needed == 1 << 60));
    }
}
