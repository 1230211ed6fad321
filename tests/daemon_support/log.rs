//! What the daemon logged, and the wait for a line of it.

use std::io::BufRead;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::PATIENCE;

/// Lines that the daemon logged.
#[derive(Clone)]
pub struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    pub(super) fn collect(lines: impl BufRead + Send + 'static) -> Self {
        let log = Self(Arc::default());
        let shared = log.clone();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                shared.0.0.lock().unwrap().push(line);
                shared.0.1.notify_all();
            }
        });
        log
    }

    pub fn lines(&self) -> Vec<String> {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The lines after the first `count`.
    pub fn after(&self, count: usize) -> Vec<String> {
        let lines = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(count..).unwrap_or_default().to_vec()
    }

    /// The first line that holds `text`, waiting for it if need be.
    pub fn wait_for(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no line with {text:?} in the log:\n{}",
                lines.join("\n")
            );
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}
