//! How workers come and go: loaded, refused, given back, replaced, dead.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use super::{EventLoop, Message, unavailable};
use crate::children::ChildProcess;
use crate::children::{EndReason, ExitCause, ExitReport};
use crate::generation::{Deadline, ModelId};
use crate::supervisor::instance::{Instance, LoadNumber};
use crate::supervisor::lease::WorkerAfter;
use crate::supervisor::lifecycle::{AfterFailedLoad, LoadFault, Stage};
use crate::supervisor::link::SlotLink;
use crate::supervisor::load_failure::LoadFailure;
use crate::supervisor::loading::Wanted;
use crate::supervisor::unloading;
use crate::supervisor::worker::{LoadedWorker, Worker};

impl EventLoop {
    pub(super) fn load(&mut self, model: &ModelId) {
        let limits = self.slot_limits();
        let (loader, sender, id) = (Arc::clone(&self.loader), self.sender.clone(), model.clone());
        let name = self.metric_name(model);
        self.change(model, |instance| {
            let model = Arc::clone(&instance.model);
            let order = instance.handle.clone();
            let start = |load| {
                let stopped = TellsEnd {
                    sender: sender.clone(),
                    model: id.clone(),
                    load,
                };
                let task = async move {
                    // Dropped last, also when the task is aborted.
                    let _stopped = stopped;
                    let report = |phase, process: Option<&ChildProcess>| {
                        let _ = sender.send(Message::PhaseReached {
                            model: id.clone(),
                            load,
                            phase,
                            process: process.cloned(),
                        });
                    };
                    let events = (sender.clone(), id.clone(), name);
                    let on_event = move |pid, event| {
                        let (sender, model, name) = &events;
                        let _ = sender.send(Message::Process {
                            model: model.clone(),
                            name: name.clone(),
                            pid,
                            event,
                        });
                    };
                    let wanted = Wanted {
                        context_tokens: model.facts.context_tokens(),
                        raw: order.as_ref().map(|order| &order.param),
                        limits,
                    };
                    let result = Box::new(loader.load(model, wanted, report, on_event).await);
                    let _ = sender.send(Message::LoadEnded {
                        model: id.clone(),
                        load,
                        result,
                    });
                };
                tokio::spawn(task).abort_handle()
            };
            instance.begin_load(start);
        });
        self.forget_preloads_without_room();
    }

    /// A model that is wanted now has taken the last place of one that was only to be brought back.
    pub(super) fn forget_preloads_without_room(&mut self) {
        let taken = self
            .instances
            .values()
            .filter(|instance| instance.life.pid().is_some() || instance.is_loading())
            .count();
        if taken >= self.rules.placement.max_loaded {
            for instance in self
                .instances
                .values_mut()
                .filter(|instance| !instance.is_loading())
            {
                instance.waiters.retain(|waiter| waiter.request.is_some());
            }
        }
    }

    /// Unloads an idle worker. Its end arrives as a `Process` message.
    pub(in crate::supervisor) fn evict(&mut self, model: &ModelId) {
        let deadline = self.rules.unload_deadline;
        self.change(model, |instance| {
            if let Some(worker) = instance.end_idle() {
                instance.is_unloading = true;
                tokio::spawn(unloading::unload(worker, deadline));
            }
        });
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

    /// A load that was given up meanwhile, or whose process turned out to be unkillable, is not
    /// taken for a later one. A worker of it is dropped here, which kills it.
    pub(super) fn load_ended(
        &mut self,
        model: &ModelId,
        load: LoadNumber,
        result: Result<LoadedWorker, LoadFailure>,
    ) {
        let is_current = |instance: &Instance| instance.is_loading_as(load);
        if !self.instances.get(model).is_some_and(is_current) {
            return;
        }
        match result {
            Ok(worker) => self.loaded(worker),
            Err(failure) => self.load_failed(model, failure),
        }
    }

    pub(super) fn loaded(&mut self, loaded: LoadedWorker) {
        let worker = Arc::clone(&loaded.worker);
        let model = worker.model.id.clone();
        // Its end was told while the instance was still loading and changed nothing.
        if let Some(report) = worker.process.exit_report() {
            let reason = format!("the worker {report} right after loading the model");
            return self.load_failed(&model, LoadFailure::new(reason));
        }
        let pid = worker.process.pid;
        let facts = &worker.facts;
        tracing::info!(
            model = &*model,
            pid,
            took_ms = worker.load_time.as_millis() as u64,
            library = facts.library_path.as_deref(),
            runtime = facts.runtime_version.as_deref(),
            abi = facts.abi_family.as_deref(),
            driver = facts.driver_version.as_deref(),
            platform = facts.platform.as_deref(),
            context_length = facts.context_length,
            slots = loaded.free.len(),
            "model loaded"
        );
        self.loader
            .metrics
            .model_loaded(&self.metric_name(&model), worker.load_time.as_secs_f64());
        self.change(&model, |instance| {
            if !instance.life.loaded(pid, Instant::now()) {
                return;
            }
            instance.facts = Some(Arc::clone(&worker.facts));
            instance.put_worker(loaded);
            instance.waiters.retain(|waiter| waiter.request.is_some());
        });
        if self.shutting_down.is_some() || self.is_closing(&model) {
            self.evict(&model);
        }
    }

    pub(super) fn load_failed(&mut self, model: &ModelId, failure: LoadFailure) {
        tracing::error!(model = &**model, reason = %failure, "model cannot be loaded");
        self.loader.metrics.load_failed(&self.metric_name(model));
        let fault = if failure.is_certain {
            LoadFault::Certain
        } else {
            LoadFault::Perhaps
        };
        self.change(model, |instance| {
            let after = instance.life.load_failed(fault, Instant::now(), random());
            instance.reason = failure.reason;
            if let Some(order) = &instance.handle {
                let mut told = order.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *told = failure.failure;
            }
            instance.forget_worker();
            if after == AfterFailedLoad::GiveUp {
                let reason = instance.reason.clone();
                let wait = match instance.life.stage() {
                    Stage::Failed { retry_at, .. } => {
                        Some(retry_at.saturating_duration_since(Instant::now()))
                    }
                    _ => None,
                };
                instance.fail_waiters(|| unavailable(model, reason.clone(), wait));
            }
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
        if cause == ExitCause::Wanted(EndReason::Deadline(Deadline::Unload)) {
            self.loader.metrics.deadline_passed(Deadline::Unload);
        }
        let shutting_down = self.shutting_down.is_some();
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
            instance.forget_worker();
            if leaves_a_gap && !shutting_down && !instance.is_closing && !instance.removed {
                // The model was there, so it is brought back before a request has to wait for it.
                if was_in_use && cause.is_failure() {
                    instance.keep_place();
                } else {
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

/// Tells that a load's task has ended, however it has.
struct TellsEnd {
    sender: mpsc::UnboundedSender<Message>,
    model: ModelId,
    load: LoadNumber,
}

impl Drop for TellsEnd {
    fn drop(&mut self) {
        let _ = self.sender.send(Message::LoadStopped {
            model: self.model.clone(),
            load: self.load,
        });
    }
}

/// Evenly spread over 0 to 1. Only spreads restarts, so the hasher's keys are random enough.
fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::children::{ChildEnvironment, ExitContext, Host, ProcessEvent};
    use crate::memory::Accountant;
    use crate::models::Catalog;
    use crate::settings::Settings;
    use crate::supervisor::drive::RunDeadlines;
    use crate::supervisor::event_loop::Rules;
    use crate::supervisor::loading::Loader;
    use crate::supervisor::memory_limits::Beside;
    use crate::telemetry::{Metrics, PageFormat};

    fn event_loop(metrics: &Metrics) -> EventLoop {
        let settings = Settings::default();
        let loader = Loader {
            host: Host::start(ChildEnvironment::bare(false)).unwrap(),
            beside: Beside {
                readers: Default::default(),
                tensors: Accountant::of_files(1 << 20),
                prefixes: Default::default(),
            },
            runtime: settings.runtime.clone(),
            deadlines: settings.deadlines.clone(),
            run_deadlines: RunDeadlines::from(&settings),
            parallel: 1,
            pool_contexts: 1,
            metrics: metrics.clone(),
        };
        let rules = Rules::of(&settings, None);
        let (event_loop, ..) = EventLoop::new(&Catalog::default(), loader, rules, None);
        event_loop
    }

    #[tokio::test]
    async fn the_loss_of_an_earlier_worker_says_nothing_of_its_successor() {
        let mut event_loop = event_loop(&Metrics::new());
        let policy = event_loop.rules.restart;
        let mut instance = Instance::new(Arc::default(), policy);
        let now = Instant::now();
        assert!(instance.life.begin_load(now) && instance.life.loaded(2, now));
        assert!(instance.life.granted());
        let model = ModelId::from("m");
        let since = now.checked_sub(Duration::from_secs(60)).unwrap();
        instance.since = since;
        event_loop.instances.insert(model.clone(), instance);
        let mut lost = |pid| {
            event_loop.handle(Message::Lost {
                model: model.clone(),
                pid,
                slot: 0,
            });
            event_loop.instances[&model].since
        };
        assert_eq!(lost(1), since);
        let lost_at = lost(2);
        assert!(lost_at > since);
        assert_eq!(lost(2), lost_at, "its other slots tell nothing new");
    }

    /// Names of handles would be labels without end.
    #[tokio::test]
    async fn the_worker_of_a_handle_that_is_gone_is_counted_as_its_models() {
        let metrics = Metrics::new();
        let mut event_loop = event_loop(&metrics);
        let context = ExitContext {
            reason: Some(EndReason::Cancelled),
            killed_by_kernel: Some(false),
            started_at: Instant::now(),
            activities: Vec::new(),
        };
        event_loop.handle(Message::Process {
            model: "m#handle-1".into(),
            name: "m".into(),
            pid: 1,
            event: ProcessEvent::Exited(ExitReport::new(None, context)),
        });
        let page = metrics.render(&[], &Default::default(), PageFormat::OpenMetrics);
        let page = page.unwrap();
        assert!(page.contains("worker_exits_total{model=\"m\""), "{page}");
        assert!(!page.contains("handle-1"), "{page}");
    }
}
