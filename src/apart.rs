//! Makes calls that may never come back on threads of their own: a wedged driver, a process whose
//! memory is locked, a share that is gone. Past its time limit a caller learns that nothing is known;
//! no caller waits longer, and nothing is made up.
//!
//! A subject has at most one call under way. One that hangs costs one thread and leaves only its own
//! subject unknown, because others pass it on further threads. Each kind of subject has threads of its
//! own and a bound for them, so that children that hang do not keep a key from being revoked. What
//! waits is bounded too, and is forgotten when its caller has gone.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Calls that wait for a thread or for another call on the same subject: as many as there are
/// clients that may ask.
const MOST_WAITING: usize = 1024;
/// A call that takes longer does not keep others from getting a thread of their own.
const USUAL: Duration = Duration::from_millis(100);

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A child process.
    Child(u32),
    OwnProcess,
    NpuDriver,
    /// Another of the board's sensors.
    Sensor(PathBuf),
    /// The file of keys.
    Keys(PathBuf),
    /// A change of it, which waits for who else changes it.
    KeysChange(PathBuf),
    /// All that the doctor looks at.
    Doctor,
    /// The configuration and its drop-ins.
    Configuration,
    /// The folders that hold the CPU runtime.
    CpuRuntime,
    /// The folder of kept responses.
    KeptResponses(PathBuf),
    /// Any other.
    File(PathBuf),
}

// Threads are begun when they are needed; the numbers include those that hang.
static CHILDREN: Pool = Pool::new(8);
static OWN_PROCESS: Pool = Pool::new(1);
static NPU_DRIVER: Pool = Pool::new(1);
static SENSORS: Pool = Pool::new(8);
static KEYS: Pool = Pool::new(1);
static KEYS_CHANGE: Pool = Pool::new(1);
static DOCTOR: Pool = Pool::new(1);
static CONFIGURATION: Pool = Pool::new(1);
static CPU_RUNTIME: Pool = Pool::new(1);
static KEPT_RESPONSES: Pool = Pool::new(1);
static FILES: Pool = Pool::new(4);

impl Subject {
    fn pool(&self) -> &'static Pool {
        match self {
            Self::Child(_) => &CHILDREN,
            Self::OwnProcess => &OWN_PROCESS,
            Self::NpuDriver => &NPU_DRIVER,
            Self::Sensor(_) => &SENSORS,
            Self::Keys(_) => &KEYS,
            Self::KeysChange(_) => &KEYS_CHANGE,
            Self::Doctor => &DOCTOR,
            Self::Configuration => &CONFIGURATION,
            Self::CpuRuntime => &CPU_RUNTIME,
            Self::KeptResponses(_) => &KEPT_RESPONSES,
            Self::File(_) => &FILES,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Child(pid) => write!(f, "the process {pid}"),
            Self::OwnProcess => f.write_str("this process"),
            Self::NpuDriver => f.write_str("the NPU's driver"),
            Self::Configuration => f.write_str("the configuration"),
            Self::CpuRuntime => f.write_str("the CPU runtime's folder"),
            Self::Doctor => f.write_str("what the doctor looks at"),
            Self::Sensor(path)
            | Self::KeysChange(path)
            | Self::Keys(path)
            | Self::KeptResponses(path)
            | Self::File(path) => {
                write!(f, "{}", path.display())
            }
        }
    }
}

/// Makes the call; `None`: it was not through within `limit`.
pub async fn ask<T: Send + 'static>(
    subject: Subject,
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    subject.pool().ask(subject, limit, call).await
}

/// As [`ask`], for a thread that may wait.
pub fn ask_and_wait<T: Send + 'static>(
    subject: Subject,
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    subject.pool().ask_and_wait(subject, limit, call)
}

/// Whether a call about it would wait behind one that hangs: about the same, or about others on every thread
/// there may be.
pub fn is_stuck(subject: &Subject) -> bool {
    subject.pool().is_stuck(subject)
}

/// Begins a call that leaves its result behind itself. Where too much is waiting it is not made.
pub fn begin(subject: Subject, call: impl FnOnce() + Send + 'static) {
    if !subject.pool().begin(Job::new(subject, call)) {
        tracing::debug!("a call that may hang was not made: too many are waiting");
    }
}

struct Job {
    subject: Subject,
    /// Cleared when no caller waits for it any more.
    is_wanted: Arc<AtomicBool>,
    call: Box<dyn FnOnce() + Send>,
}

impl Job {
    fn new(subject: Subject, call: impl FnOnce() + Send + 'static) -> Self {
        Self {
            subject,
            is_wanted: Arc::new(AtomicBool::new(true)),
            call: Box::new(call),
        }
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Wanted until what is returned is dropped.
    fn wanted(&self) -> Wanted {
        Wanted(Arc::clone(&self.is_wanted))
    }
}

struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct Pool {
    most_threads: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    under_way: BTreeMap<Subject, UnderWay>,
    threads: usize,
}

struct UnderWay {
    since: Instant,
    is_told: bool,
}

impl Pool {
    const fn new(most_threads: usize) -> Self {
        Self {
            most_threads,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                under_way: BTreeMap::new(),
                threads: 0,
            }),
            changed: Condvar::new(),
        }
    }

    async fn ask<T: Send + 'static>(
        &'static self,
        subject: Subject,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, result) = oneshot::channel();
        let job = Job::new(subject.clone(), move || {
            // The caller may have stopped waiting.
            let _ = reply.send(call());
        });
        let _wanted = job.wanted();
        if !self.begin(job) {
            return None;
        }
        match tokio::time::timeout(limit, result).await {
            Ok(value) => value.ok(),
            Err(_) => {
                self.report_overdue(&subject, limit);
                None
            }
        }
    }

    fn ask_and_wait<T: Send + 'static>(
        &'static self,
        subject: Subject,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, result) = mpsc::sync_channel(1);
        let job = Job::new(subject.clone(), move || {
            let _ = reply.try_send(call());
        });
        let _wanted = job.wanted();
        if !self.begin(job) {
            return None;
        }
        match result.recv_timeout(limit) {
            Ok(value) => Some(value),
            Err(RecvTimeoutError::Timeout) => {
                self.report_overdue(&subject, limit);
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn begin(&'static self, job: Job) -> bool {
        let mut state = self.lock();
        state.waiting.retain(Job::is_wanted);
        if state.waiting.len() >= MOST_WAITING {
            return false;
        }
        state.waiting.push_back(job);
        self.add_thread_if_needed(&mut state);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// A further thread where all that there are have been at their calls for long.
    fn add_thread_if_needed(&'static self, state: &mut State) {
        let calls = &state.under_way;
        let all_are_late =
            calls.len() == state.threads && calls.values().all(|call| call.since.elapsed() > USUAL);
        if state.threads >= self.most_threads || !all_are_late {
            return;
        }
        let thread = thread::Builder::new().name("apart".to_owned());
        match thread.spawn(|| self.serve()) {
            Ok(_) => state.threads += 1,
            Err(error) => tracing::warn!(%error, "no thread for a call that may hang"),
        }
    }

    fn is_stuck(&self, subject: &Subject) -> bool {
        let calls = &self.lock().under_way;
        let is_late = |call: &UnderWay| call.since.elapsed() > USUAL;
        calls.get(subject).is_some_and(is_late)
            || calls.len() >= self.most_threads && calls.values().all(is_late)
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            let free = |job: &Job| !state.under_way.contains_key(&job.subject);
            let Some(next) = state.waiting.iter().position(free) else {
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(job) = state.waiting.remove(next) else {
                continue;
            };
            if !job.is_wanted() {
                continue;
            }
            let begun = UnderWay {
                since: Instant::now(),
                is_told: false,
            };
            state.under_way.insert(job.subject.clone(), begun);
            drop(state);
            let Job { subject, call, .. } = job;
            // What a caller asks for must not take the thread with it.
            let _ = catch_unwind(AssertUnwindSafe(call));
            state = self.lock();
            if let Some(done) = state.under_way.remove(&subject)
                && done.is_told
            {
                tracing::info!(
                    after_ms = done.since.elapsed().as_millis() as u64,
                    "a call about {subject} has come back"
                );
            }
            // Others may wait for this subject.
            self.changed.notify_all();
        }
    }

    fn report_overdue(&'static self, subject: &Subject, after: Duration) {
        let mut state = self.lock();
        self.add_thread_if_needed(&mut state);
        let hanging = state.under_way.len();
        if let Some(call) = state.under_way.get_mut(subject)
            && !std::mem::replace(&mut call.is_told, true)
        {
            tracing::warn!(
                limit_ms = after.as_millis() as u64,
                hanging,
                most = self.most_threads,
                "a call about {subject} does not come back; what it would tell is unknown"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
