//! Messages to the service manager, in `sd_notify`'s words. One thread sends them, because sending
//! waits while the service manager does not read.

use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use rustix::time::ClockId;
use systemd::daemon;

use crate::supervisor::Pulse;

/// A longer message the service manager does not take (its limit is PIPE_BUF, 4096, with the name).
const STATUS_BYTES: usize = 4000;

/// Messages that may wait. They are few and small; more wait only while the service manager hangs.
const WAITING: usize = 64;

type Message = Vec<(&'static str, String)>;

/// Handle to the sending thread; it ends when the last handle is dropped.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    /// `None`: there is no service manager.
    messages: Option<SyncSender<Message>>,
    /// The longest time between two pings.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Finds out whether a service manager listens (`NOTIFY_SOCKET`) and wants pings
    /// (`WATCHDOG_USEC`, `WATCHDOG_PID`).
    ///
    /// # Errors
    ///
    /// The sending thread cannot be started.
    pub fn start() -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return Ok(Self::default());
        }
        let watchdog = match daemon::watchdog_enabled() {
            Ok(0) => None,
            Ok(microseconds) => Some(Duration::from_micros(microseconds)),
            Err(error) => {
                tracing::warn!(%error, "the service manager's watchdog cannot be understood");
                None
            }
        };
        let (messages, waiting) = mpsc::sync_channel::<Message>(WAITING);
        thread::Builder::new()
            .name("notify".to_owned())
            .spawn(move || {
                for message in waiting {
                    if let Err(error) = daemon::notify(message.iter()) {
                        tracing::debug!(%error, "the service manager cannot be told");
                    }
                }
            })?;
        Ok(Self {
            messages: Some(messages),
            watchdog,
        })
    }

    pub fn is_connected(&self) -> bool {
        self.messages.is_some()
    }

    /// Requests are served. After `reloading` it tells the end of the reload.
    pub fn ready(&self) {
        self.send(vec![(daemon::STATE_READY, "1".to_owned())]);
    }

    /// A reload begins; `ready` must follow.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(vec![
            (daemon::STATE_RELOADING, "1".to_owned()),
            ("MONOTONIC_USEC", microseconds.to_string()),
        ]);
    }

    /// The daemon ends, within `limit`.
    pub fn stopping(&self, limit: Duration) {
        self.send(vec![
            (daemon::STATE_STOPPING, "1".to_owned()),
            (
                daemon::STATE_EXTEND_TIMEOUT_USEC,
                limit.as_micros().to_string(),
            ),
        ]);
    }

    /// Tells what the daemon is doing, on one line. A long text is cut.
    pub fn status(&self, text: &str) {
        self.send(vec![(daemon::STATE_STATUS, status_line(text))]);
    }

    /// The watchdog's pings, for the loop whose life they prove. `None`: the service manager wants none.
    pub fn watchdog(&self) -> Option<Pulse> {
        let notifier = self.clone();
        let interval = self.watchdog? / 2;
        Some(Pulse::new(interval, move || {
            notifier.send(vec![(daemon::STATE_WATCHDOG, "1".to_owned())]);
        }))
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // Without room the service manager hangs, and it will not miss this message.
            let _ = messages.try_send(message);
        }
    }
}

fn status_line(text: &str) -> String {
    let mut line = text.replace(['\n', '\r', '\0'], " ");
    if line.len() > STATUS_BYTES {
        line.truncate(line.floor_char_boundary(STATUS_BYTES));
        line.push_str(" …");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_that_the_service_manager_takes() {
        assert_eq!(status_line("a\nb\r\0c"), "a b  c");
        let long = status_line(&format!("x{}", "ä".repeat(4096)));
        assert!(long.starts_with("xä") && long.ends_with("ä …"));
        assert!("STATUS=".len() + long.len() < 4096, "{}", long.len());
    }
}
