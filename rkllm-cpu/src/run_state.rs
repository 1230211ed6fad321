//! Whether a handle runs, on which thread, whether that run is to end, and whether it was the last.
//! The four are one atomic word, so an abort either meets a run or does nothing: it can never be kept
//! for the next run. No run begins once the handle is closed.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

const IDLE: u64 = 0;
/// Taken for a thread that has not started yet; no thread has this id.
const STARTING: u64 = 1 << 62;
const ABORTED: u64 = 1 << 63;
/// The handle is being destroyed.
const CLOSED: u64 = 1 << 61;

#[derive(Debug, Default)]
pub(crate) struct RunState {
    /// The running thread's id, with `ABORTED` once its run is to end; `IDLE` otherwise. Either with
    /// `CLOSED`.
    word: AtomicU64,
    /// For who waits until a closed handle is idle.
    ended: (Mutex<()>, Condvar),
    /// Physical tokens in each sequence's KV cache, readable while a run goes on.
    kv_tokens: Vec<Arc<AtomicUsize>>,
    /// What the only sequence held at the token that the host is told just now, plus one; 0 between two
    /// tokens, and where nothing is computed ahead of the host.
    told: AtomicUsize,
    /// The thread that computes for this handle where that is another one; it is told of aborts.
    computes: OnceLock<Thread>,
}

/// Who a handle is running for, seen from the calling thread.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Occupation {
    Idle,
    /// The caller is inside the callback of this handle's run.
    OnThisThread,
    Elsewhere,
}

/// A run in progress; idle again when dropped.
pub(crate) struct Running(Arc<RunState>);

impl RunState {
    pub(crate) fn new(sequences: usize) -> RunState {
        RunState {
            kv_tokens: (0..sequences).map(|_| Arc::default()).collect(),
            ..RunState::default()
        }
    }

    /// Takes the handle for a run on this thread; none if it is taken already or closed.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Running> {
        self.take_for(thread_id())
    }

    /// Takes the handle for a run on a thread that is about to start, and will `adopt` it. It can
    /// be aborted, and is running, from now on.
    pub(crate) fn begin_elsewhere(self: &Arc<Self>) -> Option<Running> {
        self.take_for(STARTING)
    }

    fn take_for(self: &Arc<Self>, runner: u64) -> Option<Running> {
        let taken = self
            .word
            .compare_exchange(IDLE, runner, Ordering::SeqCst, Ordering::SeqCst);
        // Made only then: dropping one makes the handle idle.
        taken.is_ok().then(|| Running(Arc::clone(self)))
    }

    pub(crate) fn occupation(&self) -> Occupation {
        match self.word.load(Ordering::SeqCst) & !(ABORTED | CLOSED) {
            IDLE => Occupation::Idle,
            id if id == thread_id() => Occupation::OnThisThread,
            _ => Occupation::Elsewhere,
        }
    }

    pub(crate) fn request_abort(&self) {
        // An `Err` means that nothing is running, and so nothing is to be aborted.
        let requested = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                (word & !CLOSED != IDLE).then_some(word | ABORTED)
            });
        if requested.is_ok()
            && let Some(thread) = self.computes.get()
        {
            thread.unpark();
        }
    }

    /// `thread` computes for this handle, and is woken when a run is to end.
    pub(crate) fn is_computed_by(&self, thread: Thread) {
        // Said once, when the handle is made.
        let _ = self.computes.set(thread);
    }

    /// Lets no further run begin, and ends the one in progress.
    pub(crate) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::SeqCst);
        self.request_abort();
    }

    /// Of a closed handle, and not from its own run's callback.
    pub(crate) fn wait_until_idle(&self) {
        let (lock, ended) = &self.ended;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        // A poisoned lock guards nothing, so its error has the same meaning.
        let _idle = ended.wait_while(guard, |()| self.occupation() != Occupation::Idle);
    }

    pub(crate) fn abort_requested(&self) -> bool {
        self.word.load(Ordering::Relaxed) & ABORTED != 0
    }

    /// Where each sequence's tokens are counted.
    pub(crate) fn kv_counters(&self) -> &[Arc<AtomicUsize>] {
        &self.kv_tokens
    }

    /// Of each sequence.
    pub(crate) fn kv_tokens(&self) -> impl Iterator<Item = usize> {
        let told = self.told.load(Ordering::Relaxed).checked_sub(1);
        self.kv_tokens
            .iter()
            .map(move |held| told.unwrap_or_else(|| held.load(Ordering::Relaxed)))
    }

    /// The host is told a token at which the only sequence held so many, until this is dropped.
    pub(crate) fn tell(&self, held: usize) -> Telling<'_> {
        self.told.store(held + 1, Ordering::Relaxed);
        Telling(self)
    }
}

/// The host's callback runs.
pub(crate) struct Telling<'a>(&'a RunState);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.told.store(0, Ordering::Relaxed);
    }
}

impl Running {
    /// Makes the calling thread the one that runs. An abort that came before stays.
    pub(crate) fn adopt(&self) {
        let id = thread_id();
        // The closure never declines, so there is no error to lose.
        let _ = self
            .0
            .word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                Some(word & (ABORTED | CLOSED) | id)
            });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let before = self.0.word.fetch_and(CLOSED, Ordering::SeqCst);
        if before & CLOSED != 0 {
            let (lock, ended) = &self.0.ended;
            // A thread that is about to wait holds it until it waits, and so is not missed.
            drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
            ended.notify_all();
        }
    }
}

/// ggml's abort callback: asked once per graph node, also in prefill.
pub(crate) unsafe extern "C" fn should_abort(state: *mut c_void) -> bool {
    // SAFETY: the context is given a pointer to the runs that may end one decode, and they outlive it.
    let runs = unsafe { &*state.cast::<&[&RunState]>() };
    let abort = runs.iter().any(|run| run.abort_requested());
    if abort {
        crate::log::MutedEngineLog::mute();
    }
    abort
}

fn thread_id() -> u64 {
    // SAFETY: gettid has no preconditions.
    let id = unsafe { libc::gettid() };
    u64::from(id.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_while_idle_does_not_reach_the_next_run() {
        let state = Arc::new(RunState::default());
        state.request_abort();
        let running = state.begin();
        assert!(running.is_some() && !state.abort_requested());
        drop(running);
        assert_eq!(state.occupation(), Occupation::Idle);
    }

    #[test]
    fn the_host_sees_the_cells_of_the_token_it_is_told() {
        let state = RunState::new(1);
        state.kv_counters()[0].store(9, Ordering::Relaxed);
        let told = state.tell(0);
        assert_eq!(state.kv_tokens().collect::<Vec<_>>(), [0]);
        drop(told);
        assert_eq!(state.kv_tokens().collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn an_abort_ends_one_run_only() {
        let state = Arc::new(RunState::default());
        let running = state.begin();
        state.request_abort();
        assert!(state.abort_requested());
        assert_eq!(state.occupation(), Occupation::OnThisThread);
        drop(running);
        let _running = state.begin();
        assert!(!state.abort_requested());
    }

    #[test]
    fn a_handle_is_taken_once() {
        let state = Arc::new(RunState::default());
        let running = state.begin();
        assert!(running.is_some());
        assert!(state.begin().is_none() && state.begin_elsewhere().is_none());
        drop(running);
        assert!(state.begin().is_some());
    }

    #[test]
    fn an_abort_before_the_thread_has_started_is_kept() {
        let state = Arc::new(RunState::default());
        let Some(running) = state.begin_elsewhere() else {
            panic!("the handle is free");
        };
        assert_eq!(state.occupation(), Occupation::Elsewhere);
        state.request_abort();
        running.adopt();
        assert!(state.abort_requested());
        assert_eq!(state.occupation(), Occupation::OnThisThread);
    }

    #[test]
    fn another_thread_sees_the_run_as_elsewhere() {
        let state = Arc::new(RunState::default());
        let _running = state.begin();
        std::thread::scope(|scope| {
            let seen = scope.spawn(|| state.occupation()).join();
            assert_eq!(seen.ok(), Some(Occupation::Elsewhere));
        });
    }

    #[test]
    fn a_closed_handle_ends_its_run_and_begins_none() {
        let state = Arc::new(RunState::default());
        let running = state.begin();
        state.close();
        assert!(state.abort_requested());
        assert_eq!(state.occupation(), Occupation::OnThisThread);
        drop(running);
        assert_eq!(state.occupation(), Occupation::Idle);
        assert!(state.begin().is_none() && state.begin_elsewhere().is_none());
        state.wait_until_idle();
    }

    #[test]
    fn who_waits_for_the_last_run_is_woken_by_its_end() {
        let state = Arc::new(RunState::default());
        let Some(running) = state.begin_elsewhere() else {
            panic!("the handle is free");
        };
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                state.close();
                state.wait_until_idle();
                state.occupation()
            });
            while !state.abort_requested() {
                std::thread::yield_now();
            }
            drop(running);
            assert_eq!(waits.join().ok(), Some(Occupation::Idle));
        });
    }
}
