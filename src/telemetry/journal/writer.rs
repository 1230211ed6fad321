//! The thread that waits for the journal, so that nobody else does.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use super::entry;

/// Entries that may wait; at most some megabytes, for about a second of a very loud daemon.
const WAITING: usize = 1024;

enum Job {
    Write(Vec<u8>),
    /// Tell when everything before it has been written.
    Flush(SyncSender<()>),
}

/// Handle to the writing thread, which ends with the last one.
#[derive(Clone, Debug)]
pub struct JournalWriter {
    jobs: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

impl JournalWriter {
    /// Starts writing to the journal's socket at `path`.
    ///
    /// # Errors
    ///
    /// Nobody listens there, or the thread cannot be started.
    pub fn start(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // The journal ignores an empty entry; this only shows that there is somebody.
        UnixDatagram::unbound()?.connect(path)?;
        let (jobs, waiting) = mpsc::sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let (path, lost) = (path.to_owned(), Arc::clone(&dropped));
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write(&socket, path, &waiting, &lost))?;
        Ok(Self { jobs, dropped })
    }

    /// Hands an entry over, or drops it when the journal is too far behind. Never waits.
    pub(super) fn submit(&self, entry: Vec<u8>) {
        if self.jobs.try_send(Job::Write(entry)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything logged so far was written, but no longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        // With no room the journal takes nothing, and waiting would not help.
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }
}

fn write(socket: &UnixDatagram, path: PathBuf, jobs: &Receiver<Job>, dropped: &AtomicU64) {
    // By path each time: a journal that was restarted may listen on a new socket.
    let send = |entry: &[u8]| socket.send_to(entry, &path).is_ok();
    for job in jobs {
        match job {
            Job::Write(entry) => {
                if !send(&entry) {
                    dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 && !send(&entry::of_dropped(lost)) {
                    dropped.fetch_add(lost, Ordering::Relaxed);
                }
            }
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}
