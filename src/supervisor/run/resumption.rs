use std::time::{Duration, Instant};

use crate::children::ChildProcess;
use crate::generation::GenerationRequest;
use crate::supervisor::worker::Worker;
use crate::telemetry::Metrics;

/// How long a reader had to wait because of a lost worker.
pub(super) struct Resumption {
    exited_at: Instant,
    granted_at: Instant,
    load_time: Duration,
    pid: u32,
}

impl Resumption {
    /// The old worker has ended by now: its successor could not be started before.
    pub fn of(lost: Option<ChildProcess>, worker: &Worker, granted_at: Instant) -> Option<Self> {
        Some(Self {
            exited_at: lost?.exit_report()?.at,
            granted_at,
            load_time: worker.load_time,
            pid: worker.process.pid,
        })
    }

    /// Called at the first token that the new worker makes.
    pub fn report(&self, request: &GenerationRequest, metrics: &Metrics) {
        let waited = self.granted_at.saturating_duration_since(self.exited_at);
        let beyond_load = waited.saturating_sub(self.load_time);
        metrics.resume_gap(&request.model, self.exited_at.elapsed().as_secs_f64());
        metrics.resume_overhead(&request.model, beyond_load.as_secs_f64());
        tracing::info!(request = %request.id, model = &*request.model, pid = self.pid,
            gap_ms = self.exited_at.elapsed().as_millis(), load_ms = self.load_time.as_millis(),
            prefill_ms = self.granted_at.elapsed().as_millis(),
            beyond_us = beyond_load.as_micros(), "the answer goes on");
    }
}
