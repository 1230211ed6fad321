//! Prompts that models' owners have pinned: once a model is loaded, each of them is evaluated and written, where
//! that was not done before, and slots hold them from then on. That comes before requests for as long as
//! `instance::pinned_first` says; what is left is done while the model is idle, and then a request never waits for
//! more than the one that is being done. Without any of it prompts are evaluated as ever.

use std::collections::HashMap;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::Prefixes;
use super::swap::{Pinned, Swap};
use crate::generation::ModelId;
use crate::supervisor::event_loop::Message;
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

impl Supervisor {
    /// Becomes true when what is being pinned is to be cut short for a request; `None`: requests go first by now.
    async fn pinned_first(&self, model: &ModelId, pid: u32) -> Option<watch::Receiver<bool>> {
        let (reply, first) = oneshot::channel();
        let (model, messages) = (model.clone(), &self.messages);
        let sent = messages.send(Message::PinnedFirst { model, pid, reply });
        sent.ok()?;
        first.await.ok()?
    }

    /// Requests need not wait any more.
    fn is_pinned(&self, model: &ModelId, pid: u32, is_all: bool) {
        let model = model.clone();
        let _ = self.messages.send(Message::Pinned { model, pid, is_all });
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
            if !is_begun {
                if it.pinned.is_empty() {
                    begun.insert(model.clone(), it);
                    supervisor.is_pinned(model, pid, true);
                    continue;
                }
                let Some(stopped) = supervisor.prefixes().begin_pinning(model) else {
                    continue;
                };
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
            // The end of a worker is told by what has ended it.
            let Some(left) = self.all().await else {
                return;
            };
            self.supervisor.is_pinned(&self.model, self.pid, left == 0);
            match left {
                0 => return,
                _ if nth + 1 < TRIES => tokio::select! {
                    () = sleep(AGAIN_AFTER) => {}
                    () = is_true(&mut self.stopped) => return,
                },
                left => tracing::warn!(
                    model = &*self.model,
                    left,
                    "prompts that the model pins are not kept: `limit-bytes` or `written-per-day-bytes` in the \
                     [prefixes] settings leave no room, or the disk or the library does not do it"
                ),
            }
        }
    }

    /// How many of them no file has afterwards. `None`: its worker has gone.
    async fn all(&mut self) -> Option<usize> {
        let prefixes = self.supervisor.prefixes().0.clone()?;
        let pinned = prefixes.lock().pinned_by(&self.model);
        let mut first = self.supervisor.pinned_first(&self.model, self.pid).await;
        let mut left = 0;
        // The first one is a slot's last, where there are more than slots.
        for (nth, text) in pinned.iter().enumerate().rev() {
            let lease = self.idle().await?;
            // What is done while the model is idle is not cut short: it would be begun again and again.
            first = first.filter(|cut_short| !*cut_short.borrow());
            let (cut, cut_off) = watch::channel(false);
            let mut swap = Swap::beside(&self.supervisor, &self.metrics, cut_off);
            let mut pinning = pin!(swap.pin(lease, text, nth));
            let done = tokio::select! {
                biased;
                done = &mut pinning => done,
                () = is_cut_short(&mut self.stopped, first.as_mut()) => {
                    cut.send_replace(true);
                    pinning.await
                }
            };
            if *self.stopped.borrow() {
                return None;
            }
            match done {
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

/// Waits until what is being pinned has to end early.
async fn is_cut_short(
    stopped: &mut watch::Receiver<bool>,
    first: Option<&mut watch::Receiver<bool>>,
) {
    let for_a_request = async {
        if let Some(cut_short) = first
            && cut_short.wait_for(|cut_short| *cut_short).await.is_ok()
        {
            return;
        }
        // Requests go first by now, or the worker has ended, which shows in what is being done.
        pending().await
    };
    tokio::select! {
        () = is_true(stopped) => {}
        () = for_a_request => {}
    }
}
