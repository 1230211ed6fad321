//! How many more events of a run the daemon has room for. The callback that has none waits here, and
//! with it its own run only.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Debug)]
pub struct Credit {
    left: AtomicU32,
    /// Held while it is looked whether there is some again, so that no gift falls in between.
    waiting: Mutex<()>,
    given: Condvar,
}

impl Credit {
    pub fn new(events: u32) -> Self {
        Self {
            left: AtomicU32::new(events),
            waiting: Mutex::default(),
            given: Condvar::new(),
        }
    }

    /// Takes one. `false`: there is none.
    pub fn try_take(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.is_ok()
    }

    /// Waits for one and takes it.
    pub fn take(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.try_take() {
            waiting = self
                .given
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn give(&self, events: u32) {
        let more = |left: u32| Some(left.saturating_add(events));
        // The closure always gives a value.
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        drop(self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.given.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn who_has_none_goes_on_when_some_is_given() {
        let credit = Arc::new(Credit::new(1));
        let (taken, told) = channel();
        let taker = Arc::clone(&credit);
        let thread = thread::spawn(move || {
            for nth in 1..=3 {
                taker.take();
                taken.send(nth).unwrap();
            }
        });
        assert_eq!(told.recv(), Ok(1));
        assert!(!credit.try_take());
        credit.give(2);
        assert_eq!([told.recv(), told.recv()], [Ok(2), Ok(3)]);
        thread.join().unwrap();
        assert!(!credit.try_take());
    }
}
