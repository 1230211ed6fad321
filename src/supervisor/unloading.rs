//! The orderly end of a worker: asked first, killed when it does not go.

use std::time::Duration;

use tokio::time::timeout;

use super::exit_report::EndReason;
use super::loading::{GUARD_SLACK, Worker};
use crate::ipc::Command;

/// Returns when waitpid has reported the process.
pub async fn unload(mut worker: Worker, deadline: Duration) {
    worker.process.expect_end(EndReason::Unload);
    worker.process.set_activity(Some("rkllm_destroy"), None);
    let leaving = async {
        // A worker that cannot be written to has ended or will be killed below.
        let _ = worker.connection.send(&Command::Unload).await;
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
            .kill_and_wait(EndReason::Deadline("unload"))
            .await;
    }
}
