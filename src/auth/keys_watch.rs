//! Keeps the keys of a running daemon equal to those of its file. A thread of its own looks at the file:
//! a disk that is busy with a model must not hold up the threads that serve tokens.
//!
//! Nothing that happens to the file opens a door. A file that appears locks, whatever is in it. A file
//! that goes leaves no key valid. A file that turns broken changes nothing until it is mended.

mod look;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::current_keys::Order;
use super::{CurrentKeys, Keyring, KeysFile, KeysFileError};
use crate::apart::{self, Subject};
use look::{Seen, Stamp};

/// Time between two looks. A revoked key works no longer than that.
const INTERVAL: Duration = Duration::from_millis(500);
/// A disk or a server that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(5);

/// Watches a file until it is dropped.
pub struct KeysWatch {
    current: CurrentKeys,
    orders: mpsc::Sender<Order>,
}

impl Drop for KeysWatch {
    fn drop(&mut self) {
        // Without a thread there is none to end.
        let _ = self.orders.send(Order::End);
    }
}

impl KeysWatch {
    /// Reads the file and follows it from now on.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be used, or no thread can be started.
    pub fn start(file: KeysFile) -> Result<Self, KeysFileError> {
        let (orders, ordered) = mpsc::channel();
        let current = CurrentKeys::followed(orders.clone());
        let mut follower = Follower::new(file.clone(), current);
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
        thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || follower.run(&ordered))
            .map_err(|source| file.unreadable(source))?;
        Ok(Self { current, orders })
    }

    pub fn current(&self) -> CurrentKeys {
        self.current.clone()
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

    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        while let Ok(Order::Look) | Err(RecvTimeoutError::Timeout) = orders.recv_timeout(INTERVAL) {
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
