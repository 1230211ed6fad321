//! A thread of this process that burns a core: a process that the one that is measured knows nothing of.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// One thread of this process never rests while `work` is done.
pub fn beside_a_neighbour<R>(work: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                spin_loop();
            }
        });
        // Also if the work panics: the scope waits for the thread.
        let _rest = Rest(&done);
        work()
    })
}

struct Rest<'a>(&'a AtomicBool);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
