//! Whether a handle runs, on which thread, and whether that run is to end. The three are one atomic
//! word, so an abort either meets a run or does nothing: it can never be kept for the next run.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

const IDLE: u64 = 0;
/// Taken for a thread that has not started yet; no thread has this id.
const STARTING: u64 = 1 << 62;
const ABORTED: u64 = 1 << 63;

#[derive(Debug, Default)]
pub(crate) struct RunState {
    /// The running thread's id, with `ABORTED` once its run is to end; `IDLE` otherwise.
    word: AtomicU64,
    /// Physical tokens in each sequence's KV cache, readable while a run goes on.
    kv_tokens: Vec<AtomicUsize>,
    /// The engine is at work that must not be torn in half (shifting the cache).
    indivisible: AtomicBool,
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
pub(crate) struct Running<'a>(&'a RunState);

impl RunState {
    pub(crate) fn new(sequences: usize) -> RunState {
        RunState {
            kv_tokens: (0..sequences).map(|_| AtomicUsize::new(0)).collect(),
            ..RunState::default()
        }
    }

    /// Takes the handle for a run on this thread; none if it is taken already.
    pub(crate) fn begin(&self) -> Option<Running<'_>> {
        self.take_for(thread_id())
    }

    /// Takes the handle for a run on a thread that is about to start, and will `adopt` it. It can
    /// be aborted, and is running, from now on.
    pub(crate) fn begin_elsewhere(&self) -> Option<Running<'_>> {
        self.take_for(STARTING)
    }

    fn take_for(&self, runner: u64) -> Option<Running<'_>> {
        let taken = self
            .word
            .compare_exchange(IDLE, runner, Ordering::SeqCst, Ordering::SeqCst);
        // Made only then: dropping one makes the handle idle.
        taken.is_ok().then(|| Running(self))
    }

    pub(crate) fn occupation(&self) -> Occupation {
        match self.word.load(Ordering::SeqCst) & !ABORTED {
            IDLE => Occupation::Idle,
            id if id == thread_id() => Occupation::OnThisThread,
            _ => Occupation::Elsewhere,
        }
    }

    pub(crate) fn request_abort(&self) {
        // An `Err` means that nothing is running, and so nothing is to be aborted.
        let _ = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                (word != IDLE).then_some(word | ABORTED)
            });
    }

    pub(crate) fn abort_requested(&self) -> bool {
        self.word.load(Ordering::Relaxed) & ABORTED != 0
    }

    pub(crate) fn set_kv_tokens(&self, sequence: usize, tokens: usize) {
        if let Some(held) = self.kv_tokens.get(sequence) {
            held.store(tokens, Ordering::Relaxed);
        }
    }

    /// Of each sequence.
    pub(crate) fn kv_tokens(&self) -> impl Iterator<Item = usize> {
        self.kv_tokens
            .iter()
            .map(|held| held.load(Ordering::Relaxed))
    }

    pub(crate) fn set_indivisible(&self, indivisible: bool) {
        self.indivisible.store(indivisible, Ordering::Relaxed);
    }
}

impl Running<'_> {
    /// Makes the calling thread the one that runs. An abort that came before stays.
    pub(crate) fn adopt(&self) {
        let id = thread_id();
        // The closure never declines, so there is no error to lose.
        let _ = self
            .0
            .word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
                Some(word & ABORTED | id)
            });
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.word.store(IDLE, Ordering::SeqCst);
    }
}

/// ggml's abort callback: asked once per graph node, also in prefill.
pub(crate) unsafe extern "C" fn should_abort(state: *mut c_void) -> bool {
    // SAFETY: the context that asks was given a pointer to the `RunState` of its own handle, which
    // is freed after the context.
    let state = unsafe { &*state.cast::<RunState>() };
    let abort = state.abort_requested() && !state.indivisible.load(Ordering::Relaxed);
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
        let state = RunState::default();
        state.request_abort();
        let running = state.begin();
        assert!(running.is_some() && !state.abort_requested());
        drop(running);
        assert_eq!(state.occupation(), Occupation::Idle);
    }

    #[test]
    fn an_abort_ends_one_run_only() {
        let state = RunState::default();
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
        let state = RunState::default();
        let running = state.begin();
        assert!(running.is_some());
        assert!(state.begin().is_none() && state.begin_elsewhere().is_none());
        drop(running);
        assert!(state.begin().is_some());
    }

    #[test]
    fn an_abort_before_the_thread_has_started_is_kept() {
        let state = RunState::default();
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
        let state = RunState::default();
        let _running = state.begin();
        std::thread::scope(|scope| {
            let seen = scope.spawn(|| state.occupation()).join();
            assert_eq!(seen.ok(), Some(Occupation::Elsewhere));
        });
    }
}
