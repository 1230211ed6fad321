//! Readers start when they are needed, in a place that is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::timeout;

use super::busy::Busy;
use super::{Readers, lock};
use crate::children::{Child, EndReason, ProcessEvent, Watched};
use crate::generation::{Deadline, ModelId};
use crate::reader::{ReaderError, ReaderKind};

/// Readers that hang in the kernel, beyond which no further one is started.
const MOST_ABANDONED: usize = 4;

impl Readers {
    /// Starts a process in a place that is held; one that is idle gives way where there is no room.
    pub(super) async fn start_in_place(
        &self,
        model: &ModelId,
        busy: &mut Busy,
    ) -> Result<Child<ReaderKind>, ReaderError> {
        let shared = &self.shared;
        let limits = shared.limits();
        let unavailable = |reason: String| ReaderError::Unavailable {
            model: model.to_string(),
            reason,
        };
        if shared.abandoned.load(Ordering::Relaxed) >= MOST_ABANDONED {
            return Err(unavailable(format!(
                "{MOST_ABANDONED} earlier ones hang in the kernel"
            )));
        }
        while let Some(reader) = shared.take_superfluous() {
            let ended = reader.child.process.kill_and_wait(EndReason::Recycled);
            let _ = timeout(limits.kill, ended).await;
        }
        let (running, abandoned) = (Arc::clone(&shared.running), Arc::clone(&shared.abandoned));
        let is_abandoned = AtomicBool::new(false);
        let watched = Watched {
            model: Arc::clone(model),
            variables: Vec::new(),
            kill_wait: limits.kill,
        };
        let on_event = move |pid, event| match event {
            ProcessEvent::Unkillable => {
                tracing::error!(pid, "a reader hangs in the kernel and is abandoned");
                is_abandoned.store(true, Ordering::Relaxed);
                abandoned.fetch_add(1, Ordering::Relaxed);
                // Nor is it asked about any more: the kernel may not answer.
                lock(&running).remove(&pid);
            }
            ProcessEvent::Exited(report) => {
                tracing::debug!(pid, "a reader ended: {report}");
                lock(&running).remove(&pid);
                if is_abandoned.load(Ordering::Relaxed) {
                    abandoned.fetch_sub(1, Ordering::Relaxed);
                }
            }
        };
        let mut child = match timeout(limits.open, shared.host.child(watched, on_event)).await {
            Ok(Ok(child)) => child,
            Ok(Err(error)) => return Err(unavailable(error.to_string())),
            Err(_) => return Err(self.too_late(model, ("starting", Deadline::ReaderOpen))),
        };
        busy.process = Some(child.process.clone());
        lock(&shared.running).insert(child.process.pid, Arc::clone(model));
        if child.process.exit_report().is_some() {
            lock(&shared.running).remove(&child.process.pid);
        }
        shared.started.notify_one();
        match timeout(limits.open, child.connection.handshake()).await {
            Ok(Ok(())) => Ok(child),
            Ok(Err(error)) => match self.ended(model, &child, "starting", error).await {
                ReaderError::Ended { reason, .. } => Err(unavailable(reason)),
                other => Err(other),
            },
            Err(_) => Err(self.too_late(model, ("starting", Deadline::ReaderOpen))),
        }
    }
}
