//! Readers that have nothing to do: kept for their model's next request, until they were idle for long
//! or their place is needed.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::busy::Busy;
use super::{Shared, lock};
use crate::children::Child;
use crate::ipc::{ModelLocation, ReaderWork};
use crate::reader::ReaderKind;

#[derive(Debug, Default)]
pub(super) struct Idle {
    pub readers: Vec<Reader>,
    /// Those of older ones do not come back: files may have changed since.
    pub generation: u64,
}

/// A reader whose model is open.
#[derive(Debug)]
pub(super) struct Reader {
    pub child: Child<ReaderKind>,
    pub location: ModelLocation,
    pub work: ReaderWork,
    pub generation: u64,
    pub idle_since: Instant,
}

impl Shared {
    pub(super) fn idle(&self) -> MutexGuard<'_, Idle> {
        lock(&self.idle)
    }

    /// Keeps a reader that has answered for the next request.
    pub(super) fn give_back(&self, mut reader: Reader, mut busy: Busy) {
        reader.idle_since = Instant::now();
        let mut idle = self.idle();
        if reader.generation != idle.generation {
            return;
        }
        idle.readers.push(reader);
        drop(idle);
        // The place is another's; the process stays.
        busy.process = None;
    }

    pub(super) fn end_idle(&self, after: Duration) {
        let now = Instant::now();
        let is_kept = |reader: &Reader| now.saturating_duration_since(reader.idle_since) < after;
        // Dropping them ends them.
        self.idle().readers.retain(is_kept);
    }

    pub(super) fn take_idle(&self, location: &ModelLocation, work: ReaderWork) -> Option<Reader> {
        let mut idle = self.idle();
        let position = idle
            .readers
            .iter()
            .rposition(|reader| reader.location == *location && reader.work == work)?;
        Some(idle.readers.remove(position))
    }

    /// The idle reader that was longest without work, where all together are too many with the one
    /// that is about to start.
    pub(super) fn take_superfluous(&self) -> Option<Reader> {
        let busy = self.places.taken();
        let mut idle = self.idle();
        let is_full = busy + idle.readers.len() > self.most;
        (is_full && !idle.readers.is_empty()).then(|| idle.readers.remove(0))
    }
}
