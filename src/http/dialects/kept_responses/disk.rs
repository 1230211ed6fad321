//! Kept responses on disk: a folder a client and a file a response, which is there, whole, before its client is told that
//! it is kept. What is in memory is on disk; what memory has forgotten goes behind it, in the order in which it was
//! forgotten, because one thread does all of it.
//!
//! A disk that fails or does not answer costs the keeping of a response, never its answer.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::KeptResponse;
use super::file::{self, Kept};
use super::moment::Moment;
use crate::apart::{self, Subject};
use crate::aside::aside;
use crate::durable_write::{LockedFolder, Readers, make_folder};
use crate::generation::ClientKey;

/// In the state folder.
pub(super) const FOLDER: &str = "responses";
/// How long a client waits for the disk.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Responses that wait to be written. Each has a thread that waits with it.
const MOST_WAITING: usize = 64;

/// How far a write is.
const UNDER_WAY: u8 = 0;
const WRITTEN: u8 = 1;
/// Its client was told that it is not kept.
const GIVEN_UP: u8 = 2;

#[derive(Debug)]
pub(super) struct Disk {
    /// `None`: there is no state folder that this daemon may write to.
    root: Option<Arc<PathBuf>>,
    /// Longest time to write or delete one.
    pub limit: Duration,
    waiting: AtomicUsize,
    failures: AtomicU64,
    is_failing: AtomicBool,
}

impl Disk {
    pub fn new(state_folder: Option<&Path>) -> Self {
        Self {
            root: state_folder.map(|folder| Arc::new(folder.join(FOLDER))),
            limit: WRITE_LIMIT,
            waiting: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        }
    }

    /// How many could not be written.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Writes a response; what else this thread has to do goes on meanwhile. False: it is not on disk, and will not be.
    pub fn write(&self, client: &ClientKey, response: &Arc<KeptResponse>) -> bool {
        let written = self.try_write(client, response);
        match &written {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("responses are kept on disk again");
                }
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    let folder = self.root.as_ref().map(|root| root.display().to_string());
                    tracing::warn!(
                        folder,
                        %error,
                        "a response could not be kept on disk, which its client is told; no more is said until one is"
                    );
                }
            }
        }
        written.is_ok()
    }

    fn try_write(&self, client: &ClientKey, response: &Arc<KeptResponse>) -> io::Result<()> {
        let Some(root) = &self.root else {
            return Err(io::Error::other("there is no state folder to write to"));
        };
        let kept = Kept {
            client: client.name().to_owned(),
            is_a_key: client.is_a_key(),
            at: Moment::now(),
        };
        let _place = Place::take(&self.waiting)?;
        let state = Arc::new(AtomicU8::new(UNDER_WAY));
        let work = {
            let (root, response, state) =
                (Arc::clone(root), Arc::clone(response), Arc::clone(&state));
            move || {
                write_now(&root, &response, &kept)?;
                if !moves_on(&state, WRITTEN) {
                    remove_now(&root, &[(kept.client.into(), response.id.clone())]);
                }
                Ok(())
            }
        };
        let subject = Subject::KeptResponses(root.to_path_buf());
        // It is no large work, but it waits.
        let written = aside(usize::MAX, || {
            apart::ask_and_wait(subject, self.limit, work)
        });
        match written {
            Some(written) => written,
            None if moves_on(&state, GIVEN_UP) => Err(self.no_answer()),
            // It was through at the last moment.
            None => Ok(()),
        }
    }

    /// Lets go of files, some time later.
    pub fn forget(&self, gone: Vec<(Arc<str>, String)>) {
        let Some(root) = self.root.as_ref().filter(|_| !gone.is_empty()) else {
            return;
        };
        let subject = Subject::KeptResponses(root.to_path_buf());
        let root = Arc::clone(root);
        apart::begin(subject, move || remove_now(&root, &gone));
    }

    /// Removes a response for good.
    pub async fn delete(&self, client: &str, id: &str) -> io::Result<()> {
        let Some((root, name)) = self.root.as_ref().zip(file::file_name(id)) else {
            return Ok(());
        };
        let folder = root.join(file::folder_name(client));
        let subject = Subject::KeptResponses(root.to_path_buf());
        let removed = apart::ask(subject, self.limit, move || delete_now(&folder, &name)).await;
        removed.unwrap_or_else(|| Err(self.no_answer()))
    }

    fn no_answer(&self) -> io::Error {
        let limit = self.limit.as_secs();
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the disk has not answered within {limit} s"),
        )
    }
}

/// A response's among those that wait.
struct Place<'d>(&'d AtomicUsize);

impl<'d> Place<'d> {
    fn take(waiting: &'d AtomicUsize) -> io::Result<Self> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        match before < MOST_WAITING {
            true => Ok(place),
            false => Err(io::Error::other(format!(
                "{MOST_WAITING} others wait to be written"
            ))),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether it was still under way.
fn moves_on(state: &AtomicU8, to: u8) -> bool {
    let moved = state.compare_exchange(UNDER_WAY, to, Ordering::AcqRel, Ordering::Acquire);
    moved.is_ok()
}

fn write_now(root: &Path, response: &KeptResponse, kept: &Kept) -> io::Result<()> {
    let name = file::file_name(&response.id)
        .ok_or_else(|| io::Error::other("its id is not the daemon's"))?;
    let content = file::encode(response, kept).map_err(io::Error::other)?;
    make_folder(root)?;
    let folder = root.join(file::folder_name(&kept.client));
    make_folder(&folder)?;
    let written = LockedFolder::lock(&folder)
        .and_then(|locked| locked.replace(&name, &content, Readers::OwnerOnly));
    if written.is_err() {
        // What may be there under its name is not known to stay, and its client is told that it is not kept.
        let _ = fs::remove_file(folder.join(&name));
        let _ = fs::remove_dir(&folder);
    }
    written
}

fn delete_now(folder: &Path, name: &str) -> io::Result<()> {
    let removed = LockedFolder::lock(folder).and_then(|locked| locked.remove(name));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => {
            // As long as there are others in it, it stays.
            let _ = fs::remove_dir(folder);
            Ok(())
        }
    }
}

/// Of clients, by their names, the responses of these ids.
fn remove_now(root: &Path, gone: &[(Arc<str>, String)]) {
    let mut folders = HashSet::new();
    for (client, id) in gone {
        let folder = root.join(file::folder_name(client));
        let Some(name) = file::file_name(id) else {
            continue;
        };
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = path.display();
                tracing::warn!(%path, %error, "a response that is kept no more is still on disk");
            }
            _ => {
                folders.insert(folder);
            }
        }
    }
    for folder in folders {
        if fs::remove_dir(&folder).is_err() {
            // There are others in it.
            let _ = File::open(&folder).and_then(|folder| folder.sync_all());
        }
    }
}
