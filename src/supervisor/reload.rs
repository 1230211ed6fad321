//! What a reload means for workers: none that is in use is disturbed.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::RunDeadlines;
use super::event_loop::{EventLoop, Rules};
use super::instance::Instance;
use super::lifecycle::Stage;
use super::loading::Loader;
use super::walls::Walls;
use crate::children::EndReason;
use crate::generation::{GenerationError, ModelId};
use crate::models::Catalog;
use crate::settings::DeadlineSettings;

/// What the loop goes on with.
pub(super) struct Reload {
    pub catalog: Arc<Catalog>,
    pub rules: Rules,
    /// For the models that are loaded from now on.
    pub deadlines: DeadlineSettings,
    pub run_deadlines: RunDeadlines,
    pub parallel: u8,
    pub pool_contexts: u8,
    pub walls: Walls,
    /// Told when it is done.
    pub done: oneshot::Sender<()>,
}

impl EventLoop {
    pub(super) fn reload(&mut self, reload: Reload) {
        let restart = reload.rules.restart;
        self.rules = reload.rules;
        self.loader = Arc::new(Loader {
            deadlines: reload.deadlines,
            run_deadlines: reload.run_deadlines,
            parallel: reload.parallel,
            pool_contexts: reload.pool_contexts,
            walls: reload.walls,
            ..(*self.loader).clone()
        });
        for model in reload.catalog.models() {
            let instance = self
                .instances
                .entry(model.id.clone())
                .or_insert_with(|| Instance::new(Arc::clone(model), restart));
            let is_loaded_like = instance.model.is_loaded_like(model);
            instance.model = Arc::clone(model);
            instance.removed = false;
            instance.life.forgive(restart);
            instance.pins_later = false;
            if !is_loaded_like {
                instance.replaced = true;
                self.end_when_free(&model.id);
            }
        }
        let is_installed = |id: &ModelId| reload.catalog.models().iter().any(|m| m.id == *id);
        // A handle's worker is its client's, who closes it.
        let gone: Vec<ModelId> = self
            .instances
            .iter()
            .filter(|(id, instance)| instance.handle.is_none() && !is_installed(id))
            .map(|(id, _)| id.clone())
            .collect();
        for model in gone {
            if let Some(instance) = self.instances.get_mut(&model) {
                instance.removed = true;
                let unknown = || GenerationError::UnknownModel {
                    model: model.to_string(),
                };
                instance.fail_waiters(unknown);
                instance.waiters.clear();
            }
            self.end_when_free(&model);
        }
        self.pin(&reload.catalog);
        self.forget_removed();
        let _ = reload.done.send(());
    }

    /// Ends the worker of a model, now or as soon as it is not used.
    fn end_when_free(&mut self, model: &ModelId) {
        let Some(instance) = self.instances.get_mut(model) else {
            return;
        };
        match instance.life.stage() {
            Stage::Loading { .. } => {
                instance.cancel_load();
                instance.bring_back();
            }
            // Its end, too, is followed by another worker.
            Stage::Leased { .. } => {
                instance.condemned.get_or_insert(EndReason::Recycled);
            }
            Stage::Idle { .. } => {
                instance.bring_back();
                self.evict(model);
            }
            Stage::Unloaded
            | Stage::Failed { .. }
            | Stage::Stopping
            | Stage::Ending { .. }
            | Stage::Unkillable { .. } => {}
        }
    }

    /// A model that is not installed any more is forgotten with the end of its worker.
    pub(super) fn forget_removed(&mut self) {
        self.instances.retain(|_, instance| {
            let is_over = matches!(
                instance.life.stage(),
                Stage::Unloaded | Stage::Failed { .. }
            );
            !instance.removed || !is_over
        });
    }
}
