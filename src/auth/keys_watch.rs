//! Keeps the keys of a running daemon those of its file. A thread of its own looks at the file,
//! because a disk that is busy with a model must not hold up the threads that serve tokens.
//!
//! A file that appears locks, whatever is in it, one that goes leaves no key valid, and one that turns
//! broken changes nothing until it is mended: nothing that happens to the file opens a door.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::{Keyring, KeysFile, KeysFileError};

/// Time between two looks, and so the longest time a revoked key still works.
const INTERVAL: Duration = Duration::from_millis(500);

/// The keys that count now; cheap to clone, read without waiting for the disk.
#[derive(Clone, Default)]
pub struct CurrentKeys(watch::Sender<Option<Arc<Keyring>>>);

impl CurrentKeys {
    /// Keys that never change.
    pub fn fixed(keyring: Option<Keyring>) -> Self {
        Self(watch::Sender::new(keyring.map(Arc::new)))
    }

    /// `None`: there never was a file of keys.
    pub fn get(&self) -> Option<Arc<Keyring>> {
        self.0.borrow().clone()
    }

    /// Resolves when `condition` holds for the keys, at once if it does now.
    pub async fn wait_for(&self, mut condition: impl FnMut(Option<&Keyring>) -> bool) {
        let mut keys = self.0.subscribe();
        // No error: the sender is here.
        let _ = keys.wait_for(|keys| condition(keys.as_deref())).await;
    }

    fn set(&self, keyring: Keyring) {
        self.0.send_replace(Some(Arc::new(keyring)));
    }
}

/// Watches a file until it is dropped.
pub struct KeysWatch {
    current: CurrentKeys,
    /// Dropping it ends the thread.
    _stop: mpsc::Sender<()>,
}

impl KeysWatch {
    /// Reads the file and follows it from now on.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be used, or no thread can be started.
    pub fn start(file: KeysFile) -> Result<Self, KeysFileError> {
        // First the stamp: a change between the two is then seen again.
        let stamp = Stamp::of(&file);
        let current = CurrentKeys::fixed(file.read()?);
        let (stop, stopped) = mpsc::channel();
        let follower = Follower {
            stamp: Some(stamp),
            told: None,
            current: current.clone(),
            file: file.clone(),
        };
        thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || follower.run(&stopped))
            .map_err(|source| KeysFileError::Unreadable {
                path: file.path().to_owned(),
                source,
            })?;
        Ok(Self {
            current,
            _stop: stop,
        })
    }

    pub fn current(&self) -> CurrentKeys {
        self.current.clone()
    }
}

/// Tells one state of the file from another without reading it.
#[derive(Debug, PartialEq, Eq)]
enum Stamp {
    Absent,
    /// Inode, size, and the times of the last change of content and inode.
    Present([i64; 6]),
    /// The folder cannot be searched, for example.
    Unknown(io::ErrorKind),
}

impl Stamp {
    fn of(file: &KeysFile) -> Self {
        match fs::metadata(file.path()) {
            Ok(file) => Self::Present([
                file.ino().cast_signed(),
                file.size().cast_signed(),
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            ]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(error) => Self::Unknown(error.kind()),
        }
    }
}

struct Follower {
    /// Of the file that was read; `None` when it could not be read and has to be again.
    stamp: Option<Stamp>,
    /// The trouble that was logged, so that it is logged once.
    told: Option<String>,
    current: CurrentKeys,
    file: KeysFile,
}

impl Follower {
    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            self.look();
        }
    }

    fn look(&mut self) {
        let stamp = Stamp::of(&self.file);
        if self.stamp.as_ref() != Some(&stamp) {
            self.stamp = self.read().then_some(stamp);
        }
    }

    /// Whether what is there now was read. What is wrong in a file stays until somebody changes it;
    /// what keeps it from being read (no descriptor left, say) may end by itself.
    fn read(&mut self) -> bool {
        let path = self.file.path().display();
        let error = match self.file.read() {
            Ok(Some(keyring)) => {
                let keys = keyring.keys().count();
                self.current.set(keyring);
                tracing::info!(file = %path, keys, "keys read");
                self.told = None;
                return true;
            }
            Ok(None) => {
                self.current.set(Keyring::default());
                tracing::warn!(file = %path, "the file of keys is gone; no key is valid now");
                self.told = None;
                return true;
            }
            Err(error) => error,
        };
        let is_first = self.current.get().is_none();
        if is_first {
            self.current.set(Keyring::default());
        }
        let trouble = error.to_string();
        if self.told.as_ref() != Some(&trouble) {
            let consequence = if is_first {
                "no key is valid before it can be read"
            } else {
                "the keys that were read before stay valid"
            };
            tracing::error!("{trouble}; {consequence}");
            self.told = Some(trouble);
        }
        !matches!(error, KeysFileError::Unreadable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(current: &CurrentKeys) -> Option<usize> {
        current.get().map(|keyring| keyring.keys().count())
    }

    fn follower(file: &KeysFile, current: &CurrentKeys) -> Follower {
        Follower {
            stamp: Some(Stamp::of(file)),
            told: None,
            current: current.clone(),
            file: file.clone(),
        }
    }

    #[test]
    fn a_file_that_appears_locks_also_when_it_is_broken_or_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["broken", "unreadable"] {
            let file = KeysFile::new(folder.path().join(name));
            let current = CurrentKeys::default();
            let mut follower = follower(&file, &current);
            match name {
                "broken" => fs::write(file.path(), "version = ").unwrap(),
                // Root can read any file, but no folder.
                _ => fs::create_dir(file.path()).unwrap(),
            }
            follower.look();
            assert_eq!(count(&current), Some(0), "{name}");
        }
    }

    #[test]
    fn the_file_can_lock_but_never_open() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeysFile::new(folder.path().join("keys.toml"));
        let current = CurrentKeys::default();
        let mut follower = follower(&file, &current);
        follower.look();
        assert_eq!(count(&current), None, "no file, no keys, no lock");

        let digest = "0".repeat(64);
        let one = format!(
            "version = 1\n[[key]]\nname = 'a'\nsha256 = '{digest}'\nrole = 'user'\ncreated = ''\n"
        );
        fs::write(file.path(), &one).unwrap();
        follower.look();
        assert_eq!(count(&current), Some(1));

        fs::write(file.path(), "version = ").unwrap();
        follower.look();
        assert_eq!(count(&current), Some(1), "a broken file changes nothing");

        fs::write(file.path(), "version = 1\n").unwrap();
        follower.look();
        assert_eq!(
            count(&current),
            Some(0),
            "revoking the last key opens nothing"
        );

        fs::write(file.path(), &one).unwrap();
        follower.look();
        fs::remove_file(file.path()).unwrap();
        follower.look();
        assert_eq!(count(&current), Some(0), "nor does removing the file");
    }
}
