//! Instances of handles: opened and closed by clients, each beside the installed model that it is of.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{EventLoop, unavailable};
use crate::generation::{ClientKey, GenerationError, ModelId};
use crate::ipc::LibraryFacts;
use crate::models::{InstalledModel, ModelKind};
use crate::supervisor::instance::{HandleOrder, Instance};
use crate::supervisor::lease::Lease;
use crate::supervisor::lifecycle::Stage;
use crate::supervisor::waiter::Wish;

impl EventLoop {
    pub(super) fn open_handle(
        &mut self,
        order: Arc<HandleOrder>,
    ) -> Result<ModelId, GenerationError> {
        if self.shutting_down.is_some() {
            return Err(GenerationError::ShuttingDown);
        }
        let instance = self
            .instances
            .get(&order.model)
            .filter(|instance| instance.handle.is_none());
        let Some(instance) = instance else {
            let model = order.model.to_string();
            return Err(GenerationError::UnknownModel { model });
        };
        self.handles += 1;
        let id: ModelId = format!("{}#handle-{}", order.model, self.handles).into();
        let mut model = InstalledModel::clone(&instance.model);
        model.id = ModelId::clone(&id);
        let measured = instance.measured;
        let mut instance = Instance::of_handle(Arc::new(model), self.rules.restart, order);
        instance.measured = measured;
        self.instances.insert(ModelId::clone(&id), instance);
        Ok(id)
    }

    pub(super) fn close_handle(&mut self, id: &ModelId, done: Option<oneshot::Sender<()>>) {
        self.change(id, |instance| {
            if instance.handle.is_some() {
                instance.is_closing = true;
                instance.closing.extend(done);
                instance.waiters.clear();
                instance.cancel_load();
            }
        });
        if self.is_closing(id) {
            self.evict(id);
        }
    }

    pub(super) fn is_closing(&self, id: &ModelId) -> bool {
        self.instances
            .get(id)
            .is_some_and(|instance| instance.is_closing)
    }

    /// Tells who waits for the end of a handle. One that cannot be killed keeps its instance, because
    /// it blocks the NPU.
    pub(super) fn forget_closed(&mut self) {
        for instance in self
            .instances
            .values_mut()
            .filter(|instance| instance.is_closed())
        {
            for done in instance.closing.drain(..) {
                let _ = done.send(());
            }
        }
        self.instances
            .retain(|_, instance| !instance.is_closed() || instance.is_unkillable());
    }

    pub(super) fn lease_if_idle(&mut self, model: &ModelId, reply: oneshot::Sender<Option<Lease>>) {
        let home = self.sender.clone();
        let mut lease = None;
        self.change(model, |instance| {
            if matches!(instance.life.stage(), Stage::Idle { .. }) {
                // A handle's own worker, or for no client.
                let user = ClientKey::new("a handle's client");
                let lent = instance.lend(false, &Wish::default(), &user);
                lease = lent.map(|lent| Lease::new(lent, user, home));
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
            Some(id) => match self.instances.get(id) {
                Some(instance) => instance.model.facts.kind,
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
        let instance = self.instances.get(id);
        instance.map_or_else(|| id.clone(), |instance| instance.model_id().clone())
    }
}
