//! Looks at what each worker holds, from its first moment on, and replaces or kills the one that has
//! too much. `memory_limits` decides; a load that is killed here tells the limit as its reason.

use std::time::Instant;

use super::{EventLoop, Message};
use crate::children::EndReason;
use crate::children::memory::ProcessMemory;
use crate::generation::ModelId;
use crate::supervisor::memory_limits::{self, Pressure};

impl EventLoop {
    /// When workers are to be measured next; `None`: there is none.
    pub(super) fn next_memory_check(&self) -> Option<Instant> {
        let any = self
            .instances
            .values()
            .any(|instance| instance.process().is_some());
        any.then(|| self.memory_checked + self.rules.memory.settings.check_interval)
    }

    /// Begins to measure every worker that is not being measured. The kernel may take its time, or
    /// not answer at all, so the results come back as messages.
    pub(super) fn check_memory(&mut self) {
        let now = Instant::now();
        if now < self.memory_checked + self.rules.memory.settings.check_interval {
            return;
        }
        self.memory_checked = now;
        for (model, instance) in &mut self.instances {
            let Some((pid, measured)) = instance.begin_measuring() else {
                continue;
            };
            let (sender, model) = (self.sender.clone(), model.clone());
            tokio::spawn(async move {
                let memory = measured.await;
                let _ = sender.send(Message::Measured { model, pid, memory });
            });
        }
    }

    /// Acts on what a worker holds; `None`: it is not known.
    pub(super) fn measured(&mut self, model: &ModelId, pid: u32, memory: Option<ProcessMemory>) {
        let limits = self.rules.memory.limits(self.loader.beside.bytes());
        let Some(instance) = self.instances.get_mut(model) else {
            return;
        };
        if !instance.is_measured(pid, memory) {
            return;
        }
        let Some(memory) = memory else { return };
        let bytes = memory.total_bytes();
        match memory_limits::pressure(&memory, instance.least_bytes, limits) {
            Pressure::None => {}
            // What a load takes for a moment is no reason to replace what it brings up.
            Pressure::Soft if instance.is_loading() => {}
            Pressure::Soft => {
                if instance.condemned.is_none() {
                    tracing::warn!(
                        model = &**model,
                        pid,
                        bytes,
                        "a worker is over its soft memory limit"
                    );
                }
                instance.condemned.get_or_insert(EndReason::Recycled);
                self.replace(model, EndReason::Recycled);
            }
            Pressure::Hard => {
                tracing::error!(
                    model = &**model,
                    pid,
                    bytes,
                    "a worker is over its hard memory limit"
                );
                // A large one takes a while to go: no run is put on it meanwhile.
                instance.condemned = Some(EndReason::MemoryLimit);
                if let Some(process) = instance.process() {
                    process.kill(EndReason::MemoryLimit);
                }
                self.replace(model, EndReason::MemoryLimit);
            }
        }
    }
}
