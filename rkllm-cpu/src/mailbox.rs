//! From the scheduler to a run's own thread, which calls the host back: a queue with a bound. The
//! scheduler never waits for it; it leaves a run out of its steps while the run's mailbox is full, and is
//! woken when there is room again, and when a mailbox that was full is empty.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use crate::generation::{Drawn, Generation, Outcome};
use crate::logprobs::TokenLogprobs;
use crate::prompt_file::SavedPrompt;

/// Tokens that a run may be ahead of its host.
pub(crate) const CAPACITY: usize = 8;

pub(crate) enum Letter {
    /// How likely tokens of the prompt were.
    OfPrompt(Vec<TokenLogprobs>),
    Drawn(Drawn),
    Save(SavedPrompt),
    /// The last one: the run is over for the scheduler.
    Back(Box<Generation>, Outcome),
}

#[derive(Default)]
struct Mailbox {
    letters: Mutex<Letters>,
    came: Condvar,
    pause: AtomicBool,
}

#[derive(Default)]
struct Letters {
    queue: VecDeque<Letter>,
    /// It was full, and has not been empty since.
    was_full: bool,
    /// No further one comes.
    closed: bool,
}

/// The scheduler's end.
pub(crate) struct Teller(Arc<Mailbox>);

/// The run's end.
pub(crate) struct Listener {
    mailbox: Arc<Mailbox>,
    scheduler: Thread,
}

pub(crate) fn open(scheduler: Thread) -> (Teller, Listener) {
    let mailbox = Arc::<Mailbox>::default();
    let listener = Listener {
        mailbox: Arc::clone(&mailbox),
        scheduler,
    };
    (Teller(mailbox), listener)
}

impl Teller {
    pub(crate) fn has_room(&self) -> bool {
        self.0.lock().queue.len() < CAPACITY
    }

    /// The host has been told all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().queue.is_empty()
    }

    pub(crate) fn put(&self, letter: Letter) {
        let mut letters = self.0.lock();
        letters.queue.push_back(letter);
        letters.was_full |= letters.queue.len() >= CAPACITY;
        drop(letters);
        self.0.came.notify_one();
    }

    /// The host has answered that the run is to pause.
    pub(crate) fn pause_requested(&self) -> bool {
        self.0.pause.load(Ordering::SeqCst)
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.came.notify_one();
    }
}

impl Listener {
    /// Waits for the next letter. None: the scheduler has died.
    pub(crate) fn take(&self) -> Option<Letter> {
        let letters = self.mailbox.lock();
        let waiting = |letters: &mut Letters| letters.queue.is_empty() && !letters.closed;
        let waited = self.mailbox.came.wait_while(letters, waiting);
        let mut letters = waited.unwrap_or_else(PoisonError::into_inner);
        let has_room_now = letters.queue.len() == CAPACITY;
        let letter = letters.queue.pop_front();
        let is_empty_now = letters.was_full && letters.queue.is_empty();
        letters.was_full &= !is_empty_now;
        drop(letters);
        if has_room_now || is_empty_now {
            self.scheduler.unpark();
        }
        letter
    }

    /// Takes the run out of the steps that have not begun.
    pub(crate) fn ask_for_pause(&self) {
        self.mailbox.pause.store(true, Ordering::SeqCst);
        self.scheduler.unpark();
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        // Nothing panics while it is held.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounding::Origins;
    use std::path::PathBuf;

    fn letter(number: u64) -> Letter {
        Letter::Save(SavedPrompt {
            path: PathBuf::new(),
            model: number,
            adapter: 0,
            tokens: Vec::new(),
            origins: Origins::default(),
            state: Vec::new(),
        })
    }

    fn number(letter: Option<Letter>) -> Option<u64> {
        match letter {
            Some(Letter::Save(prompt)) => Some(prompt.model),
            _ => None,
        }
    }

    #[test]
    fn letters_come_in_order_and_a_full_mailbox_says_so() {
        let (teller, listener) = open(std::thread::current());
        for at in 0..CAPACITY as u64 {
            assert!(teller.has_room());
            teller.put(letter(at));
        }
        assert!(!teller.has_room());
        assert_eq!(number(listener.take()), Some(0));
        assert!(teller.has_room());
        assert_eq!(number(listener.take()), Some(1));
    }

    #[test]
    fn a_scheduler_that_waits_for_room_is_woken() {
        let (teller, listener) = open(std::thread::current());
        for at in 0..CAPACITY as u64 {
            teller.put(letter(at));
        }
        let taker = std::thread::spawn(move || number(listener.take()));
        while !teller.has_room() {
            std::thread::park();
        }
        assert_eq!(taker.join().ok(), Some(Some(0)));
    }

    #[test]
    fn a_scheduler_that_waits_until_all_is_told_is_woken() {
        let (teller, listener) = open(std::thread::current());
        for at in 0..CAPACITY as u64 {
            teller.put(letter(at));
        }
        let taker = std::thread::spawn(move || {
            (0..CAPACITY)
                .filter_map(|_| number(listener.take()))
                .count()
        });
        while !teller.is_empty() {
            std::thread::park();
        }
        assert_eq!(taker.join().ok(), Some(CAPACITY));
    }

    #[test]
    fn a_listener_learns_that_the_scheduler_is_gone() {
        let (teller, listener) = open(std::thread::current());
        let waiting =
            std::thread::spawn(move || (number(listener.take()), listener.take().is_none()));
        teller.put(letter(5));
        drop(teller);
        assert_eq!(waiting.join().ok(), Some((Some(5), true)));
    }

    #[test]
    fn a_pause_is_seen() {
        let (teller, listener) = open(std::thread::current());
        assert!(!teller.pause_requested());
        listener.ask_for_pause();
        assert!(teller.pause_requested());
    }
}
