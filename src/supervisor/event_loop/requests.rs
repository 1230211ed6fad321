//! What asks for a lease: where it waits, or why it cannot.

use std::time::Instant;

use super::{EventLoop, QueueEnd, has_worker, unavailable};
use crate::generation::{GenerationError, ModelId};
use crate::supervisor::instance::Instance;
use crate::supervisor::lifecycle::{FailedBy, Stage};
use crate::supervisor::waiter::{LeaseRequest, Waiter};

impl EventLoop {
    pub(super) fn request(
        &mut self,
        model: &ModelId,
        queue_end: QueueEnd,
        request: Option<LeaseRequest>,
    ) {
        if let Some(error) = self.refusal(model) {
            if let Some(request) = request {
                let _ = request.reply.send(Err(error));
            }
            return;
        }
        let Some(instance) = self.instances.get_mut(model) else {
            return;
        };
        match queue_end {
            QueueEnd::Front | QueueEnd::FrontAndAlone => instance.waiters.push_front(Waiter {
                sequence: 0,
                request,
            }),
            QueueEnd::Back => {
                self.sequence += 1;
                let sequence = self.sequence;
                instance.waiters.push_back(Waiter { sequence, request });
            }
        }
    }

    /// Why a request for this model cannot wait for a worker.
    pub(super) fn refusal(&self, model: &ModelId) -> Option<GenerationError> {
        let Some(instance) = self.instances.get(model) else {
            let model = model.to_string();
            return Some(GenerationError::UnknownModel { model });
        };
        if self.shutting_down.is_some() || instance.is_closing {
            return Some(GenerationError::ShuttingDown);
        }
        if let Some(reason) = self.blocked(instance) {
            return Some(unavailable(model, reason, None));
        }
        match instance.life.stage() {
            Stage::Failed {
                by: FailedBy::Load,
                retry_at,
            } => {
                let wait = retry_at.saturating_duration_since(Instant::now());
                (!wait.is_zero()).then(|| unavailable(model, instance.reason.clone(), Some(wait)))
            }
            _ => None,
        }
    }

    /// Why no worker of this model can be started until the machine was rebooted.
    pub(super) fn blocked(&self, instance: &Instance) -> Option<String> {
        if instance.is_unkillable() {
            return Some(instance.reason.clone());
        }
        let blocker = self
            .instances
            .values()
            .find(|other| instance.uses_npu() && other.uses_npu() && other.is_unkillable())?;
        // A worker that is up may go on; it is starting another one that hangs.
        (!has_worker(instance)).then(|| format!("the NPU is blocked: {}", blocker.reason))
    }
}
