//! ggml's compute threads: how many there are, where each runs, and how long each waits for its CPU.
//! Where each has a CPU of its own, `thread_governor` decides between two steps which of them take
//! part; the others sleep. The thread that calls `rkllm_run` is one of them, and gets its affinity
//! back when the run returns; where a context is shared, its scheduler's thread is that one.
//!
//! The waiting is the kernel's own count (`run_delay` in a thread's schedstat). A kernel that does not
//! keep it (without CONFIG_SCHED_INFO), or one chosen number of threads (`RKLLM_CPU_THREADS`), or draws
//! that shall repeat (`RKLLM_CPU_SEED`; rounding depends on the number of threads), leave every thread
//! in every step; so does a step of a run that is deterministic.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as llama;

use crate::enabled_cpus::{EnabledCpus, HeldThread, THIS_THREAD, move_thread};
use crate::log::{Verbosity, info};
use crate::rounding::MANY;
use crate::thread_governor::ThreadGovernor;

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

/// A thread's schedstat: time on a CPU, time ready and without one, and how often.
struct RunDelay(File);

impl RunDelay {
    fn of(thread: libc::pid_t) -> Option<RunDelay> {
        let file = File::open(format!("/proc/self/task/{thread}/schedstat"));
        file.ok().map(RunDelay)
    }

    fn of_this_thread() -> Option<RunDelay> {
        File::open("/proc/thread-self/schedstat").ok().map(RunDelay)
    }

    /// A thread that reads this has run, so that zeros say that the kernel does not count.
    fn is_kept(&self) -> bool {
        self.fields().is_some_and(|[ran, _]| ran > 0)
    }

    fn read(&self) -> Option<Duration> {
        self.fields()
            .map(|[_, waited]| Duration::from_nanos(waited))
    }

    fn fields(&self) -> Option<[u64; 2]> {
        let mut text = [0; 96];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        Some([numbers.next()?.ok()?, numbers.next()?.ok()?])
    }
}

/// The calling thread under a name that no other thread of the process has, which the threads that it
/// starts inherit, and by which they are found; it gets its own name back.
struct ThreadName {
    own: [u8; 16],
    given: String,
}

impl ThreadName {
    fn for_new_threads() -> ThreadName {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut own = [0; 16];
        // A name has 15 bytes.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 100_000;
        let given = format!("rkllm-cpu-{number}");
        // SAFETY: the kernel writes at most 16 bytes.
        unsafe { libc::prctl(libc::PR_GET_NAME, own.as_mut_ptr()) };
        set_name(given.as_bytes());
        ThreadName { own, given }
    }

    /// The other threads of that name, in the order in which they were started.
    fn bearers(&self) -> Vec<libc::pid_t> {
        // SAFETY: gettid has no preconditions.
        let this = unsafe { libc::gettid() };
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
            return Vec::new();
        };
        let mut found: Vec<libc::pid_t> = tasks
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&id| id != this)
            .filter(|id| {
                std::fs::read_to_string(format!("/proc/self/task/{id}/comm"))
                    .is_ok_and(|name| name.trim_end() == self.given)
            })
            .collect();
        in_order_of_start(&mut found);
        found
    }
}

impl Drop for ThreadName {
    fn drop(&mut self) {
        set_name(&self.own);
    }
}

fn set_name(name: &[u8]) {
    let mut ended = [0_u8; 16];
    let length = name.len().min(15);
    ended[..length].copy_from_slice(&name[..length]);
    // SAFETY: the kernel reads at most 16 bytes, the last of which is 0.
    unsafe { libc::prctl(libc::PR_SET_NAME, ended.as_ptr()) };
}

/// The kernel gives out ids upwards, and begins again below when they are used up: the first is the
/// one after the widest gap, the one across the end included.
fn in_order_of_start(ids: &mut [libc::pid_t]) {
    ids.sort_unstable();
    let (Some(&lowest), Some(&highest)) = (ids.first(), ids.last()) else {
        return;
    };
    // The smallest range of ids that a kernel has.
    const IDS: libc::pid_t = 32_768;
    let across = (lowest + IDS - highest).max(0);
    let widest = ids
        .windows(2)
        .enumerate()
        .map(|(at, pair)| (pair[1] - pair[0], at + 1))
        .max()
        .filter(|&(gap, _)| gap > across);
    if let Some((_, first)) = widest {
        ids.rotate_left(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_of_start_also_where_they_begin_again() {
        let ordered = |mut ids: Vec<libc::pid_t>| {
            in_order_of_start(&mut ids);
            ids
        };
        assert_eq!(ordered(vec![12, 10, 11, 40]), [10, 11, 12, 40]);
        assert_eq!(
            ordered(vec![301, 32_767, 300, 32_760]),
            [32_760, 32_767, 300, 301]
        );
        assert_eq!(ordered(vec![7]), [7]);
        assert!(ordered(vec![]).is_empty());
    }

    #[test]
    fn new_threads_are_found_by_their_name_and_this_one_keeps_its_own() {
        let own = || std::fs::read_to_string("/proc/thread-self/comm").ok();
        let before = own();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let named = ThreadName::for_new_threads();
        assert!(named.bearers().is_empty());
        let thread = std::thread::Builder::new().spawn(move || {
            // SAFETY: gettid has no preconditions.
            let id = unsafe { libc::gettid() };
            let _released = wait.recv();
            id
        });
        let found = named.bearers();
        drop(named);
        drop(release);
        let id = thread.ok().and_then(|thread| thread.join().ok());
        assert_eq!(found, id.into_iter().collect::<Vec<_>>());
        assert_eq!(own(), before);
    }

    #[test]
    fn a_threads_waiting_is_read_where_the_kernel_keeps_it() {
        let Some(delay) = RunDelay::of_this_thread().filter(RunDelay::is_kept) else {
            eprintln!("this kernel keeps no schedstat");
            return;
        };
        let (first, second) = (delay.read(), delay.read());
        assert!(first.is_some() && second >= first);
    }
}
