//! Prompts that models' owners have pinned: once a model is loaded and idle, each of them is evaluated and
//! written, where that was not done before, and slots hold them from then on. A request never waits for more than
//! the one that is being done; without any of it prompts are evaluated as ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::Prefixes;
use super::swap::{Pinned, Swap};
use crate::generation::ModelId;
use crate::supervisor::lease::Lease;
use crate::supervisor::{Phase, StatusBoard, Supervisor};
use crate::telemetry::Metrics;

/// What could not be kept is tried again so often, and after so long.
const TRIES: u32 = 3;
const AGAIN_AFTER: Duration = Duration::from_secs(20);

/// What was begun with.
#[derive(PartialEq)]
struct Begun {
    pid: u32,
    pinned: Vec<Arc<str>>,
}

impl Prefixes {
    fn pinned_by(&self, model: &ModelId) -> Vec<Arc<str>> {
        let this = self.0.as_ref();
        this.map_or_else(Vec::new, |this| this.lock().pinned_by(model))
    }

    fn begin_pinning(&self, model: &ModelId) -> Option<watch::Receiver<bool>> {
        self.0.as_ref()?.pinnings.begin(model)
    }

    fn is_unfinished(&self, model: &ModelId) -> bool {
        let this = self.0.as_ref();
        this.is_some_and(|this| this.pinnings.is_unfinished(model))
    }
}

/// Looks after them for as long as there is a supervisor.
pub fn start(supervisor: &Supervisor, status: &StatusBoard, metrics: Metrics) {
    if supervisor.prefixes().0.is_some() {
        tokio::spawn(follow(supervisor.clone(), status.clone(), metrics));
    }
}

/// Begins with each worker that has loaded its model, and anew where that pins something else since.
async fn follow(supervisor: Supervisor, mut status: StatusBoard, metrics: Metrics) {
    let mut begun: HashMap<ModelId, Begun> = HashMap::new();
    loop {
        let snapshot = status.snapshot();
        begun.retain(|model, it| {
            snapshot
                .get(model)
                .is_some_and(|now| now.pid == Some(it.pid))
        });
        for (model, now) in snapshot.iter() {
            let Some(pid) = now.pid.filter(|_| now.phase.is_loaded()) else {
                continue;
            };
            let pinned = supervisor.prefixes().pinned_by(model);
            let it = Begun { pid, pinned };
            // What was left for its worker's end, which stays after all, is begun with anew.
            let is_begun =
                begun.get(model) == Some(&it) && !supervisor.prefixes().is_unfinished(model);
            if !it.pinned.is_empty()
                && !is_begun
                && let Some(stopped) = supervisor.prefixes().begin_pinning(model)
            {
                begun.insert(model.clone(), it);
                let pinning = Pinning {
                    supervisor: supervisor.clone(),
                    status: status.clone(),
                    metrics: metrics.clone(),
                    model: model.clone(),
                    pid,
                    stopped,
                };
                tokio::spawn(pinning.run());
            }
        }
        if !status.changed().await {
            return;
        }
    }
}

/// Those of one worker's model.
struct Pinning {
    supervisor: Supervisor,
    status: StatusBoard,
    metrics: Metrics,
    model: ModelId,
    pid: u32,
    /// Becomes true when it has to end.
    stopped: watch::Receiver<bool>,
}

impl Pinning {
    async fn run(mut self) {
        for nth in 0..TRIES {
            match self.all().await {
                Some(0) => return,
                Some(_) if nth + 1 < TRIES => tokio::select! {
                    () = sleep(AGAIN_AFTER) => {}
                    () = is_true(&mut self.stopped) => return,
                },
                Some(left) => tracing::warn!(
                    model = &*self.model,
                    left,
                    "prompts that the model pins are not kept: `limit-bytes` or `written-per-day-bytes` in the \
                     [prefixes] settings leave no room, or the disk or the library does not do it"
                ),
                None => return,
            }
        }
    }

    /// How many of them no file has afterwards. `None`: its worker has gone.
    async fn all(&mut self) -> Option<usize> {
        let prefixes = self.supervisor.prefixes().0.clone()?;
        let pinned = prefixes.lock().pinned_by(&self.model);
        let mut left = 0;
        // The first one is a slot's last, where there are more than slots.
        for (nth, text) in pinned.iter().enumerate().rev() {
            let lease = self.idle().await?;
            let mut swap = Swap::beside(&self.supervisor, &self.metrics, self.stopped.clone());
            let pinned = swap.pin(lease, text, nth).await;
            if *self.stopped.borrow() {
                return None;
            }
            match pinned {
                Pinned::Kept => {}
                Pinned::NotKept => left += 1,
                Pinned::Lost => return None,
            }
        }
        Some(left)
    }

    /// Waits until nothing uses the worker. A worker that is wanted for something else is never waited for by
    /// that, and none is loaded for this.
    async fn idle(&mut self) -> Option<Lease> {
        loop {
            let now = self.status.model(&self.model)?;
            if now.pid != Some(self.pid) || !now.phase.is_loaded() {
                return None;
            }
            if *self.stopped.borrow() {
                return None;
            }
            if now.phase == Phase::Ready
                && let Some(lease) = self.supervisor.lease_if_idle(self.model.clone()).await
            {
                return Some(lease);
            }
            let goes_on = tokio::select! {
                has_changed = self.status.changed() => has_changed,
                () = is_true(&mut self.stopped) => false,
            };
            if !goes_on {
                return None;
            }
        }
    }
}

/// Also when nothing can tell any more.
async fn is_true(told: &mut watch::Receiver<bool>) {
    let _ = told.wait_for(|told| *told).await;
}
