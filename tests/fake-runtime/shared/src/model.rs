//! A loaded scenario: what `rkllm_init` made a handle of, and the state that calls on other
//! threads look at while it runs.

use crate::answer::Answers;
use crate::fault::Scene;
use crate::generation::Paused;
use crate::memory::Memory;
use crate::params::InitParams;
use crate::scenario::{Scenario, Template};
use crate::set_up::SetUp;
use std::ffi::{c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The host's function. Families before 1.2.1 declare it without a result, which then is not
/// looked at.
pub type Callback = unsafe extern "C" fn(*mut c_void, *mut c_void, u32) -> c_int;

pub struct Model {
    pub scenario: Scenario,
    pub answers: Answers,
    pub params: InitParams,
    pub callback: Callback,
    /// The folder of the model file.
    pub folder: PathBuf,
    /// Given back when the model is dropped.
    pub memory: Memory,
    /// Of the last run.
    pub userdata: AtomicPtr<c_void>,
    pub template: Mutex<Template>,
    pub set_up: Mutex<SetUp>,
    pub cache: Mutex<Cache>,
    pub running: AtomicBool,
    /// Tokens of the prompt and the answer of the run that goes on.
    pub tokens_in_run: AtomicI32,
    pub paused: Mutex<Option<Paused>>,
    aborted: AtomicBool,
    abort_lock: Mutex<()>,
    abort_signal: Condvar,
}

/// What the KV cache holds.
#[derive(Default, Clone)]
pub struct Cache {
    /// Tokens physically there.
    pub tokens: i32,
    /// The text they stand for, to find the prefix that the next prompt shares.
    pub text: Vec<u8>,
    /// Whether the next run continues it.
    pub history: bool,
    /// Of a model of words: all that it has evaluated last.
    pub ids: Vec<i32>,
}

impl Model {
    pub fn new(
        scenario: Scenario,
        answers: Answers,
        params: InitParams,
        callback: Callback,
        memory: Memory,
    ) -> Model {
        let path = PathBuf::from(&params.model_path);
        Model {
            template: Mutex::new(scenario.template.clone()),
            set_up: Mutex::default(),
            folder: path.parent().map(PathBuf::from).unwrap_or_default(),
            scenario,
            answers,
            params,
            callback,
            memory,
            userdata: AtomicPtr::new(ptr::null_mut()),
            cache: Mutex::default(),
            running: AtomicBool::new(false),
            tokens_in_run: AtomicI32::new(0),
            paused: Mutex::new(None),
            aborted: AtomicBool::new(false),
            abort_lock: Mutex::new(()),
            abort_signal: Condvar::new(),
        }
    }

    pub fn scene(&self) -> Scene<'_> {
        Scene {
            folder: &self.folder,
            memory: &self.memory,
        }
    }

    /// As many as init was told.
    pub fn sequences(&self) -> usize {
        usize::from(self.params.n_batch.unwrap_or(1).max(1))
    }

    pub fn abort(&self) {
        let guard = lock(&self.abort_lock);
        self.aborted.store(true, Ordering::Relaxed);
        drop(guard);
        self.abort_signal.notify_all();
    }

    /// An abort of an earlier run is no abort of the next.
    pub fn forget_abort(&self) {
        self.aborted.store(false, Ordering::Relaxed);
    }

    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Sleeps until then or until the run is aborted.
    pub fn sleep_until(&self, deadline: Instant) {
        let mut guard = lock(&self.abort_lock);
        while !self.is_aborted() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (guard, _) = self
                .abort_signal
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
