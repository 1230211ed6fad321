//! Slots of handles: opened and closed by clients, each beside the installed model that it is of.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{EventLoop, unavailable};
use crate::generation::{GenerationError, ModelId};
use crate::ipc::LibraryFacts;
use crate::models::{InstalledModel, ModelKind};
use crate::supervisor::lease::Lease;
use crate::supervisor::lifecycle::Stage;
use crate::supervisor::slot::{HandleOrder, Slot};

impl EventLoop {
    pub(super) fn open_handle(
        &mut self,
        order: Arc<HandleOrder>,
    ) -> Result<ModelId, GenerationError> {
        if self.shutting_down.is_some() {
            return Err(GenerationError::ShuttingDown);
        }
        let slot = self
            .slots
            .get(&order.model)
            .filter(|slot| slot.handle.is_none());
        let Some(slot) = slot else {
            let model = order.model.to_string();
            return Err(GenerationError::UnknownModel { model });
        };
        self.handles += 1;
        let id: ModelId = format!("{}#handle-{}", order.model, self.handles).into();
        let mut model = InstalledModel::clone(&slot.model);
        model.id = ModelId::clone(&id);
        let measured = slot.measured;
        let mut slot = Slot::of_handle(Arc::new(model), self.rules.restart, order);
        slot.measured = measured;
        self.slots.insert(ModelId::clone(&id), slot);
        Ok(id)
    }

    pub(super) fn close_handle(&mut self, id: &ModelId, done: Option<oneshot::Sender<()>>) {
        self.change(id, |slot| {
            if slot.handle.is_some() {
                slot.is_closing = true;
                slot.closing.extend(done);
                slot.waiters.clear();
                slot.cancel_load();
            }
        });
        if self.is_closing(id) {
            self.evict(id);
        }
    }

    pub(super) fn is_closing(&self, id: &ModelId) -> bool {
        self.slots.get(id).is_some_and(|slot| slot.is_closing)
    }

    /// Tells who waits for the end of a handle. One that cannot be killed keeps its slot, because
    /// it blocks the NPU.
    pub(super) fn forget_closed(&mut self) {
        for slot in self.slots.values_mut().filter(|slot| slot.is_closed()) {
            for done in slot.closing.drain(..) {
                let _ = done.send(());
            }
        }
        self.slots
            .retain(|_, slot| !slot.is_closed() || slot.is_unkillable());
    }

    pub(super) fn lease_if_idle(&mut self, model: &ModelId, reply: oneshot::Sender<Option<Lease>>) {
        let home = self.sender.clone();
        let mut lease = None;
        self.change(model, |slot| {
            if matches!(slot.life.stage(), Stage::Idle { .. }) {
                let lent = slot.lend(false);
                lease = lent.map(|(worker, link)| Lease::new(worker, link, home));
            }
        });
        let _ = reply.send(lease);
    }

    pub(super) fn describe(
        &self,
        model: Option<ModelId>,
        mut reply: oneshot::Sender<Result<LibraryFacts, GenerationError>>,
    ) {
        let kind = match &model {
            None => ModelKind::Rkllm,
            Some(id) => match self.slots.get(id) {
                Some(slot) => slot.model.kind,
                None => {
                    let model = id.to_string();
                    let _ = reply.send(Err(GenerationError::UnknownModel { model }));
                    return;
                }
            },
        };
        let (loader, turns) = (Arc::clone(&self.loader), Arc::clone(&self.describing));
        tokio::spawn(async move {
            let described = async {
                // It is never closed, so an error would change nothing.
                let _turn = turns.acquire().await;
                loader.describe(kind).await
            };
            let described = tokio::select! {
                described = described => described,
                // The process goes with what is dropped.
                () = reply.closed() => return,
            };
            let facts = described.map_err(|failure| {
                let model = model.unwrap_or_else(|| "the library".into());
                unavailable(&model, failure.reason, None)
            });
            let _ = reply.send(facts);
        });
    }

    /// Metrics know installed models, not handles.
    pub(super) fn metric_name(&self, id: &ModelId) -> ModelId {
        let slot = self.slots.get(id);
        slot.map_or_else(|| id.clone(), |slot| slot.model_id().clone())
    }
}
