//! The places of [`Places`] as something that listeners and connections share. A seat is given back by
//! being dropped; whose seat is given to another is told, and closes by itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::http::transport::places::{Admission, Places, Seat};

pub(in crate::http) struct Seats {
    shared: Mutex<Shared>,
    /// Told when a connection ends or becomes idle.
    changed: Notify,
}

struct Shared {
    places: Places,
    open: HashMap<Seat, Arc<Notify>>,
}

/// A connection's place.
pub(in crate::http) struct HeldSeat {
    seat: Seat,
    seats: Arc<Seats>,
    wanted: Arc<Notify>,
    is_busy: AtomicBool,
}

impl Seats {
    /// `share`: of one address.
    pub fn new(all: usize, share: usize) -> Arc<Self> {
        Arc::new(Self {
            shared: Mutex::new(Shared {
                places: Places::new(all, share),
                open: HashMap::new(),
            }),
            changed: Notify::new(),
        })
    }

    /// Waits for a place; `None`: the address has its share. Dropping the future takes none.
    pub async fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<HeldSeat> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let admission = self.lock().admit(address);
            match admission {
                Admission::Seated(seat) | Admission::InPlaceOf { seat, .. } => {
                    return Some(self.held(seat));
                }
                Admission::Refused => return None,
                Admission::Full => changed.await,
            }
        }
    }

    fn held(self: &Arc<Self>, seat: Seat) -> HeldSeat {
        let wanted = Arc::<Notify>::default();
        self.lock().open.insert(seat, Arc::clone(&wanted));
        HeldSeat {
            seat,
            seats: Arc::clone(self),
            wanted,
            is_busy: AtomicBool::new(false),
        }
    }

    /// Held for a few instructions, or a look at each place where none is free.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn admit(&mut self, address: Option<IpAddr>) -> Admission {
        let admission = self.places.admit(address);
        if let Admission::InPlaceOf { closed, .. } = admission
            && let Some(wanted) = self.open.get(&closed)
        {
            wanted.notify_one();
        }
        admission
    }
}

impl HeldSeat {
    /// Says whether the connection is serving a request.
    pub fn is_busy(&self, busy: bool) {
        if self.is_busy.swap(busy, Ordering::Relaxed) == busy {
            return;
        }
        let mut shared = self.seats.lock();
        if busy {
            shared.places.is_busy(self.seat);
        } else {
            shared.places.is_idle(self.seat);
            drop(shared);
            self.seats.changed.notify_waiters();
        }
    }

    /// Resolves when the place was given to another connection, once.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

impl Drop for HeldSeat {
    fn drop(&mut self) {
        let mut shared = self.seats.lock();
        shared.places.leave(self.seat);
        shared.open.remove(&self.seat);
        drop(shared);
        self.seats.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_the_place_of_the_first_that_is_idle() {
        let seats = Seats::new(1, 1);
        let first = seats.admit(None).await.expect("a place");
        first.is_busy(true);
        let (second, ()) = tokio::join!(seats.admit(None), async {
            tokio::task::yield_now().await;
            first.is_busy(false);
            first.wanted().await;
        });
        let second = second.expect("the first one's place");
        second.is_busy(true);
        // It is not the first one's any more.
        drop(first);
        let waiting = seats.admit(None);
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), waiting);
        assert!(waiting.await.is_err(), "the second is busy");
        drop(second);
        assert!(seats.admit(None).await.is_some());
    }
}
