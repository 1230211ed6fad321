//! One look at the file of keys: whether it has changed, and what it says.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use crate::auth::{KeysFile, KeysFileError};

/// More than one tick of the kernel's clock for files. A file that changed within one tick before a
/// look may change again and look the same.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Tells one state of the file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    Absent,
    /// Inode, size, and the times of the last change of content and inode.
    Present([i64; 6]),
    /// The folder cannot be searched, for example.
    Unknown(io::ErrorKind),
}

impl Stamp {
    pub fn of(file: &KeysFile) -> Self {
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
pub(super) enum Seen {
    /// As it was when it was read.
    Unchanged,
    Changed {
        /// `None`: it may change again without another stamp.
        stamp: Option<Stamp>,
        text: Result<Option<String>, KeysFileError>,
    },
}

impl Seen {
    pub fn of(file: &KeysFile, known: Option<&Stamp>) -> Self {
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
