//! One worker process from its start to the report of its end.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// A killed process is gone by then, unless the kernel cannot end it.
const KILLED_WAIT: Duration = Duration::from_secs(10);

/// How a process ended, as waitpid reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReport {
    /// `None`: waitpid failed.
    status: Option<ExitStatus>,
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(status) = self.status else {
            return f.write_str("ended unobserved");
        };
        if let Some(signal) = status.signal() {
            write!(f, "killed by signal {signal}")?;
            match signal_name(signal) {
                Some(name) => write!(f, " ({name})"),
                None => Ok(()),
            }
        } else {
            write!(f, "exited with code {}", status.code().unwrap_or(-1))
        }
    }
}

/// The names of the signals that end a worker: crashes, kills and its own resource limits.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGABRT => "SIGABRT",
        libc::SIGILL => "SIGILL",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGSYS => "SIGSYS",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGXCPU => "SIGXCPU",
        _ => return None,
    })
}

/// Handle to a running process. Dropping the last one kills it.
#[derive(Clone, Debug)]
pub struct WorkerProcess {
    pub pid: u32,
    kill: mpsc::Sender<()>,
    exit: watch::Receiver<Option<ExitReport>>,
}

impl WorkerProcess {
    /// Watches `child` until it ends; `on_exit` is called once, after waitpid reported it.
    pub fn watch(child: Child, on_exit: impl FnOnce(u32, ExitReport) + Send + 'static) -> Self {
        let pid = child.id().unwrap_or_default();
        let (kill, mut kill_requests) = mpsc::channel(1);
        let (exit_sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let mut child = child;
            let status = tokio::select! {
                status = child.wait() => status,
                // Also taken when every handle is gone.
                _ = kill_requests.recv() => {
                    if let Err(error) = child.start_kill() {
                        tracing::error!(pid, %error, "a worker cannot be killed");
                    }
                    reap_killed(&mut child, pid).await
                }
            };
            if let Err(error) = &status {
                tracing::error!(pid, %error, "waiting for a worker failed");
            }
            let report = ExitReport {
                status: status.ok(),
            };
            // Before `on_exit`, so that whoever misses that call finds this.
            exit_sender.send_replace(Some(report));
            on_exit(pid, report);
        });
        Self { pid, kill, exit }
    }

    /// Sends SIGKILL. Safe to call at any time: the process id is not reused before it was waited
    /// for, and the watcher does both.
    pub fn kill(&self) {
        let _ = self.kill.try_send(());
    }

    /// The end of the process, if it has been reported.
    pub fn exit_report(&self) -> Option<ExitReport> {
        *self.exit.borrow()
    }

    /// Waits for the end of the process; `None` if it could not be observed.
    pub async fn exited(&self) -> Option<ExitReport> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|report| *report)
    }

    /// Kills the process and waits until waitpid has reported it.
    pub async fn kill_and_wait(&self) {
        self.kill();
        self.exited().await;
    }
}

/// Waits for a killed process. One that outlives SIGKILL hangs in the kernel: it is reported, and
/// waited for on, because a successor would hang with it.
async fn reap_killed(child: &mut Child, pid: u32) -> io::Result<ExitStatus> {
    loop {
        match timeout(KILLED_WAIT, child.wait()).await {
            Ok(status) => return status,
            Err(_) => tracing::error!(
                pid,
                "a worker is still there after SIGKILL; if it stays, the board must be rebooted"
            ),
        }
    }
}
