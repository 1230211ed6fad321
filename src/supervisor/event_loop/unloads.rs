//! Who keeps a model loaded, and who waits for it to be unloaded.

use std::time::Instant;

use tokio::sync::oneshot;

use super::EventLoop;
use crate::generation::{ClientKey, KeepAlive, ModelId};
use crate::supervisor::by_request::{UnloadWhen, Unloaded};
use crate::supervisor::instance::Instance;
use crate::supervisor::lifecycle::Stage;

/// The end of a worker that somebody waits for.
pub(super) struct AwaitedEnd {
    model: ModelId,
    /// `None`: the worker is in use or waited for, and goes after that.
    pid: Option<u32>,
    reply: oneshot::Sender<Unloaded>,
}

impl EventLoop {
    /// A client keeps a loaded model as by a use of it. Returns whether it is loaded.
    pub(super) fn keep(
        &mut self,
        model: &ModelId,
        client: ClientKey,
        keep_alive: Option<KeepAlive>,
    ) -> bool {
        let setting = self.rules.keep_alive;
        let Some(instance) = self.instances.get_mut(model) else {
            return false;
        };
        let stage = instance.life.stage();
        let is_loaded = matches!(stage, Stage::Idle { .. } | Stage::Leased { .. });
        if is_loaded {
            let keep_alive = keep_alive.unwrap_or(instance.keep_alive(setting));
            instance.keepers.used(client, keep_alive, Instant::now());
            // What asked for its end before is overtaken.
            instance.unload_wanted = false;
        }
        is_loaded
    }

    /// Ends a worker, now or as soon as nothing uses it or waits for it.
    pub(super) fn unload(
        &mut self,
        model: &ModelId,
        when: UnloadWhen,
        reply: oneshot::Sender<Unloaded>,
    ) {
        if when == UnloadWhen::Idle && self.instances.get(model).is_some_and(is_wanted) {
            let _ = reply.send(Unloaded::StillWanted);
            return;
        }
        let mut pid = None;
        self.change(model, |instance| {
            // One that no request waits for is not brought back.
            instance.waiters.retain(|waiter| waiter.request.is_some());
            instance.unload_wanted = true;
            if let Stage::Ending { pid: ending, .. } = instance.life.stage() {
                pid = instance.waiters.is_empty().then_some(ending);
            }
        });
        let model = ModelId::clone(model);
        self.awaited_ends.push(AwaitedEnd { model, pid, reply });
    }

    /// Those who wait for a model's end wait for that of this worker, which is on its way.
    pub(super) fn end_begins(&mut self, model: &ModelId, pid: u32) {
        for awaited in &mut self.awaited_ends {
            if awaited.model == *model && awaited.pid.is_none() {
                awaited.pid = Some(pid);
            }
        }
    }

    /// Tells of the ends that have come. Only what the status shows is told.
    pub(super) fn tell_ends(&mut self) {
        for instance in self.instances.values_mut() {
            instance.unload_wanted &= !has_gone(instance);
        }
        let instances = &self.instances;
        let awaited = std::mem::take(&mut self.awaited_ends);
        for awaited in awaited.into_iter().filter(|it| !it.reply.is_closed()) {
            let instance = instances.get(&awaited.model);
            match instance.map_or(Some(Unloaded::Yes), |it| end_of(it, awaited.pid)) {
                Some(answer) => drop(awaited.reply.send(answer)),
                None => self.awaited_ends.push(awaited),
            }
        }
    }
}

/// What has come of a worker that is to end, if anything.
fn end_of(instance: &Instance, pid: Option<u32>) -> Option<Unloaded> {
    match (instance.life.stage(), pid) {
        (Stage::Unkillable { .. }, _) => Some(Unloaded::Unkillable),
        (_, Some(pid)) => (instance.life.pid() != Some(pid)).then_some(Unloaded::Yes),
        (_, None) if has_gone(instance) => Some(Unloaded::Yes),
        // It was asked for meanwhile.
        (_, None) => (!instance.unload_wanted).then_some(Unloaded::StillWanted),
    }
}

/// It is loading, in use or waited for.
fn is_wanted(instance: &Instance) -> bool {
    let stage = instance.life.stage();
    matches!(
        stage,
        Stage::Loading { .. } | Stage::Stopping | Stage::Leased { .. }
    ) || !instance.waiters.is_empty()
}

/// It has no worker, and gets none as long as no request asks for it.
fn has_gone(instance: &Instance) -> bool {
    let stage = instance.life.stage();
    matches!(
        stage,
        Stage::Unloaded | Stage::Failed { .. } | Stage::Unkillable { .. }
    ) && instance.waiters.is_empty()
}
