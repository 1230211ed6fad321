//! One child process from its start to the report of its end.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::exit_report::{Activity, EndReason, ExitContext, ExitReport};
use super::memory::{self, ProcessMemory};
use super::oom_kills::OomWatch;
use super::printed_lines::PrintedLines;
use crate::apart::{self, Subject};

/// A kernel that takes longer to tell something of a child does not tell it.
const KERNEL_LIMIT: Duration = Duration::from_secs(1);

/// Lines of a failed child that are logged once more.
const LAST_WORDS: usize = 5;

/// What a process's watcher tells, in this order: `Unkillable` at most once, then `Exited`.
#[derive(Debug)]
pub enum ProcessEvent {
    /// It is still there although it was killed: it hangs in the kernel.
    Unkillable,
    Exited(ExitReport),
}

/// Handle to a running process. Dropping the last one kills it.
#[derive(Clone, Debug)]
pub struct ChildProcess {
    pub pid: u32,
    pub started_at: Instant,
    kill: mpsc::Sender<()>,
    exit: watch::Receiver<Option<ExitReport>>,
    notes: Arc<Mutex<Notes>>,
    oom: SharedOomWatch,
}

/// Locked by calls apart only: they read what the kernel may not tell.
type SharedOomWatch = Arc<Mutex<Option<OomWatch>>>;

/// What is written down while the process lives, for the report of its end.
#[derive(Debug, Default)]
struct Notes {
    reason: Option<EndReason>,
    is_killed: bool,
    /// Of each of its slots that something goes on in.
    activities: BTreeMap<u8, Activity>,
}

impl ChildProcess {
    /// Watches `child` until it ends. A process that is still there `kill_wait` after SIGKILL is
    /// reported as unkillable.
    pub fn watch(
        (name, child): (&'static str, Child),
        kill_wait: Duration,
        printed: PrintedLines,
        on_event: impl Fn(u32, ProcessEvent) + Send + Sync + 'static,
    ) -> Self {
        let pid = child.id().unwrap_or_default();
        let started_at = Instant::now();
        let (kill, mut kill_requests) = mpsc::channel(1);
        let (exit_sender, exit) = watch::channel(None);
        let notes = Arc::new(Mutex::new(Notes::default()));
        let oom = SharedOomWatch::default();
        let begun = Arc::clone(&oom);
        apart::begin(Subject::Child(pid), move || {
            *lock(&begun) = Some(OomWatch::begin(pid));
        });
        let (written, counters) = (Arc::clone(&notes), Arc::clone(&oom));
        tokio::spawn(async move {
            let mut child = child;
            let status = tokio::select! {
                status = child.wait() => status,
                // `None` when every handle is gone: whatever it was busy with is not wanted.
                request = kill_requests.recv() => {
                    if request.is_none() {
                        lock(&written).reason.get_or_insert(EndReason::Cancelled);
                    }
                    if let Err(error) = child.start_kill() {
                        tracing::error!(pid, %error, "a {name} cannot be killed");
                    }
                    reap_killed(&mut child, kill_wait, || on_event(pid, ProcessEvent::Unkillable)).await
                }
            };
            if let Err(error) = &status {
                tracing::error!(pid, %error, "waiting for a {name} failed");
            }
            let (reason, activities) = {
                let notes = lock(&written);
                (notes.reason, notes.activities.values().cloned().collect())
            };
            let is_kill = matches!(&status, Ok(it) if it.signal() == Some(libc::SIGKILL));
            let context = ExitContext {
                reason,
                killed_by_kernel: if is_kill && reason.is_none() {
                    killed_by_kernel(pid, counters).await
                } else {
                    Some(false)
                },
                started_at,
                activities,
            };
            let report = ExitReport::new(status.ok(), context);
            let is_failure = report.cause.is_failure();
            // Before `on_event`, so that a caller that misses that call finds this.
            exit_sender.send_replace(Some(report.clone()));
            on_event(pid, ProcessEvent::Exited(report));
            if is_failure {
                log_last_words(&printed, pid).await;
            }
        });
        Self {
            pid,
            started_at,
            kill,
            exit,
            notes,
            oom,
        }
    }

    /// Writes down why the process is expected to end from now on.
    pub fn expect_end(&self, reason: EndReason) {
        lock(&self.notes).reason = Some(reason);
    }

    /// Writes down what one of its slots is busy with.
    pub fn set_activity(&self, slot: u8, call: Option<&'static str>, request: Option<String>) {
        let activities = &mut lock(&self.notes).activities;
        match call {
            Some(call) => activities.insert(slot, Activity { call, request }),
            None => activities.remove(&slot),
        };
    }

    /// What it holds now; `None`: it has ended, or the kernel does not tell. To be called from time
    /// to time while the process lives, because what the kernel has killed until then was not this
    /// process.
    pub fn measure(&self) -> impl Future<Output = Option<ProcessMemory>> + use<> {
        let (pid, oom) = (self.pid, Arc::clone(&self.oom));
        let measured = apart::ask(Subject::Child(pid), KERNEL_LIMIT, move || {
            if let Some(oom) = &mut *lock(&oom) {
                oom.refresh();
            }
            memory::measure(pid)
        });
        async { measured.await.flatten() }
    }

    /// Sends SIGKILL. Of several kills the first tells why: the others are what it led to. Safe to call at any time: the process id is not reused before it was waited
    /// for, and the watcher does both.
    pub fn kill(&self, reason: EndReason) {
        let mut notes = lock(&self.notes);
        if !std::mem::replace(&mut notes.is_killed, true) {
            notes.reason = Some(reason);
        }
        drop(notes);
        let _ = self.kill.try_send(());
    }

    /// The end of the process, if it has been reported.
    pub fn exit_report(&self) -> Option<ExitReport> {
        self.exit.borrow().clone()
    }

    /// Watches for the end without keeping the process alive.
    pub fn exit_watch(&self) -> watch::Receiver<Option<ExitReport>> {
        self.exit.clone()
    }

    /// Waits for the end of the process; `None` if it could not be observed.
    pub async fn exited(&self) -> Option<ExitReport> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|report| report.clone())
    }

    /// Kills the process and waits until waitpid has reported it.
    pub async fn kill_and_wait(&self, reason: EndReason) {
        self.kill(reason);
        self.exited().await;
    }
}

/// Repeats the last lines of a child beside the report of its end: a flood or other children may
/// have come between.
async fn log_last_words(printed: &PrintedLines, pid: u32) {
    let lines = printed.peek().await;
    for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
        tracing::error!(pid, "it had printed: {line}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the kernel has ended the process for want of memory; `None`: not known.
async fn killed_by_kernel(pid: u32, counters: SharedOomWatch) -> Option<bool> {
    let told = apart::ask(Subject::Child(pid), KERNEL_LIMIT, move || {
        lock(&counters).as_ref().map(OomWatch::killed)
    });
    told.await.flatten()
}

/// Waits for a killed process. One that outlives SIGKILL hangs in the kernel: it is reported, and
/// waited for on, because a successor would hang with it.
async fn reap_killed(
    child: &mut Child,
    wait: Duration,
    on_unkillable: impl FnOnce(),
) -> io::Result<ExitStatus> {
    if let Ok(status) = timeout(wait, child.wait()).await {
        return status;
    }
    on_unkillable();
    child.wait().await
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::super::exit_report::ExitCause;
    use super::*;

    #[tokio::test]
    async fn the_first_kill_tells_why() {
        let mut sleeper = tokio::process::Command::new("sleep");
        let child = sleeper.arg("600").stdin(Stdio::null()).kill_on_drop(true);
        let child = child.spawn().unwrap();
        let (printed, _) = io::pipe().unwrap();
        let lines = PrintedLines::drain(printed.into(), "m".into(), 0).unwrap();
        let process =
            ChildProcess::watch(("child", child), Duration::from_secs(60), lines, |_, _| {});
        process.kill(EndReason::MemoryLimit);
        process.kill_and_wait(EndReason::LoadFailed).await;
        let report = process.exit_report().unwrap();
        assert_eq!(report.cause, ExitCause::Wanted(EndReason::MemoryLimit));
    }
}
