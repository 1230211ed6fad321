//! What a library takes while it writes or reads a prefix: the whole file, and what it makes of it. A save or
//! load that there is no memory for is not made.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Swap;
use crate::memory::machine;
use crate::supervisor::prefixes::Inner;
use crate::supervisor::worker::Worker;

/// A library holds a file so many times.
const COPIES: u64 = 2;

/// What is taken; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    prefixes: Arc<Inner>,
    bytes: u64,
}

impl Taken {
    /// Returns with it what all take that are under way.
    fn new(prefixes: &Arc<Inner>, file_bytes: u64) -> (Self, u64) {
        let bytes = file_bytes.saturating_mul(COPIES);
        let before = prefixes.in_use.fetch_add(bytes, Ordering::Relaxed);
        let this = Self {
            prefixes: Arc::clone(prefixes),
            bytes,
        };
        (this, before.saturating_add(bytes))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.prefixes
            .in_use
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Swap<'_> {
    /// Takes what a file of so many bytes needs. `None`: its worker would have more than it may, or the machine
    /// has not so much left.
    pub(super) async fn memory_for(
        &self,
        prefixes: &Arc<Inner>,
        worker: &Worker,
        file_bytes: u64,
    ) -> Option<Taken> {
        let (taken, wanted) = Taken::new(prefixes, file_bytes);
        let held = worker.process.measure().await;
        let held = held.map_or(0, |memory| memory.total_bytes());
        let left = machine::available().await;
        let limit = self.supervisor.worker_memory_limit();
        has_room((held, limit), left, wanted).then_some(taken)
    }
}

/// `None`: not known, so that it is no limit.
fn has_room((held, limit): (u64, Option<u64>), left: Option<u64>, wanted: u64) -> bool {
    limit.is_none_or(|limit| held.saturating_add(wanted) <= limit)
        && left.is_none_or(|left| wanted <= left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_room_where_worker_and_machine_have_it() {
        assert!(has_room((60, Some(100)), Some(40), 40));
        assert!(!has_room((61, Some(100)), Some(40), 40));
        assert!(!has_room((60, Some(100)), Some(39), 40));
        assert!(!has_room((u64::MAX, Some(100)), None, u64::MAX));
        assert!(has_room((60, None), None, u64::MAX));
    }
}
