//! The thread that waits for the log's reader, so that no other thread does. Entries go through a queue
//! that is bounded in number and in bytes, and what finds no room is dropped and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

/// Entries that may wait, for about a second of a very loud daemon.
const WAITING: usize = 1024;
/// Bytes that may wait.
const WAITING_BYTES: usize = 2 * 1024 * 1024;

/// Entries of this process that were lost.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many entries of this process were lost because they were not read.
pub fn log_entries_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Told when one more was.
static LOST: Notify = Notify::const_new();

/// Waits until an entry is lost that was not waited for before.
pub async fn log_entry_lost() {
    LOST.notified().await;
}

/// Where entries go.
pub(super) trait Destination: Send + 'static {
    /// The thread's name.
    const NAME: &'static str;

    /// Writes an entry whole; may wait.
    fn write(&mut self, entry: &[u8]) -> io::Result<()>;

    /// An entry that tells of others that were lost.
    fn of_dropped(&self, count: u64) -> Vec<u8>;
}

enum Job {
    Write(Vec<u8>),
    /// Tell when everything before it has been written.
    Flush(SyncSender<()>),
}

/// Handle to the writing thread, which ends with the last one.
#[derive(Clone, Debug)]
pub struct LogWriter {
    jobs: SyncSender<Job>,
    lost: Arc<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    /// Entries that were dropped and not told of.
    entries: AtomicU64,
    /// Bytes that wait.
    waiting_bytes: AtomicUsize,
}

impl LogWriter {
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(super) fn start<D: Destination>(destination: D) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel(WAITING);
        let lost = Arc::<Lost>::default();
        let shared = Arc::clone(&lost);
        thread::Builder::new()
            .name(D::NAME.to_owned())
            .spawn(move || write(destination, &waiting, &shared))?;
        Ok(Self { jobs, lost })
    }

    /// Hands an entry over, or drops it when its reader is too far behind. Never waits.
    pub(super) fn submit(&self, entry: Vec<u8>) {
        let bytes = entry.len();
        let waiting = self.lost.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > WAITING_BYTES || self.jobs.try_send(Job::Write(entry)).is_err() {
            self.lost.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.lost.one();
        }
    }

    /// Waits until everything logged so far was written, but no longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        // Without room there is no reader, and waiting would not help.
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }
}

impl Lost {
    fn one(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        DROPPED.fetch_add(1, Ordering::Relaxed);
        LOST.notify_one();
    }
}

fn write(mut destination: impl Destination, jobs: &Receiver<Job>, lost: &Lost) {
    for job in jobs {
        match job {
            Job::Write(entry) => {
                let written = destination.write(&entry);
                lost.waiting_bytes.fetch_sub(entry.len(), Ordering::Relaxed);
                if written.is_err() {
                    lost.one();
                    continue;
                }
                let count = lost.entries.swap(0, Ordering::Relaxed);
                if count > 0 && destination.write(&destination.of_dropped(count)).is_err() {
                    lost.entries.fetch_add(count, Ordering::Relaxed);
                }
            }
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Blocked {
        gate: Arc<Mutex<()>>,
        written: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl Destination for Blocked {
        const NAME: &'static str = "blocked";

        fn write(&mut self, entry: &[u8]) -> io::Result<()> {
            let _open = self.gate.lock().unwrap();
            self.written.lock().unwrap().push(entry.to_vec());
            Ok(())
        }

        fn of_dropped(&self, count: u64) -> Vec<u8> {
            format!("dropped {count}").into_bytes()
        }
    }

    #[test]
    fn what_is_not_read_is_dropped_counted_and_told_of() {
        let destination = Blocked::default();
        let shut = destination.gate.lock().unwrap();
        let writer = LogWriter::start(destination.clone()).unwrap();
        let entry = vec![b'x'; 64 * 1024];
        for _ in 0..100 {
            writer.submit(entry.clone());
        }
        for _ in 0..2 * WAITING {
            writer.submit(Vec::new());
        }
        let mut submitted = 100 + 2 * WAITING as u64;
        drop(shut);
        // Its queue has room again once it has written something.
        let is_written = || {
            let written = destination.written.lock().unwrap();
            written.iter().any(|it| it == b"later")
        };
        while !is_written() {
            writer.submit(b"later".to_vec());
            submitted += 1;
            writer.flush(Duration::from_secs(60));
        }
        writer.flush(Duration::from_secs(60));
        // Whatever was dropped meanwhile is told of behind the next one that is written.
        writer.submit(b"last".to_vec());
        submitted += 1;
        writer.flush(Duration::from_secs(60));
        let written = destination.written.lock().unwrap();
        let kept = written.iter().filter(|it| **it == entry).count();
        assert!(kept <= WAITING_BYTES / entry.len() && kept > 0, "{kept}");
        let told: u64 = written
            .iter()
            .filter_map(|it| {
                std::str::from_utf8(it)
                    .ok()?
                    .strip_prefix("dropped ")?
                    .parse::<u64>()
                    .ok()
            })
            .sum();
        let entries = written
            .iter()
            .filter(|it| !it.starts_with(b"dropped"))
            .count() as u64;
        assert_eq!(told + entries, submitted);
        assert!(log_entries_dropped() >= told);
    }
}
