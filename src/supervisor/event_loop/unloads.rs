//! Who waits for a model to be unloaded.

use tokio::sync::oneshot;

use super::EventLoop;
use crate::generation::ModelId;
use crate::supervisor::by_request::Unloaded;
use crate::supervisor::lifecycle::Stage;

/// The end of a worker that somebody waits for.
pub(super) struct AwaitedEnd {
    model: ModelId,
    pid: u32,
    reply: oneshot::Sender<Unloaded>,
}

impl EventLoop {
    /// Ends a worker that nothing uses or waits for.
    pub(super) fn unload(&mut self, model: &ModelId, reply: oneshot::Sender<Unloaded>) {
        let Some(instance) = self.instances.get(model) else {
            let _ = reply.send(Unloaded::Yes);
            return;
        };
        let pid = match instance.life.stage() {
            _ if !instance.waiters.is_empty() => Err(Unloaded::StillWanted),
            Stage::Loading { .. } | Stage::Stopping | Stage::Leased { .. } => {
                Err(Unloaded::StillWanted)
            }
            Stage::Unloaded | Stage::Failed { .. } => Err(Unloaded::Yes),
            Stage::Unkillable { .. } => Err(Unloaded::Unkillable),
            Stage::Idle { pid, .. } | Stage::Ending { pid, .. } => Ok(pid),
        };
        match pid {
            Err(answer) => drop(reply.send(answer)),
            Ok(pid) => {
                // One that is ending already has its end under way.
                self.evict(model);
                let model = ModelId::clone(model);
                self.awaited_ends.push(AwaitedEnd { model, pid, reply });
            }
        }
    }

    /// Tells of the ends that have come. Only what the status shows is told.
    pub(super) fn tell_ends(&mut self) {
        let instances = &self.instances;
        let ended = self.awaited_ends.extract_if(.., |awaited| {
            let instance = instances.get(&awaited.model);
            let is_there = instance.filter(|it| it.life.pid() == Some(awaited.pid));
            is_there.is_none_or(|it| it.is_unkillable())
        });
        for AwaitedEnd { model, pid, reply } in ended {
            let instance = instances.get(&model);
            let is_there = instance.is_some_and(|it| it.life.pid() == Some(pid));
            let _ = reply.send(match is_there {
                true => Unloaded::Unkillable,
                false => Unloaded::Yes,
            });
        }
    }
}
