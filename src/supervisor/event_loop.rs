//! The single owner of every worker's state. `lifecycle` says what a state is and what may follow;
//! `placement` decides whose turn it is.
//!
//! Other tasks do the waiting (loading, running, unloading) and hold the worker while they do; what
//! they learn comes back here as a message, and only this loop changes an instance.

mod handles;
mod loads;
mod memory_checks;
mod message;
mod placing;
mod requests;
mod told;
mod unloads;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::client_turns::ClientTurns;
use super::instance::Instance;
use super::lease::Lease;
use super::lifecycle::{RestartPolicy, Stage};
use super::loading::Loader;
use super::memory_limits::{self, MemoryLimits};
use super::placement::PlacementLimits;
use super::pulse::Pulse;
use super::status::{StatusBoard, StatusSnapshot};
use super::waiter::LeaseRequest;
use crate::children::ProcessEvent;
use crate::generation::{GenerationError, KeepAlive, ModelId};
use crate::models::{Catalog, SlotLimits};
use crate::settings::MemorySettings;
pub use message::QueueEnd;
pub(super) use message::{JoinBatch, LeaseReply, Message};

/// What the loop keeps to.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub placement: PlacementLimits,
    pub restart: RestartPolicy,
    pub unload_deadline: Duration,
    /// For how long models stay loaded that nothing uses.
    pub keep_alive: KeepAlive,
    /// Models that no time unloads, by any of their names.
    pub pinned: Vec<String>,
    pub memory: MemoryRules,
}

/// How much memory a worker may have, and how often that is looked at.
#[derive(Clone, Debug)]
pub(super) struct MemoryRules {
    pub settings: MemorySettings,
    pub machine_bytes: Option<u64>,
}

impl MemoryRules {
    /// The limits where so much of the machine's memory is held by others.
    pub fn limits(&self, held_bytes: u64) -> MemoryLimits {
        let left = self.machine_bytes.map(|all| all.saturating_sub(held_bytes));
        memory_limits::effective(&self.settings, left)
    }
}

pub(super) struct EventLoop {
    pub(super) instances: BTreeMap<ModelId, Instance>,
    pub(super) loader: Arc<Loader>,
    pub(super) rules: Rules,
    messages: mpsc::UnboundedReceiver<Message>,
    sender: mpsc::UnboundedSender<Message>,
    status: watch::Sender<StatusSnapshot>,
    sequence: u64,
    turns: ClientTurns,
    /// Leases that are to be handed out once the status shows what led to them.
    granted: Vec<(LeaseReply, Lease)>,
    awaited_ends: Vec<unloads::AwaitedEnd>,
    /// Handles opened so far.
    handles: u64,
    /// A library is described by one process at a time, however many ask.
    describing: Arc<Semaphore>,
    memory_checked: Instant,
    pulse: Option<Pulse>,
    shutting_down: Option<oneshot::Sender<()>>,
}

impl EventLoop {
    pub(super) fn new(
        catalog: &Catalog,
        loader: Loader,
        rules: Rules,
        pulse: Option<Pulse>,
    ) -> (Self, mpsc::UnboundedSender<Message>, StatusBoard) {
        let (sender, messages) = mpsc::unbounded_channel();
        let instances = catalog
            .models()
            .iter()
            .map(|model| {
                let instance = Instance::new(Arc::clone(model), rules.restart);
                (model.id.clone(), instance)
            })
            .collect();
        let (status, snapshot) = watch::channel(StatusSnapshot::default());
        let mut this = Self {
            instances,
            loader: Arc::new(loader),
            rules,
            messages,
            sender: sender.clone(),
            status,
            sequence: 0,
            turns: ClientTurns::default(),
            granted: Vec::new(),
            awaited_ends: Vec::new(),
            handles: 0,
            describing: Arc::new(Semaphore::new(1)),
            memory_checked: Instant::now(),
            pulse,
            shutting_down: None,
        };
        this.pin(catalog);
        this.publish();
        (this, sender, StatusBoard::new(snapshot))
    }

    pub(super) async fn run(mut self) {
        loop {
            self.forget_closed();
            self.check_memory();
            let look_again = self
                .place()
                .into_iter()
                .chain(self.next_memory_check())
                .chain(self.beat())
                .min();
            self.publish();
            self.tell_ends();
            // Only now: a caller that is answered must find what led to it.
            for (reply, lease) in self.granted.drain(..) {
                // A requester that has gone returns the slot by dropping the lease.
                let _ = reply.send(Ok(lease));
            }
            if self.shut_down_complete() {
                return;
            }
            let message = match look_again {
                Some(time) => {
                    match tokio::time::timeout_at(time.into(), self.messages.recv()).await {
                        Ok(message) => message,
                        Err(_) => continue,
                    }
                }
                None => self.messages.recv().await,
            };
            match message {
                Some(message) => self.handle(message),
                None => return,
            }
        }
    }

    /// Finds out which of the models no time unloads.
    pub(super) fn pin(&mut self, catalog: &Catalog) {
        let pinned = self.rules.pinned.iter();
        let pinned: Vec<&ModelId> = pinned
            .filter_map(|name| catalog.look_up(name).ok())
            .map(|model| &model.id)
            .collect();
        for (id, instance) in &mut self.instances {
            instance.is_pinned = pinned.contains(&id);
        }
    }

    /// Gives the sign of life that is due. Returns when the next one is.
    fn beat(&mut self) -> Option<Instant> {
        let pulse = self.pulse.as_mut()?;
        Some(pulse.beat_if_due(Instant::now()))
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Lease {
                model,
                client,
                queue_end,
                wish,
                reply,
            } => {
                let alone = queue_end == QueueEnd::FrontAndAlone;
                let request = LeaseRequest {
                    client,
                    alone,
                    wish,
                    reply,
                };
                self.request(&model, queue_end, Some(request));
            }
            Message::Join { model, join } => self.join(&model, *join),
            Message::Preload { model } => self.request(&model, QueueEnd::Back, None),
            Message::Keep {
                model,
                client,
                keep_alive,
                reply,
            } => {
                let _ = reply.send(self.keep(&model, client, keep_alive));
            }
            Message::Unload { model, when, reply } => self.unload(&model, when, reply),
            Message::OpenHandle { order, reply } => {
                // Nothing else would close an instance that its client does not learn of.
                if let Err(Ok(id)) = reply.send(self.open_handle(order)) {
                    self.close_handle(&id, None);
                }
            }
            Message::CloseHandle { id, done } => self.close_handle(&id, done),
            Message::LeaseIfIdle { model, reply } => self.lease_if_idle(&model, reply),
            Message::PinnedFirst { model, pid, reply } => {
                let instance = self.instances.get(&model);
                let instance = instance.filter(|it| it.life.pid() == Some(pid));
                let _ = reply.send(instance.and_then(Instance::pinned_first));
            }
            Message::Pinned { model, pid, is_all } => self.change(&model, |instance| {
                if instance.life.pid() == Some(pid) {
                    instance.is_pinned_by_now(is_all);
                }
            }),
            Message::Describe { model, reply } => self.describe(model, reply),
            Message::Ping { reply } => drop(reply.send(())),
            Message::CountWaiting { reply } => drop(reply.send(self.requests_waiting())),
            Message::PhaseReached {
                model,
                load,
                phase,
                process,
            } => self.change(&model, |instance| {
                if instance.is_loading_as(load) {
                    instance.phase_reached(phase, process);
                } else if let Some(process) = process {
                    instance.is_stopping_with(load, &process);
                }
            }),
            Message::LoadStopped { model, load } => {
                self.change(&model, |instance| instance.load_stopped(load));
                self.forget_removed();
            }
            Message::LoadEnded {
                model,
                load,
                result,
            } => self.load_ended(&model, load, *result),
            Message::Returned {
                worker,
                link,
                after,
            } => {
                self.turn_ended((worker.process.pid, link.slot()));
                self.returned(&worker, link, after);
            }
            Message::UsedFor {
                model,
                lease,
                client,
                keep_alive,
            } => {
                let ((pid, slot), setting) = (lease, self.rules.keep_alive);
                self.turns.used_for(lease, client.clone());
                self.change(&model, |instance| {
                    if instance.life.pid() == Some(pid) {
                        let keep_alive = keep_alive.unwrap_or(instance.keep_alive(setting));
                        instance.keepers.used_for(slot, client, keep_alive);
                    }
                });
            }
            Message::Lost { model, pid, slot } => {
                self.turn_ended((pid, slot));
                self.change(&model, |instance| {
                    if instance.life.lost(pid) {
                        instance.stage_changed();
                    }
                });
            }
            Message::Process {
                model,
                name,
                pid,
                event,
            } => match event {
                ProcessEvent::Exited(report) => self.exited((&model, &name), pid, &report),
                ProcessEvent::Unkillable => self.unkillable(&model, pid),
            },
            Message::Measured { model, pid, memory } => self.measured(&model, pid, memory),
            Message::Reload(reload) => self.reload(*reload),
            Message::ShutDown { done } => {
                self.shutting_down = Some(done);
                for instance in self.instances.values_mut() {
                    instance.fail_waiters(|| GenerationError::ShuttingDown);
                    instance.waiters.clear();
                    instance.cancel_load();
                }
                let ids: Vec<_> = self.instances.keys().cloned().collect();
                for model in ids {
                    self.evict(&model);
                }
            }
        }
    }

    fn change(&mut self, model: &ModelId, change: impl FnOnce(&mut Instance)) {
        if let Some(instance) = self.instances.get_mut(model) {
            change(instance);
        }
    }

    fn publish(&self) {
        let limits = self.slot_limits();
        let snapshot = self
            .instances
            .iter()
            .filter(|(_, instance)| instance.handle.is_none())
            .map(|(id, instance)| {
                let blocked = self.blocked(instance);
                let status = instance.status(blocked, limits, self.rules.keep_alive);
                (id.clone(), status)
            })
            .collect();
        let snapshot: StatusSnapshot = Arc::new(snapshot);
        let before = self.status.send_replace(Arc::clone(&snapshot));
        told::differences(self.loader.metrics.changes(), &before, &snapshot);
    }

    /// What the slots of a worker may have that is loaded now.
    fn slot_limits(&self) -> SlotLimits {
        let memory = self.rules.memory.limits(self.loader.beside.bytes());
        SlotLimits {
            parallel: self.loader.parallel,
            pool_contexts: self.loader.pool_contexts,
            memory_bytes: memory.soft_bytes,
        }
    }

    fn shut_down_complete(&mut self) -> bool {
        if self.shutting_down.is_none() {
            return false;
        }
        // One that cannot be killed is not waited for.
        let alive = self.instances.values().any(|instance| {
            !matches!(
                instance.life.stage(),
                Stage::Unloaded | Stage::Failed { .. } | Stage::Unkillable { .. }
            )
        });
        if !alive && let Some(done) = self.shutting_down.take() {
            let _ = done.send(());
            return true;
        }
        false
    }
}

fn has_worker(instance: &Instance) -> bool {
    matches!(
        instance.life.stage(),
        Stage::Idle { .. } | Stage::Leased { .. } | Stage::Loading { .. }
    )
}

fn unavailable(model: &ModelId, reason: String, retry_after: Option<Duration>) -> GenerationError {
    GenerationError::ModelUnavailable {
        model: model.to_string(),
        reason,
        retry_after,
    }
}
