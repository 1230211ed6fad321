//! How models are loaded: begun by the loop, done by a task of its own, and taken in or refused here.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use super::workers::random;
use super::{EventLoop, Message, unavailable};
use crate::children::ChildProcess;
use crate::generation::ModelId;
use crate::supervisor::instance::{Instance, LoadNumber};
use crate::supervisor::lifecycle::{AfterFailedLoad, LoadFault, Stage};
use crate::supervisor::load_failure::LoadFailure;
use crate::supervisor::loading::Wanted;
use crate::supervisor::worker::LoadedWorker;

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
        let pinned_first = self.loader.pinned_first;
        self.change(&model, |instance| {
            if !instance.life.loaded(pid, Instant::now()) {
                return;
            }
            instance.facts = Some(Arc::clone(&worker.facts));
            instance.put_worker(loaded);
            instance.begin_pinned_first(pinned_first);
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
