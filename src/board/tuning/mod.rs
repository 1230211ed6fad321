//! `rkllmd tune`: keeps CPU, NPU and memory at full speed by their governors, and puts the former ones back.
//!
//! What a governor was is written down before it is changed, and stays written down until it is back, whatever
//! ends the program. Either all governors that can be changed are, or none is. A governor that was changed since
//! by another hand is left as it is. The daemon has no right to any of this and calls nothing of it.

mod governors;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use thiserror::Error;

use crate::board::Sysroot;
use crate::durable_write::{LockedFolder, Readers};
use crate::regular_file;

use governors::{Decision, Governors, Known, WANTED, decide};

/// Where the former governors are written down: root's alone, until the next start of the machine.
const FOLDER: &str = "/run/rkllmd-tune";
const STATE: &str = "governors.json";
const MOST_BYTES: u64 = 256 * 1024;

#[derive(Debug, Error)]
pub enum TuningError {
    #[error("{}: the former governors cannot be written down: {source}", path.display())]
    NotWritten { path: PathBuf, source: io::Error },
    #[error("{}: the former governors cannot be read: {source}; remove it to forget them", path.display())]
    NotRead { path: PathBuf, source: io::Error },
}

/// What was done, a line for each governor.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tuned {
    pub lines: Vec<String>,
    /// Whether a governor is not as it was to be.
    pub is_failed: bool,
}

impl Tuned {
    fn tell(&mut self, of: &Known, what: &str) {
        self.lines.push(format!("{}: {what}", of.name));
    }

    fn fail(&mut self, of: &Known, what: &str) {
        self.is_failed = true;
        self.tell(of, what);
    }
}

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Make,
    /// Only told.
    Tell,
}

pub struct Tuning {
    governors: Governors,
    folder: PathBuf,
    change: Change,
}

impl Tuning {
    pub fn new(sysroot: &Sysroot, change: Change) -> Self {
        Self {
            governors: Governors::of(sysroot),
            folder: sysroot.path(FOLDER),
            change,
        }
    }

    /// Gives every governor that can be the one that does not wait for load.
    ///
    /// # Errors
    ///
    /// What the governors are cannot be written down, so none was changed.
    pub fn tune(&self) -> Result<Tuned, TuningError> {
        let mut tuned = Tuned::default();
        let mut to_change = Vec::new();
        let listed = self.governors.list();
        tuned.lines.extend(listed.unread);
        for (known, available) in listed.known {
            match decide(&known.governor, available.as_deref()) {
                Decision::Keep(why) => tuned.tell(&known, &format!("{}, {why}", known.governor)),
                Decision::Set if self.change == Change::Tell => {
                    tuned.tell(&known, &format!("{} would become {WANTED}", known.governor));
                }
                Decision::Set => to_change.push(known),
            }
        }
        if to_change.is_empty() {
            if tuned.lines.is_empty() {
                tuned.lines.push("no governor can be set here".to_owned());
            }
            return Ok(tuned);
        }
        self.make(&to_change, &mut tuned)?;
        Ok(tuned)
    }

    fn make(&self, to_change: &[Known], tuned: &mut Tuned) -> Result<(), TuningError> {
        let folder = self.lock()?;
        let before = self.remembered()?;
        // What was there before this program's first change is what is put back in the end.
        let is_new = |known: &&Known| !before.iter().any(|former| former.is_same_as(known));
        let mut all = before.clone();
        all.extend(to_change.iter().filter(is_new).cloned());
        self.remember(&folder, &all)?;
        for (nth, known) in to_change.iter().enumerate() {
            let Err(error) = self.governors.set(known, WANTED) else {
                continue;
            };
            tuned.fail(known, &format!("{} stays: {error}", known.governor));
            let mut left = before;
            for changed in to_change[..nth].iter().rev() {
                match self.governors.set(changed, &changed.governor) {
                    Ok(()) => tuned.tell(changed, &format!("{} again", changed.governor)),
                    Err(error) => {
                        tuned.fail(changed, &format!("{WANTED}, cannot be put back: {error}"));
                        if !left.iter().any(|former| former.is_same_as(changed)) {
                            left.push(changed.clone());
                        }
                    }
                }
            }
            return self.remember(&folder, &left);
        }
        for known in to_change {
            tuned.tell(known, &format!("{WANTED}, was {}", known.governor));
        }
        Ok(())
    }

    /// Puts back what [`Tuning::tune`] changed.
    ///
    /// # Errors
    ///
    /// What the governors were cannot be read, so none was changed.
    pub fn restore(&self) -> Result<Tuned, TuningError> {
        let mut tuned = Tuned::default();
        if self.change == Change::Tell {
            for former in self.remembered()? {
                tuned.tell(&former, &format!("would become {}", former.governor));
            }
            return Ok(tuned);
        }
        // None was ever changed, and there is nothing to lock.
        if !self.folder.is_dir() {
            return Ok(tuned);
        }
        let folder = self.lock()?;
        let mut left = Vec::new();
        for former in self.remembered()? {
            let now = self.governors.now(&former);
            let put_back = match now.as_deref() {
                Ok(WANTED) => self.governors.set(&former, &former.governor),
                Ok(other) => {
                    tuned.tell(&former, &format!("{other}, set by another hand"));
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tuned.tell(&former, "is not there any more");
                    continue;
                }
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            match put_back {
                Ok(()) => tuned.tell(&former, &format!("{} again", former.governor)),
                Err(error) => {
                    tuned.fail(&former, &format!("cannot be put back: {error}"));
                    left.push(former);
                }
            }
        }
        self.remember(&folder, &left)?;
        Ok(tuned)
    }

    fn lock(&self) -> Result<LockedFolder, TuningError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&self.folder)
            .and_then(|()| LockedFolder::lock(&self.folder))
            .map_err(|source| self.not_written(source))
    }

    fn not_written(&self, source: io::Error) -> TuningError {
        TuningError::NotWritten {
            path: self.folder.join(STATE),
            source,
        }
    }

    fn remembered(&self) -> Result<Vec<Known>, TuningError> {
        let path = self.folder.join(STATE);
        let read = match regular_file::read_text(&path, MOST_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read,
        };
        let parsed = read.and_then(|text| {
            let known: Vec<Known> = serde_json::from_str(&text)?;
            if known.iter().all(Known::is_a_name) {
                Ok(known)
            } else {
                Err(io::Error::other("it names what is no governor"))
            }
        });
        parsed.map_err(|source| TuningError::NotRead { path, source })
    }

    fn remember(&self, folder: &LockedFolder, known: &[Known]) -> Result<(), TuningError> {
        let written = if !known.is_empty() {
            serde_json::to_vec(known)
                .map_err(io::Error::from)
                .and_then(|json| folder.replace(STATE, &json, Readers::OwnerOnly))
        } else {
            match folder.remove(STATE) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        };
        written.map_err(|source| self.not_written(source))
    }
}

#[cfg(test)]
mod tests;
