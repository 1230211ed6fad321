//! An instance as others see it: as a candidate for a place, and in the status that clients read.

use std::time::Instant;

use super::Instance;
use crate::generation::KeepAlive;
use crate::models::{SlotLimits, SlotPlan};
use crate::supervisor::lifecycle::Stage;
use crate::supervisor::placement::{self, Occupancy};
use crate::supervisor::status::{ModelStatus, Phase};
use crate::supervisor::waiter;

impl Instance {
    /// `order`: the arrivals of the requests that wait for leases, the next one first. `keep_alive`: the
    /// setting of all models.
    pub fn candidate(&self, order: &[u64], keep_alive: KeepAlive) -> placement::Candidate {
        let (occupancy, not_before) = match self.life.stage() {
            // It is no more ready for requests than while it is loaded.
            Stage::Leased { .. } | Stage::Idle { .. } if self.is_held_back() => {
                (Occupancy::Busy, None)
            }
            Stage::Unloaded => (Occupancy::Empty, None),
            Stage::Failed { retry_at, .. } => (Occupancy::Empty, Some(retry_at)),
            Stage::Loading { .. } => (Occupancy::Busy, None),
            Stage::Leased { loaded_at, .. } => {
                let has_room = self.can_be_joined();
                let in_use = Occupancy::InUse {
                    loaded_at,
                    has_room,
                };
                (in_use, None)
            }
            Stage::Stopping | Stage::Ending { .. } => (Occupancy::Leaving, None),
            Stage::Unkillable { .. } => (Occupancy::Stuck, None),
            Stage::Idle {
                loaded_at,
                last_used,
                ..
            } => {
                let idle = Occupancy::Idle {
                    loaded_at,
                    last_used,
                };
                (idle, None)
            }
        };
        placement::Candidate {
            occupancy,
            uses_npu: self.uses_npu(),
            not_before,
            oldest_waiter: waiter::first_place(&self.waiters, order),
            may_evict: self.waiters.iter().any(|waiter| waiter.request.is_some()),
            kept_until: self.kept(keep_alive).until(Instant::now()).time(),
        }
    }

    /// `blocked`: why no worker can be started. `limits`: what its slots may have. `keep_alive`: the setting
    /// of all models.
    pub fn status(
        &self,
        blocked: Option<String>,
        limits: SlotLimits,
        keep_alive: KeepAlive,
    ) -> ModelStatus {
        let phase = match self.life.stage() {
            Stage::Unloaded => Phase::Unloaded,
            Stage::Loading { .. } => self
                .load
                .as_ref()
                .map_or(Phase::Spawning, |load| load.phase.clone()),
            Stage::Idle { .. } => Phase::Ready,
            Stage::Leased { .. } => Phase::Running,
            Stage::Stopping | Stage::Ending { .. } => Phase::Unloading,
            Stage::Failed { retry_at, .. } => Phase::Failed {
                reason: self.reason.clone(),
                retry_at,
            },
            Stage::Unkillable { .. } => Phase::Unkillable {
                reason: self.reason.clone(),
            },
        };
        ModelStatus {
            phase,
            since: self.since,
            pid: self.life.pid(),
            facts: self.facts.clone(),
            memory: self.memory,
            plan: Some(SlotPlan::of(
                &self.model,
                self.model.facts.context_tokens(),
                limits,
            )),
            slots: self.slots(),
            decode_tokens_per_second: self.measured.decode_tokens_per_second,
            kept: self.kept(keep_alive),
            blocked,
        }
    }
}
