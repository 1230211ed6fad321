//! One worker process from its start to the report of its end.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use tokio::process::Child;
use tokio::sync::{mpsc, watch};

/// How a process ended, as waitpid reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReport {
    pub status: ExitStatus,
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(signal) = self.status.signal() {
            let name = rustix::process::Signal::from_named_raw(signal)
                .map(|signal| format!("{signal:?}"))
                .unwrap_or_default();
            write!(f, "killed by signal {signal} {name}")
        } else {
            write!(f, "exited with code {}", self.status.code().unwrap_or(-1))
        }
    }
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
                    child.wait().await
                }
            };
            match status {
                Ok(status) => {
                    let report = ExitReport { status };
                    exit_sender.send_replace(Some(report));
                    on_exit(pid, report);
                }
                Err(error) => tracing::error!(pid, %error, "waiting for a worker failed"),
            }
        });
        Self { pid, kill, exit }
    }

    /// Sends SIGKILL. Safe to call at any time: the process id is not reused before it was waited
    /// for, and the watcher does both.
    pub fn kill(&self) {
        let _ = self.kill.try_send(());
    }

    /// Waits for the end of the process; `None` if it could not be observed.
    pub async fn exited(&self) -> Option<ExitReport> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|report| *report)
    }
}
