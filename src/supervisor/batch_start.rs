//! When a batch begins: its runs are sequences of one handle, which the library begins together. Each of those that
//! may take part holds this until its run was handed over, or it does without one; the last one to let go of it
//! has the worker begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::link::{SlotLink, WorkerCommands};

#[derive(Debug)]
pub(super) struct BatchStart {
    commands: WorkerCommands,
    /// Of all prompts together.
    bytes: AtomicUsize,
}

impl BatchStart {
    pub fn new(link: &SlotLink) -> Arc<Self> {
        Arc::new(Self {
            commands: link.commands(),
            bytes: AtomicUsize::new(0),
        })
    }

    /// One more prompt is evaluated before any of the runs has a token.
    pub fn add_prompt(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn prompt_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for BatchStart {
    fn drop(&mut self) {
        // Of a worker that is gone its runs learn by themselves.
        let _ = self.commands.begin_batch();
    }
}
