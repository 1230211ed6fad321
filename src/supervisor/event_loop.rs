//! The single owner of every worker's state.
//!
//! ```text
//!            load                 loaded              grant
//!  Unloaded ──────► Loading ───────────────► Idle ◄──────────► Leased
//!     ▲  ▲             │ failed               │ evict, died       │ worker lost
//!     │  └── retry ── Failed                  ▼                   │
//!     └────────────────────────────────── Unloading ◄─────────────┘
//! ```
//!
//! Other tasks do the waiting (loading, running, unloading) and hold the worker while they do; what
//! they learn comes back here as a message, and only this loop changes a slot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::lease::Lease;
use super::loading::{LoadFailure, Loader, Worker};
use super::placement::{self, Candidate, Decision, PlacementLimits};
use super::process::ExitReport;
use super::slot::{Slot, State, Waiter};
use super::status::{Phase, StatusBoard, StatusSnapshot};
use super::unloading;
use crate::generation::{GenerationError, ModelId};
use crate::models::Catalog;

/// Wait after the first failed load; doubled for each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

pub(super) type LeaseReply = oneshot::Sender<Result<Lease, GenerationError>>;

/// What the loop is told.
pub(super) enum Message {
    Lease {
        model: ModelId,
        reply: LeaseReply,
    },
    Preload {
        model: ModelId,
    },
    PhaseReached {
        model: ModelId,
        phase: Phase,
        pid: Option<u32>,
    },
    LoadEnded {
        model: ModelId,
        result: Box<Result<Worker, LoadFailure>>,
    },
    Returned {
        worker: Box<Worker>,
    },
    /// The holder of a lease gave its worker up; the process is being killed.
    Lost {
        model: ModelId,
        pid: u32,
    },
    Exited {
        model: ModelId,
        pid: u32,
        report: ExitReport,
    },
    ShutDown {
        done: oneshot::Sender<()>,
    },
}

pub(super) struct EventLoop {
    slots: BTreeMap<ModelId, Slot>,
    loader: Arc<Loader>,
    limits: PlacementLimits,
    unload_deadline: Duration,
    messages: mpsc::UnboundedReceiver<Message>,
    sender: mpsc::UnboundedSender<Message>,
    status: watch::Sender<StatusSnapshot>,
    sequence: u64,
    shutting_down: Option<oneshot::Sender<()>>,
}

impl EventLoop {
    pub(super) fn new(
        catalog: &Catalog,
        loader: Loader,
        limits: PlacementLimits,
    ) -> (Self, mpsc::UnboundedSender<Message>, StatusBoard) {
        let (sender, messages) = mpsc::unbounded_channel();
        let slots = catalog
            .models()
            .iter()
            .map(|model| (model.id.clone(), Slot::new(Arc::clone(model))))
            .collect();
        let (status, snapshot) = watch::channel(StatusSnapshot::default());
        let this = Self {
            slots,
            unload_deadline: loader.deadlines.unload,
            loader: Arc::new(loader),
            limits,
            messages,
            sender: sender.clone(),
            status,
            sequence: 0,
            shutting_down: None,
        };
        this.publish();
        (this, sender, StatusBoard::new(snapshot))
    }

    pub(super) async fn run(mut self) {
        loop {
            // Before anything is granted: whoever is answered must find what led to it.
            self.publish();
            let look_again = self.place();
            self.publish();
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

    fn handle(&mut self, message: Message) {
        match message {
            Message::Lease { model, reply } => self.request(&model, Some(reply)),
            Message::Preload { model } => self.request(&model, None),
            Message::PhaseReached { model, phase, pid } => {
                self.change(&model, |slot| {
                    if let State::Loading { task, .. } = &slot.state {
                        let task = task.clone();
                        slot.enter(State::Loading { phase, pid, task });
                    }
                });
            }
            Message::LoadEnded { model, result } => match *result {
                Ok(worker) => self.loaded(worker),
                Err(failure) => self.load_failed(&model, failure),
            },
            Message::Returned { worker } => self.returned(worker),
            Message::Lost { model, pid } => self.change(&model, |slot| {
                if matches!(slot.state, State::Leased { pid: current, .. } if current == pid) {
                    slot.enter(State::Unloading { pid });
                }
            }),
            Message::Exited { model, pid, report } => self.exited(&model, pid, report),
            Message::ShutDown { done } => {
                self.shutting_down = Some(done);
                for slot in self.slots.values_mut() {
                    slot.fail_waiters(|| GenerationError::ShuttingDown);
                }
                for slot in self.slots.values_mut() {
                    slot.cancel_load();
                }
                let idle: Vec<_> = self
                    .slots
                    .iter()
                    .filter(|(_, slot)| slot.is_idle())
                    .map(|(id, _)| id.clone())
                    .collect();
                for model in idle {
                    self.evict(&model);
                }
            }
        }
    }

    fn request(&mut self, model: &ModelId, reply: Option<LeaseReply>) {
        let shutting_down = self.shutting_down.is_some();
        let refuse = |reply: Option<LeaseReply>, error| {
            if let Some(reply) = reply {
                let _ = reply.send(Err(error));
            }
        };
        let Some(slot) = self.slots.get_mut(model) else {
            return refuse(
                reply,
                GenerationError::UnknownModel {
                    model: model.to_string(),
                },
            );
        };
        if shutting_down {
            return refuse(reply, GenerationError::ShuttingDown);
        }
        if let State::Failed { reason, retry_at } = &slot.state {
            let wait = retry_at.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                let error = GenerationError::ModelUnavailable {
                    model: model.to_string(),
                    reason: reason.clone(),
                    retry_after: Some(wait),
                };
                return refuse(reply, error);
            }
            slot.enter(State::Unloaded);
        }
        self.sequence += 1;
        slot.waiters.push_back(Waiter {
            sequence: self.sequence,
            reply,
        });
    }

    /// Carries out decisions until none is left. Returns when to look again without a message.
    fn place(&mut self) -> Option<Instant> {
        loop {
            for slot in self.slots.values_mut() {
                slot.forget_gone_waiters();
            }
            let ids: Vec<ModelId> = self.slots.keys().cloned().collect();
            let candidates: Vec<Candidate> = self.slots.values().map(Slot::candidate).collect();
            match placement::decide(&candidates, self.limits, Instant::now()) {
                Decision::Grant(index) => self.grant(&ids[index]),
                Decision::Load(index) => self.load(&ids[index]),
                Decision::Evict(index) => self.evict(&ids[index]),
                Decision::WaitUntil(time) => return Some(time),
                Decision::Nothing => return None,
            }
        }
    }

    fn grant(&mut self, model: &ModelId) {
        let home = self.sender.clone();
        self.change(model, |slot| {
            let Some(waiter) = slot.waiters.pop_front() else {
                return;
            };
            let Some(reply) = waiter.reply else { return };
            let (worker, loaded_at) = match std::mem::replace(&mut slot.state, State::Unloaded) {
                State::Idle {
                    worker, loaded_at, ..
                } => (worker, loaded_at),
                other => return slot.state = other,
            };
            slot.enter(State::Leased {
                pid: worker.process.pid,
                loaded_at,
            });
            // A requester that has gone returns the worker by dropping the lease.
            let _ = reply.send(Ok(Lease::new(worker, home)));
        });
    }

    fn load(&mut self, model: &ModelId) {
        let (loader, sender, id) = (Arc::clone(&self.loader), self.sender.clone(), model.clone());
        self.change(model, |slot| {
            let model = Arc::clone(&slot.model);
            let load = tokio::spawn(async move {
                let report = |phase, pid| {
                    let model = id.clone();
                    let _ = sender.send(Message::PhaseReached { model, phase, pid });
                };
                let exits = (sender.clone(), id.clone());
                let on_exit = move |pid, report| {
                    let (sender, model) = exits;
                    let _ = sender.send(Message::Exited { model, pid, report });
                };
                let result = Box::new(loader.load(model, report, on_exit).await);
                let _ = sender.send(Message::LoadEnded {
                    model: id.clone(),
                    result,
                });
            });
            slot.enter(State::Loading {
                phase: Phase::Spawning,
                pid: None,
                task: load.abort_handle(),
            });
        });
    }

    fn evict(&mut self, model: &ModelId) {
        let deadline = self.unload_deadline;
        self.change(model, |slot| {
            let worker = match std::mem::replace(&mut slot.state, State::Unloaded) {
                State::Idle { worker, .. } => worker,
                other => return slot.state = other,
            };
            slot.enter(State::Unloading {
                pid: worker.process.pid,
            });
            // Its end arrives as `Exited`.
            tokio::spawn(unloading::unload(*worker, deadline));
        });
    }

    fn loaded(&mut self, worker: Worker) {
        let model = worker.model.id.clone();
        // Its `Exited` came while the slot was still loading and changed nothing.
        if let Some(report) = worker.process.exit_report() {
            let reason = format!("the worker {report} right after loading the model");
            return self.load_failed(&model, LoadFailure::new(reason));
        }
        let now = Instant::now();
        tracing::info!(model = &*model, pid = worker.process.pid, facts = ?worker.facts, "model loaded");
        self.change(&model, |slot| {
            slot.failed_loads = 0;
            slot.facts = Some(Arc::clone(&worker.facts));
            slot.enter(State::Idle {
                worker: Box::new(worker),
                loaded_at: now,
                last_used: now,
            });
            slot.waiters.retain(|waiter| waiter.reply.is_some());
        });
        if self.shutting_down.is_some() {
            self.evict(&model);
        }
    }

    fn load_failed(&mut self, model: &ModelId, failure: LoadFailure) {
        tracing::error!(model = &**model, reason = %failure, "model cannot be loaded");
        self.change(model, |slot| {
            let doubled = FIRST_RETRY.saturating_mul(1 << slot.failed_loads.min(16));
            let wait = doubled.min(LONGEST_RETRY);
            slot.failed_loads += 1;
            slot.fail_waiters(|| GenerationError::ModelUnavailable {
                model: model.to_string(),
                reason: failure.reason.clone(),
                retry_after: Some(wait),
            });
            slot.enter(State::Failed {
                reason: failure.reason.clone(),
                retry_at: Instant::now() + wait,
            });
        });
    }

    fn returned(&mut self, worker: Box<Worker>) {
        let model = worker.model.id.clone();
        let now = Instant::now();
        self.change(&model, |slot| {
            if let State::Leased { pid, loaded_at } = slot.state
                && pid == worker.process.pid
            {
                slot.enter(State::Idle {
                    worker,
                    loaded_at,
                    last_used: now,
                });
            }
        });
        if self.shutting_down.is_some() {
            self.evict(&model);
        }
    }

    fn exited(&mut self, model: &ModelId, pid: u32, report: ExitReport) {
        self.change(model, |slot| match &slot.state {
            State::Idle { worker, .. } if worker.process.pid == pid => {
                tracing::error!(model = &**model, pid, %report, "an idle worker ended");
                slot.enter(State::Unloaded);
            }
            // The holder of the lease notices by itself and reports the request with it; its
            // message may still be on the way.
            State::Leased { pid: current, .. } | State::Unloading { pid: current }
                if *current == pid =>
            {
                tracing::info!(model = &**model, pid, %report, "worker ended");
                slot.enter(State::Unloaded);
            }
            _ => {}
        });
    }

    fn change(&mut self, model: &ModelId, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(model) {
            change(slot);
        }
    }

    fn publish(&self) {
        let snapshot = self
            .slots
            .iter()
            .map(|(id, slot)| (id.clone(), slot.status()))
            .collect();
        self.status.send_replace(Arc::new(snapshot));
    }

    fn shut_down_complete(&mut self) -> bool {
        if self.shutting_down.is_none() {
            return false;
        }
        let alive = self
            .slots
            .values()
            .any(|slot| !matches!(slot.state, State::Unloaded | State::Failed { .. }));
        if !alive && let Some(done) = self.shutting_down.take() {
            let _ = done.send(());
            return true;
        }
        false
    }
}
