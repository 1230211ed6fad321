//! Keeps the keys of a running daemon equal to those of its file. A thread of its own looks at the file:
//! a disk that is busy with a model must not hold up the threads that serve tokens.
//!
//! Nothing that happens to the file opens a door. A file that appears locks, whatever is in it. A file
//! that goes leaves no key valid. A file that turns broken changes nothing until it is mended.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::{Keyring, KeysFile, KeysFileError};
use crate::apart::{self, Subject};

/// Time between two looks. A revoked key works no longer than that.
const INTERVAL: Duration = Duration::from_millis(500);
/// A disk or a server that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(5);
/// More than one tick of the kernel's clock for files. A file that changed within one tick before a
/// look may change again and look the same.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The keys that count now. Cheap to clone; reading them does not wait for the disk.
#[derive(Clone, Default)]
pub struct CurrentKeys {
    keys: watch::Sender<Option<Arc<Keyring>>>,
    trouble: watch::Sender<Option<Arc<str>>>,
}

impl CurrentKeys {
    /// Keys that never change.
    pub fn fixed(keyring: Option<Keyring>) -> Self {
        Self {
            keys: watch::Sender::new(keyring.map(Arc::new)),
            trouble: watch::Sender::default(),
        }
    }

    /// `None`: there never was a file of keys.
    pub fn get(&self) -> Option<Arc<Keyring>> {
        self.keys.borrow().clone()
    }

    /// Why the file of keys cannot be followed now, and what that means.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.borrow().clone()
    }

    /// Resolves when `condition` holds for the keys, at once if it does now.
    pub async fn wait_for(&self, mut condition: impl FnMut(Option<&Keyring>) -> bool) {
        let mut keys = self.keys.subscribe();
        // No error: the sender is here.
        let _ = keys.wait_for(|keys| condition(keys.as_deref())).await;
    }

    /// Tells the keys now and whenever they have changed, as long as there are any.
    pub async fn follow(&self, mut told: impl FnMut(&Keyring)) {
        let mut keys = self.keys.subscribe();
        loop {
            if let Some(keyring) = &*keys.borrow_and_update() {
                told(keyring);
            }
            // No error: the sender is here.
            if keys.changed().await.is_err() {
                return;
            }
        }
    }

    fn set(&self, keyring: Keyring) {
        self.keys.send_replace(Some(Arc::new(keyring)));
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
        let mut follower = Follower::new(file.clone(), CurrentKeys::default());
        match follower.seen_now()? {
            Seen::Unchanged => {}
            Seen::Changed { stamp, text } => {
                let text = text?;
                if let Some(text) = &text {
                    follower.current.set(file.parse(text)?);
                }
                follower.stamp = stamp;
                follower.text = text;
            }
        }
        let current = follower.current.clone();
        let (stop, stopped) = mpsc::channel();
        thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || follower.run(&stopped))
            .map_err(|source| file.unreadable(source))?;
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Whether a further change would change the stamp: the last change is some time ago, by the
    /// clock that is set now.
    fn is_settled(&self) -> bool {
        let Self::Present([.., seconds, _]) = self else {
            return true;
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        now.saturating_sub(*seconds) > SETTLED_AFTER.as_secs().cast_signed()
    }
}

/// What a look at the file found.
enum Seen {
    /// As it was when it was read.
    Unchanged,
    Changed {
        /// `None`: it may change again without another stamp.
        stamp: Option<Stamp>,
        text: Result<Option<String>, KeysFileError>,
    },
}

impl Seen {
    fn of(file: &KeysFile, known: Option<&Stamp>) -> Self {
        // The stamp comes first. A change between the two is then seen by the next look.
        let stamp = Stamp::of(file);
        if known == Some(&stamp) {
            return Self::Unchanged;
        }
        Self::Changed {
            text: file.read_text(),
            stamp: Some(stamp).filter(Stamp::is_settled),
        }
    }
}

struct Follower {
    /// Of the file that was read. `None`: it has to be read again.
    stamp: Option<Stamp>,
    /// What was in it.
    text: Option<String>,
    /// The trouble that was logged last. It is logged once.
    told: Option<String>,
    current: CurrentKeys,
    file: KeysFile,
}

impl Follower {
    fn new(file: KeysFile, current: CurrentKeys) -> Self {
        Self {
            stamp: None,
            text: None,
            told: None,
            current,
            file,
        }
    }

    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            self.look();
        }
    }

    /// Looks at the file. `Err`: it does not answer.
    fn seen_now(&self) -> Result<Seen, KeysFileError> {
        let (file, known) = (self.file.clone(), self.stamp.clone());
        let subject = Subject::Keys(self.file.path().to_owned());
        apart::ask_and_wait(subject, LIMIT, move || Seen::of(&file, known.as_ref())).ok_or_else(
            || {
                let limit = LIMIT.as_secs();
                let reason = format!("it does not answer within {limit} s");
                self.file
                    .unreadable(io::Error::new(io::ErrorKind::TimedOut, reason))
            },
        )
    }

    fn look(&mut self) {
        let (stamp, text) = match self.seen_now() {
            Ok(Seen::Unchanged) => return,
            Ok(Seen::Changed {
                stamp,
                text: Ok(text),
            }) => (stamp, text),
            // The reason (no descriptor left, say) may end by itself.
            Ok(Seen::Changed {
                text: Err(error), ..
            })
            | Err(error) => {
                self.stamp = None;
                return self.is_in_trouble(&error);
            }
        };
        // What is wrong in a file stays wrong until the file changes.
        self.stamp = stamp;
        if text == self.text && self.told.is_none() {
            return;
        }
        match self.take(text) {
            Ok(()) if self.told.take().is_some() => {
                self.current.trouble.send_replace(None);
            }
            Ok(()) => {}
            Err(error) => self.is_in_trouble(&error),
        }
    }

    /// From now on the keys are those of this text.
    fn take(&mut self, text: Option<String>) -> Result<(), KeysFileError> {
        let path = self.file.path().display();
        match &text {
            Some(text) => {
                let keyring = self.file.parse(text)?;
                let keys = keyring.keys().count();
                self.current.set(keyring);
                tracing::info!(file = %path, keys, "keys read");
            }
            None => {
                self.current.set(Keyring::default());
                tracing::warn!(file = %path, "the file of keys is gone; no key is valid now");
            }
        }
        self.text = text;
        Ok(())
    }

    fn is_in_trouble(&mut self, error: &KeysFileError) {
        let trouble = error.to_string();
        if self.told.as_ref() == Some(&trouble) {
            return;
        }
        let consequence = match self.current.get() {
            Some(keys) if !keys.is_empty() => "the keys that were read before stay valid",
            Some(_) => "no key is valid before it can be read",
            None => {
                self.current.set(Keyring::default());
                "no key is valid before it can be read"
            }
        };
        let told = format!("{trouble}; {consequence}");
        tracing::error!("{told}");
        self.current.trouble.send_replace(Some(told.into()));
        self.told = Some(trouble);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(current: &CurrentKeys) -> Option<usize> {
        current.get().map(|keyring| keyring.keys().count())
    }

    fn follower(file: &KeysFile, current: &CurrentKeys) -> Follower {
        let mut follower = Follower::new(file.clone(), current.clone());
        follower.stamp = Some(Stamp::of(file));
        follower
    }

    fn with_keys(names: &[&str]) -> String {
        let digest = "0".repeat(64);
        let keys = names.iter().map(|name| {
            format!("[[key]]\nname = '{name}'\nsha256 = '{digest}'\nrole = 'user'\ncreated = ''\n")
        });
        format!("version = 1\n{}", keys.collect::<String>())
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

        let one = with_keys(&["a"]);
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

    /// Whatever lies at the path, the keys that were read before stay, it is said, and what is then
    /// put there counts.
    #[test]
    fn whatever_lies_there_is_outlived() {
        use rustix::fs::{CWD, FileType, Mode};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let file = KeysFile::new(&path);
        let current = CurrentKeys::default();
        let mut follower = follower(&file, &current);
        let mend = |names: &[&str]| {
            let new = folder.path().join("new");
            fs::write(&new, with_keys(names)).unwrap();
            fs::rename(new, &path).unwrap();
        };
        mend(&["a", "b"]);
        follower.look();
        let lay: [(&str, &dyn Fn()); 6] = [
            ("a folder", &|| fs::create_dir(&path).unwrap()),
            ("a named pipe", &|| {
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
            }),
            ("cannot be read", &|| {
                std::os::unix::fs::symlink(&path, &path).unwrap();
            }),
            ("bytes", &|| {
                let file = fs::File::create(&path).unwrap();
                file.set_len(1 << 40).unwrap();
            }),
            ("UTF-8", &|| fs::write(&path, [0xff; 100]).unwrap()),
            ("keys.toml", &|| {
                fs::write(&path, "x".repeat(1 << 20)).unwrap();
            }),
        ];
        for (what, lay) in lay {
            fs::remove_file(&path).unwrap();
            lay();
            follower.look();
            follower.look();
            let trouble = current.trouble().expect(what);
            assert!(
                trouble.contains(what) && trouble.contains("stay valid") && trouble.len() < 1000,
                "{what}: {trouble}"
            );
            assert_eq!(count(&current), Some(2), "{what}");
            if path.is_dir() {
                fs::remove_dir(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            mend(&["b"]);
            follower.look();
            assert_eq!(count(&current), Some(1), "after {what}");
            assert_eq!(current.trouble(), None, "after {what}");
            mend(&["a", "b"]);
            follower.look();
        }
    }

    /// The clock of files ticks slowly, and inodes are used again.
    #[test]
    fn a_change_that_leaves_the_stamp_as_it_was_is_seen_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeysFile::new(folder.path().join("keys.toml"));
        fs::write(file.path(), with_keys(&["a"])).unwrap();
        let current = CurrentKeys::default();
        let mut follower = follower(&file, &current);
        for name in ["b", "c", "d"].repeat(50) {
            fs::write(file.path(), with_keys(&[name])).unwrap();
            follower.look();
            let keys = current.get().unwrap();
            let names: Vec<_> = keys.keys().map(|key| key.name.to_string()).collect();
            assert_eq!(names, [name]);
        }
    }
}
