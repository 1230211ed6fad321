//! Places of readers at work.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::fair_places::{Place, caller};
use super::{Readers, Shared};
use crate::children::{ChildProcess, EndReason};
use crate::generation::Deadline;
use crate::reader::ReaderError;

/// Holds a place while a reader works, and until it is gone where it does not come back.
pub(super) struct Busy {
    pub place: Option<Place>,
    pub process: Option<ChildProcess>,
    kill: Duration,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let (Some(place), Some(process)) = (self.place.take(), self.process.take()) {
            process.kill(EndReason::Cancelled);
            let wait = self.kill;
            tokio::spawn(async move {
                let _ = timeout(wait, process.exited()).await;
                drop(place);
            });
        }
    }
}

/// Counted while it waits.
pub(super) struct Newcomer<'a>(&'a watch::Sender<usize>);

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Shared {
    pub(super) fn newcomer(&self) -> Newcomer<'_> {
        self.newcomers.send_modify(|waiting| *waiting += 1);
        Newcomer(&self.newcomers)
    }
}

impl Readers {
    /// Waits for one of the places that are for what is not trusted.
    pub(super) async fn untrusted_turn(&self, wait: Duration) -> Result<Place, ReaderError> {
        match timeout(wait, self.shared.untrusted.acquire(caller())).await {
            Ok(Some(place)) => Ok(place),
            _ => Err(ReaderError::Busy { waited: wait }),
        }
    }

    pub(super) async fn busy(&self, wait: Duration) -> Result<Busy, ReaderError> {
        let limits = self.shared.limits();
        match timeout(wait, self.shared.places.acquire(caller())).await {
            Ok(Some(place)) => Ok(Busy {
                place: Some(place),
                process: None,
                kill: limits.kill,
            }),
            _ => {
                self.shared.metrics.deadline_passed(Deadline::ReaderCall);
                Err(ReaderError::Busy { waited: wait })
            }
        }
    }
}
