//! How long the daemon's side waits for what a worker does.

use std::time::Duration;

use crate::ipc::WorkerDeadlines;

const GIB: f64 = (1_u64 << 30) as f64;

/// The waits of the daemon's side of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunDeadlines {
    pub worker: WorkerDeadlines,
    /// A worker that is not heard of for this long is not even scheduled.
    pub heartbeat: Duration,
    /// How long a reader may hold its run up in all.
    pub slow_reader: Duration,
    pub prefix_file: FileDeadline,
}

/// How long a file of a conversation's prefix may take to be written or read.
#[derive(Clone, Copy, Debug)]
pub struct FileDeadline {
    pub base: Duration,
    pub per_gib: Duration,
}

impl FileDeadline {
    pub fn of(self, bytes: u64) -> Duration {
        let per_gib = self.per_gib.as_secs_f64();
        let for_bytes = Duration::try_from_secs_f64(per_gib * bytes as f64 / GIB);
        self.base.saturating_add(for_bytes.unwrap_or(Duration::MAX))
    }
}
