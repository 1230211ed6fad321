//! Returns what a burst freed to the kernel, from a thread of its own, so that no token waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use super::allocator;

/// So much must have been freed since the last time.
const BURST_BYTES: u64 = 1024 * 1024;
/// From the last of it to the trimming, so that a burst is trimmed once and not request by request.
const QUIET: Duration = Duration::from_secs(1);
/// A burst without an end is trimmed so often.
const MOST_DELAYS: u32 = 4;

/// Handle to the thread, which ends with it.
pub(super) struct Trimmer {
    freed: AtomicU64,
    /// `None`: there is no thread; memory then goes back when the allocator sees fit.
    wake: Option<SyncSender<()>>,
}

impl Trimmer {
    pub fn start() -> Self {
        let (wake, woken) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("trim".to_owned())
            .spawn(move || trim_after_bursts(&woken));
        let wake = thread
            .inspect_err(|error| tracing::warn!(%error, "freed memory is returned late"))
            .map(|_| wake)
            .ok();
        Self {
            freed: AtomicU64::new(0),
            wake,
        }
    }

    /// Never waits.
    pub fn freed(&self, bytes: u64) {
        let freed = self.freed.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if freed >= BURST_BYTES {
            self.freed.store(0, Ordering::Relaxed);
            if let Some(wake) = &self.wake {
                // Full: it is woken already.
                let _ = wake.try_send(());
            }
        }
    }
}

fn trim_after_bursts(woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        for _ in 0..MOST_DELAYS {
            if woken.recv_timeout(QUIET).is_err() {
                break;
            }
        }
        allocator::trim();
    }
}
