//! ggml's compute threads: how many there are, where each runs, and how long each waits for its CPU.
//! Where each has a CPU of its own, `thread_governor` decides between two steps which of them take
//! part; the others sleep. The thread that calls `rkllm_run` is one of them, and gets its affinity
//! back when the run returns; where a context is shared, its scheduler's thread is that one.
//!
//! The waiting is the kernel's own count (`run_delay` in a thread's schedstat). A kernel that does not
//! keep it (without CONFIG_SCHED_INFO), or one chosen number of threads (`RKLLM_CPU_THREADS`), or draws
//! that shall repeat (`RKLLM_CPU_SEED`; rounding depends on the number of threads), leave every thread
//! in every step; so does a step of a run that is deterministic.

mod run_delay;
mod thread_name;

use std::ptr::NonNull;
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as llama;

use crate::enabled_cpus::{EnabledCpus, HeldThread, THIS_THREAD, move_thread};
use crate::log::{Verbosity, info};
use crate::rounding::MANY;
use crate::thread_governor::ThreadGovernor;
use run_delay::RunDelay;
use thread_name::ThreadName;

/// How long idle compute threads spin before they sleep, in ggml's units (0 to 100). None: between
/// two tokens the processors belong to the thread that consumes them.
const IDLE_POLLING: u32 = 0;
/// Tokens in a step that tries a CPU: a whole prompt would be a long trial.
const TRIAL_BATCH: usize = MANY;

pub(crate) struct ComputeThreads {
    pool: NonNull<llama::ggml_threadpool>,
    pub(crate) cpus: EnabledCpus,
    governed: Option<Governed>,
}

// SAFETY: a pool is not tied to the thread that made it; it is used under its context's lock.
unsafe impl Send for ComputeThreads {}

struct Governed {
    governor: ThreadGovernor,
    /// In the order in which ggml gives them a part of the work, the calling thread apart.
    workers: Vec<(libc::pid_t, RunDelay)>,
    /// The thread that ran last and has its place.
    caller: Option<(libc::pid_t, RunDelay)>,
    since: Instant,
    verbosity: Verbosity,
}

impl ComputeThreads {
    /// `may_change`: how many compute is left to the governor.
    pub(crate) fn start(cpus: EnabledCpus, may_change: bool) -> Option<ComputeThreads> {
        // Threads without a CPU of their own inherit this thread's affinity, and ggml's change to it
        // is undone afterwards.
        let _held = cpus.hold();
        let named = ThreadName::for_new_threads();
        // SAFETY: the parameters are ggml's defaults with polling and placement changed; CPUs in
        // `one_each` are below 32, the mask has room for 512.
        let raw = unsafe {
            let mut params = llama::ggml_threadpool_params_default(cpus.threads);
            params.poll = IDLE_POLLING;
            if let Some(one_each) = cpus.one_each() {
                params.strict_cpu = true;
                for &cpu in one_each {
                    params.cpumask[cpu as usize] = true;
                }
            }
            llama::ggml_threadpool_new(&mut params)
        };
        let pool = NonNull::new(raw)?;
        let workers = named.bearers();
        drop(named);
        let governed = cpus
            .one_each()
            .filter(|one_each| may_change && one_each.len() > 1)
            .and_then(|one_each| Governed::new(one_each, workers));
        Some(ComputeThreads {
            pool,
            cpus,
            governed,
        })
    }

    /// # Safety
    /// The context is alive, and freed before these threads.
    pub(crate) unsafe fn attach_to(&self, context: *mut llama::llama_context) {
        // SAFETY: the pool is alive, the rest is the caller's.
        unsafe {
            llama::llama_attach_threadpool(context, self.pool.as_ptr(), self.pool.as_ptr());
        }
    }

    /// Holds the calling thread to where it computes until dropped.
    pub(crate) fn hold(&mut self) -> HeldThread {
        match &mut self.governed {
            None => self.cpus.hold(),
            Some(governed) => {
                governed.caller = None;
                HeldThread::on(&self.cpus.cpus)
            }
        }
    }

    /// Tokens that are best evaluated at once, of `most`.
    pub(crate) fn batch_limit(&self, most: usize) -> usize {
        match &self.governed {
            Some(governed) if governed.is_about_to_look() => most.min(TRIAL_BATCH),
            _ => most,
        }
    }

    pub(crate) fn all_take_part(&self) -> bool {
        let governed = self.governed.as_ref();
        governed.is_none_or(|governed| governed.governor.used().len() > governed.workers.len())
    }

    /// Runs `compute` on all threads. For the thread that is held.
    ///
    /// # Safety
    /// As for `step`.
    pub(crate) unsafe fn step_with_all<R>(
        &mut self,
        context: *mut llama::llama_context,
        compute: impl FnOnce() -> R,
    ) -> R {
        let Some(governed) = &mut self.governed else {
            return compute();
        };
        governed.compute_on_this_thread(&self.cpus.cpus);
        let used = governed.governor.used().len() as i32;
        let all = self.cpus.threads;
        // SAFETY: by this function's contract.
        unsafe { llama::llama_set_n_threads(context, all, all) };
        let result = compute();
        // SAFETY: likewise.
        unsafe { llama::llama_set_n_threads(context, used, used) };
        result
    }

    /// Runs `compute` on the threads that take part, and looks at how they fared. For the thread
    /// that is held.
    ///
    /// # Safety
    /// The context is alive and used by this thread only; `compute` may use it.
    pub(crate) unsafe fn step<R>(
        &mut self,
        context: *mut llama::llama_context,
        compute: impl FnOnce() -> R,
    ) -> R {
        let Some(governed) = &mut self.governed else {
            return compute();
        };
        let now = governed.since.elapsed();
        governed.compute_on_this_thread(&self.cpus.cpus);
        if governed.governor.before_step(now) {
            // SAFETY: by this function's contract.
            unsafe { governed.take_places(&self.cpus.cpus, context) };
        }
        let before = governed.read_delays();
        let begin = Instant::now();
        let result = compute();
        let wall = begin.elapsed();
        if let (Some(before), Some(after)) = (before, governed.read_delays()) {
            let waited: Vec<Duration> = after
                .iter()
                .zip(&before)
                .map(|(after, before)| after.saturating_sub(*before))
                .collect();
            if governed.governor.after_step(now + wall, wall, &waited) {
                // SAFETY: by this function's contract.
                unsafe { governed.take_places(&self.cpus.cpus, context) };
            }
        }
        result
    }
}

impl Drop for ComputeThreads {
    fn drop(&mut self) {
        // SAFETY: owned by this value, and the context that used it is already freed.
        unsafe { llama::ggml_threadpool_free(self.pool.as_ptr()) };
    }
}

impl Governed {
    fn new(one_each: &[u32], workers: Vec<libc::pid_t>) -> Option<Governed> {
        if workers.len() + 1 != one_each.len() || !RunDelay::of_this_thread()?.is_kept() {
            return None;
        }
        let workers = workers
            .into_iter()
            .map(|id| Some((id, RunDelay::of(id)?)))
            .collect::<Option<Vec<_>>>()?;
        Some(Governed {
            governor: ThreadGovernor::new(one_each),
            workers,
            caller: None,
            since: Instant::now(),
            verbosity: Verbosity::from_environment(),
        })
    }

    fn is_about_to_look(&self) -> bool {
        self.governor.returns_by(self.since.elapsed()) || self.governor.is_looking()
    }

    fn compute_on_this_thread(&mut self, chosen: &[u32]) {
        // SAFETY: gettid has no preconditions.
        let this = unsafe { libc::gettid() };
        if !matches!(self.caller, Some((id, _)) if id == this) {
            self.caller = RunDelay::of_this_thread().map(|delay| (this, delay));
            self.place_caller(chosen);
        }
    }

    /// The calling thread's place is the last, as ggml has it. Alone it waits for no other, and may go
    /// wherever the scheduler finds room; but it is put where there was some, because a scheduler
    /// takes its time to move a thread that always runs.
    fn place_caller(&self, chosen: &[u32]) {
        let used = self.governor.used();
        move_thread(THIS_THREAD, &used[used.len() - 1..]);
        if used.len() == 1 {
            move_thread(THIS_THREAD, chosen);
        }
    }

    /// # Safety
    /// The context is alive and used by this thread only.
    unsafe fn take_places(&self, chosen: &[u32], context: *mut llama::llama_context) {
        let used = self.governor.used();
        for (place, (worker, _)) in used[..used.len() - 1].iter().zip(&self.workers) {
            move_thread(*worker, std::slice::from_ref(place));
        }
        self.place_caller(chosen);
        let threads = used.len() as i32;
        // SAFETY: by this function's contract.
        unsafe { llama::llama_set_n_threads(context, threads, threads) };
        if self.verbosity >= Verbosity::DETAILS {
            info!("computing on cpus {used:?} of {chosen:?}");
        }
    }

    /// Of the threads that take part, in the order of their CPUs.
    fn read_delays(&self) -> Option<Vec<Duration>> {
        let workers = &self.workers[..self.governor.used().len() - 1];
        let mut delays = Vec::with_capacity(workers.len() + 1);
        for (_, delay) in workers {
            delays.push(delay.read()?);
        }
        let (_, caller) = self.caller.as_ref()?;
        delays.push(caller.read()?);
        Some(delays)
    }
}
