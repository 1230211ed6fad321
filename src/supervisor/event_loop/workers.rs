//! How workers go, and come back to rest: given back, evicted, replaced, dead.

#[cfg(test)]
mod tests;

use std::time::Instant;

use super::{EventLoop, unavailable};
use crate::children::{EndReason, ExitCause, ExitReport};
use crate::generation::{Deadline, ModelId};
use crate::supervisor::lease::WorkerAfter;
use crate::supervisor::lifecycle::Stage;
use crate::supervisor::link::SlotLink;
use crate::supervisor::unloading;
use crate::supervisor::worker::{LoadedWorker, Worker};
use crate::telemetry::Change;

impl EventLoop {
    /// Unloads an idle worker. Its end arrives as a `Process` message.
    pub(in crate::supervisor) fn evict(&mut self, model: &ModelId) {
        let deadline = self.rules.unload_deadline;
        let mut ending = None;
        self.change(model, |instance| {
            if let Some(worker) = instance.end_idle() {
                instance.is_unloading = true;
                instance.keepers.forget();
                ending = instance.life.pid();
                tokio::spawn(unloading::unload(worker, deadline));
            }
        });
        if let Some(pid) = ending {
            self.end_begins(model, pid);
        }
    }

    /// Ends an idle worker that must not be used again.
    pub(super) fn replace(&mut self, model: &ModelId, reason: EndReason) {
        self.change(model, |instance| {
            let Some(LoadedWorker { worker, .. }) = instance.end_idle() else {
                return;
            };
            tracing::warn!(
                model = &**model,
                pid = worker.process.pid,
                ?reason,
                "replacing a worker"
            );
            worker.process.kill(reason);
        });
    }

    pub(super) fn returned(&mut self, worker: &Worker, link: SlotLink, after: WorkerAfter) {
        let (model, pid) = (worker.model.id.clone(), worker.process.pid);
        let answered = after == WorkerAfter::Answered;
        self.change(&model, |instance| {
            if instance.life.returned(pid, answered, Instant::now()) {
                if after == WorkerAfter::Tainted {
                    instance.condemned = Some(EndReason::Tainted);
                }
                instance.take_back(link);
            }
        });
        let condemned = self
            .instances
            .get(&model)
            .and_then(|instance| instance.condemned);
        // Nothing of this happens while the worker is still in use.
        match condemned {
            Some(EndReason::Tainted) => self.replace(&model, EndReason::Tainted),
            _ if self.shutting_down.is_some() || self.is_closing(&model) => self.evict(&model),
            Some(reason) => self.replace(&model, reason),
            None => {}
        }
    }

    /// `name`: what metrics call the model, also when it is not there any more.
    pub(super) fn exited(
        &mut self,
        (model, name): (&ModelId, &ModelId),
        pid: u32,
        report: &ExitReport,
    ) {
        let cause = report.cause;
        let (call, request) = (report.calls(), report.requests());
        let uptime_ms = report.uptime.as_millis();
        if cause.is_failure() {
            tracing::error!(model = &**model, pid, cause = cause.name(), status = %report, call, request, uptime_ms, "worker ended");
        } else {
            tracing::info!(model = &**model, pid, cause = cause.name(), status = %report, call, request, uptime_ms, "worker ended");
        }
        self.loader.metrics.worker_exited(name, cause.name());
        // Handles are no models.
        if self
            .instances
            .get(model)
            .is_some_and(|it| it.handle.is_none())
        {
            self.loader.metrics.changes().tell(|| Change::WorkerEnded {
                model: model.clone(),
                pid,
                cause: cause.name(),
                is_failure: cause.is_failure(),
            });
        }
        if cause == ExitCause::Wanted(EndReason::Deadline(Deadline::Unload)) {
            self.loader.metrics.deadline_passed(Deadline::Unload);
        }
        let shutting_down = self.shutting_down.is_some();
        let (setting, now) = (self.rules.keep_alive, Instant::now());
        self.change(model, |instance| {
            let was_in_use = matches!(
                instance.life.stage(),
                Stage::Leased { .. } | Stage::Ending { .. }
            );
            if !instance
                .life
                .exited(pid, cause.is_failure(), report.at, random())
            {
                return;
            }
            if cause.is_failure() {
                instance.reason = format!("its worker {report}");
            }
            let leaves_a_gap = cause.leaves_a_gap() && !instance.is_unloading;
            let was_unloading = instance.is_unloading;
            instance.forget_worker();
            instance.unload_wanted &= !was_unloading;
            let is_kept = !instance.kept(setting).until(now).is_over(now);
            if leaves_a_gap && !shutting_down && !instance.is_closing && !instance.removed {
                // The model was there, so it is brought back before a request has to wait for it.
                if was_in_use && cause.is_failure() {
                    instance.keep_place();
                } else if is_kept {
                    instance.want_loaded();
                }
            }
        });
        self.forget_removed();
    }

    pub(super) fn unkillable(&mut self, model: &ModelId, pid: u32) {
        let mut was_loading = false;
        self.change(model, |instance| {
            let is_loading = instance.is_loading();
            if !instance.life.stuck(pid) {
                return;
            }
            was_loading = is_loading;
            instance.forget_worker();
            instance.reason = format!(
                "worker {pid} is still there after SIGKILL; it hangs in the kernel, and only a \
                 reboot frees the NPU"
            );
            tracing::error!(
                model = &**model,
                pid,
                "a worker is still there after SIGKILL; unless it goes, the board must be rebooted"
            );
        });
        if was_loading {
            self.loader.metrics.load_failed(&self.metric_name(model));
        }
        let blocked: Vec<(ModelId, String)> = self
            .instances
            .iter()
            .filter_map(|(id, instance)| Some((id.clone(), self.blocked(instance)?)))
            .collect();
        for (model, reason) in blocked {
            self.change(&model, |instance| {
                instance.fail_waiters(|| unavailable(&model, reason.clone(), None));
            });
        }
    }
}

/// Evenly spread over 0 to 1. Only spreads restarts, so the hasher's keys are random enough.
pub(super) fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}
