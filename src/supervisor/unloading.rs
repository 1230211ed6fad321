//! The orderly end of a worker: asked first, killed when it does not go.

use std::time::Duration;

use tokio::time::timeout;

use super::loading::GUARD_SLACK;
use super::worker::LoadedWorker;
use crate::children::EndReason;
use crate::generation::Deadline;

/// Returns when waitpid has reported the process. `deadline`: of each of its slots.
pub async fn unload(loaded: LoadedWorker, deadline: Duration) {
    let worker = &loaded.worker;
    let deadline = deadline.saturating_mul(worker.slots().into());
    worker.process.expect_end(EndReason::Unload);
    worker.process.set_activity(0, Some("rkllm_destroy"), None);
    let leaving = async {
        // A worker that cannot be written to has ended or will be killed below.
        if let Some(link) = loaded.free.first() {
            let _ = link.unload();
        }
        worker.process.exited().await
    };
    if timeout(deadline + GUARD_SLACK, leaving).await.is_err() {
        tracing::error!(
            model = &*worker.model.id,
            pid = worker.process.pid,
            "the `unload` deadline passed, killing the worker"
        );
        worker
            .process
            .kill_and_wait(EndReason::Deadline(Deadline::Unload))
            .await;
    }
}
