//! A run's place in a batch, which the callback takes results in and the main thread may take it out of. Neither
//! waits for the other: a run that is taken out while the callback is at it is taken out behind that.

use std::sync::atomic::{AtomicU8, Ordering};

const FREE: u8 = 0;
/// The callback takes in a result of it.
const BUSY: u8 = 1;
const LEFT: u8 = 2;

#[derive(Debug, Default)]
pub struct Seat(AtomicU8);

impl Seat {
    /// Before a result is taken in. `false`: its run has left, and nothing is told of it any more.
    pub fn enter(&self) -> bool {
        self.0
            .compare_exchange(FREE, BUSY, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Behind it.
    pub fn exit(&self) {
        self.0.store(FREE, Ordering::SeqCst);
    }

    /// Takes the run out for good. `false`: not while the callback is at it.
    pub fn leave(&self) -> bool {
        let left = self
            .0
            .compare_exchange(FREE, LEFT, Ordering::SeqCst, Ordering::SeqCst);
        left.is_ok() || left == Err(LEFT)
    }

    pub fn has_left(&self) -> bool {
        self.0.load(Ordering::SeqCst) == LEFT
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    #[test]
    fn a_run_is_not_taken_out_while_a_result_is_taken_in() {
        let seat = Seat::default();
        assert!(seat.enter());
        assert!(!seat.leave() && !seat.has_left());
        seat.exit();
        assert!(seat.leave() && seat.has_left());
        assert!(!seat.enter(), "it has left for good");
        assert!(seat.leave(), "it may be told twice");
    }

    #[test]
    fn nothing_is_taken_in_once_a_run_has_left() {
        for _ in 0..500 {
            let (seat, taken) = (Arc::new(Seat::default()), Arc::new(AtomicU32::new(0)));
            let (at, count) = (Arc::clone(&seat), Arc::clone(&taken));
            let callback = thread::spawn(move || {
                while at.enter() {
                    count.fetch_add(1, Ordering::SeqCst);
                    at.exit();
                }
            });
            while !seat.leave() {
                std::hint::spin_loop();
            }
            let before = taken.load(Ordering::SeqCst);
            callback.join().expect("it ends");
            assert_eq!(taken.load(Ordering::SeqCst), before);
        }
    }
}
