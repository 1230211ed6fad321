//! The runs that may receive results now, by number. The library's callback carries a run's
//! number and nothing else of ours, so a result that comes after its run has ended, or for a run
//! that never was, finds no entry here, is dropped and counted; no Rust panic passes through it.

use crate::abi::extension::RKLLMTokenLogprob;
use crate::abi::v1_3_1::{LLMCallState, RKLLMResult};
use crate::error::CallError;
use crate::handle::ControlHandle;
use crate::result::{Flow, LogprobsView, ResultSink, ResultView};
use crate::run::{RunId, RunMode};
use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static RUNS: Mutex<BTreeMap<RunId, Arc<Run>>> = Mutex::new(BTreeMap::new());
static LATE_CALLBACKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is inside a sink. A library that called back again from a function
    /// the sink called would otherwise wait here for itself.
    static IN_SINK: Cell<bool> = const { Cell::new(false) };
}

/// Results that were dropped since the process started: for runs that had ended, for numbers that
/// were never a run's, or called back from inside the callback.
pub fn late_callbacks() -> u64 {
    LATE_CALLBACKS.load(Ordering::Relaxed)
}

struct Run {
    id: RunId,
    mode: RunMode,
    control: ControlHandle,
    receiver: Mutex<Receiver>,
}

enum Receiver {
    Open(Box<dyn ResultSink>),
    /// The sink panicked; the run is being aborted and its results are of no use.
    Panicked(String),
    /// The run has returned.
    Closed,
}

/// A run's place in the table, given up when it is dropped.
pub(crate) struct Entry(Arc<Run>);

/// Lets `sink` receive the results of run `id` until the entry is left or dropped.
pub(crate) fn enter(
    id: RunId,
    mode: RunMode,
    control: ControlHandle,
    sink: Box<dyn ResultSink>,
) -> Result<Entry, CallError> {
    let mut runs = lock(&RUNS);
    if runs.contains_key(&id) {
        return Err(CallError::RunIdInUse { run: id });
    }
    let run = Arc::new(Run {
        id,
        mode,
        control,
        receiver: Mutex::new(Receiver::Open(sink)),
    });
    runs.insert(id, Arc::clone(&run));
    Ok(Entry(run))
}

impl Entry {
    /// Ends the run: no result reaches the sink after this returns.
    pub(crate) fn leave(self) -> Result<(), CallError> {
        match self.close() {
            Receiver::Panicked(message) => Err(CallError::SinkPanicked {
                run: self.0.id,
                message,
            }),
            Receiver::Open(_) | Receiver::Closed => Ok(()),
        }
    }

    /// Waits for a result that is being received on another thread.
    fn close(&self) -> Receiver {
        lock(&RUNS).remove(&self.0.id);
        std::mem::replace(&mut *lock(&self.0.receiver), Receiver::Closed)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // After `leave` the number may be another run's already.
        let mut runs = lock(&RUNS);
        if runs
            .get(&self.0.id)
            .is_some_and(|run| Arc::ptr_eq(run, &self.0))
        {
            runs.remove(&self.0.id);
        }
        drop(runs);
        *lock(&self.0.receiver) = Receiver::Closed;
    }
}

/// The callback that every library is given.
///
/// # Safety
/// `result` must be NULL or the result, or the results of all sequences, that a library of a family that is run passes to its
/// callback in `state`; these families share one layout of it. `userdata` may be anything.
pub(crate) unsafe extern "C" fn on_result(
    result: *mut RKLLMResult,
    userdata: *mut c_void,
    state: LLMCallState,
) -> c_int {
    let run = RunId::new(userdata.addr() as u64).and_then(|id| lock(&RUNS).get(&id).cloned());
    let delivered = run
        .filter(|_| !IN_SINK.get())
        // SAFETY: passed on from the caller; the run's mode is the one the library was given.
        .and_then(|run| unsafe { run.deliver(result, state) });
    delivered.unwrap_or_else(|| {
        LATE_CALLBACKS.fetch_add(1, Ordering::Relaxed);
        Flow::Continue.code(false)
    })
}

/// The callback that a library is given which tells how likely tokens were.
///
/// # Safety
/// `token` and `top` are NULL or what the library passes to its callback. `userdata` may be anything.
pub(crate) unsafe extern "C" fn on_logprobs(
    userdata: *mut c_void,
    of_prompt: i32,
    token: *const RKLLMTokenLogprob,
    top: *const RKLLMTokenLogprob,
    n_top: usize,
) {
    let run = RunId::new(userdata.addr() as u64).and_then(|id| lock(&RUNS).get(&id).cloned());
    let delivered = run.filter(|_| !IN_SINK.get()).and_then(|run| {
        run.with_sink(|sink| {
            // SAFETY: passed on from the caller. The view ends with this closure, inside the callback.
            if let Some(view) = unsafe { LogprobsView::of(of_prompt != 0, token, top, n_top) } {
                sink.on_logprobs(view);
            }
            Flow::Continue
        })
    });
    if delivered.is_none() {
        LATE_CALLBACKS.fetch_add(1, Ordering::Relaxed);
    }
}

impl Run {
    /// The callback's answer, `None` when the run has ended meanwhile.
    ///
    /// # Safety
    /// As [`on_result`].
    unsafe fn deliver(&self, result: *const RKLLMResult, state: LLMCallState) -> Option<c_int> {
        self.with_sink(|sink| {
            let sequences = self.control.sequences();
            // SAFETY: passed on from the caller: a library that was told to work on so many
            // sequences passes an array of so many results. The views end with this closure,
            // inside the callback.
            let view = |at: usize| unsafe {
                let result = if result.is_null() {
                    result
                } else {
                    result.add(at)
                };
                ResultView::of(result, state, self.id, self.mode)
            };
            if sequences == 1 {
                sink.on_result(view(0))
            } else {
                let views: Vec<_> = (0..sequences).map(view).collect();
                sink.on_results(&views)
            }
        })
    }

    /// Has the sink receive something. `None` when the run has ended meanwhile.
    fn with_sink(&self, receive: impl FnOnce(&mut dyn ResultSink) -> Flow) -> Option<c_int> {
        let mut receiver = lock(&self.receiver);
        let sink = match &mut *receiver {
            Receiver::Open(sink) => sink,
            Receiver::Panicked(_) => return Some(Flow::Continue.code(false)),
            Receiver::Closed => return None,
        };
        let inside = InsideSink::enter();
        let outcome = catch_unwind(AssertUnwindSafe(|| receive(&mut **sink)));
        drop(inside);
        match outcome {
            Ok(flow) => Some(flow.code(self.control.understands_release())),
            Err(payload) => {
                let panicked = Receiver::Panicked(message_of(payload.as_ref()));
                let broken = std::mem::replace(&mut *receiver, panicked);
                // What panicked once may panic again while it is dropped, and so may its payload.
                let _ = catch_unwind(AssertUnwindSafe(move || drop((broken, payload))));
                // Allowed inside the callback, and the only way to stop: pausing would leave the
                // generation to the next run. A failure changes nothing here, the run then ends
                // by itself with its results ignored.
                let _ = self.control.abort();
                Some(Flow::Continue.code(false))
            }
        }
    }
}

/// Marks the thread while it is in a sink.
struct InsideSink;

impl InsideSink {
    fn enter() -> Self {
        IN_SINK.set(true);
        InsideSink
    }
}

impl Drop for InsideSink {
    fn drop(&mut self) {
        IN_SINK.set(false);
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

/// The tables here are whole after every statement, so a panic elsewhere leaves nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
