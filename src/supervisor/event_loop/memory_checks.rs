//! Looks at what each worker holds, from its first moment on, and replaces or kills the one that has
//! too much. `memory_limits` decides; a load that is killed here tells the limit as its reason.

use std::time::Instant;

use super::EventLoop;
use crate::supervisor::exit_report::EndReason;
use crate::supervisor::memory_limits::{self, Verdict};
use crate::supervisor::worker_memory;

impl EventLoop {
    /// When workers are to be measured next; `None`: there is none.
    pub(super) fn next_memory_check(&self) -> Option<Instant> {
        let any = self.slots.values().any(|slot| slot.process().is_some());
        any.then(|| self.memory_checked + self.rules.memory.interval)
    }

    pub(super) fn check_memory(&mut self) {
        let now = Instant::now();
        if now < self.memory_checked + self.rules.memory.interval {
            return;
        }
        self.memory_checked = now;
        let mut too_large = Vec::new();
        for (model, slot) in &mut self.slots {
            let Some(process) = slot.process() else {
                continue;
            };
            process.refresh_oom_watch();
            let pid = process.pid;
            slot.memory = worker_memory::measure(pid);
            let Some(memory) = slot.memory else { continue };
            let bytes = memory.total_bytes();
            match memory_limits::verdict(&memory, self.rules.memory.limits) {
                Verdict::Fine => {}
                // What a load takes for a moment is no reason to replace what it brings up.
                Verdict::RecycleWhenIdle if slot.is_loading() => {}
                Verdict::RecycleWhenIdle => {
                    if !slot.recycle {
                        tracing::warn!(
                            model = &**model,
                            pid,
                            bytes,
                            "a worker is over its soft memory limit"
                        );
                    }
                    slot.recycle = true;
                    too_large.push(model.clone());
                }
                Verdict::Kill => {
                    tracing::error!(
                        model = &**model,
                        pid,
                        bytes,
                        "a worker is over its hard memory limit"
                    );
                    if let Some(process) = slot.process() {
                        process.kill(EndReason::MemoryLimit);
                    }
                }
            }
        }
        for model in too_large {
            self.replace(&model, EndReason::Recycled);
        }
    }
}
