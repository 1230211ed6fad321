//! What becomes of a request, and how far it is.

use std::time::Instant;

use axum::http::StatusCode;

use crate::generation::ModelId;
use crate::telemetry::{Changes, Metrics};

/// What is learnt about a request while it is served. Never its content.
#[derive(Default)]
pub(super) struct Outcome {
    pub status: Option<StatusCode>,
    /// Set for a request for a generation, until it is counted.
    pub uncounted: Option<Metrics>,
    pub model: Option<ModelId>,
    /// When it entered the queue, until it leaves it.
    pub queued_since: Option<Instant>,
    pub prompt_tokens: Option<u32>,
    pub completion_tokens: Option<u32>,
    pub error: Option<&'static str>,
    pub ended: bool,
    pub stage: Stage,
    pub stage_since: Option<Instant>,
    /// Who follows is told of it, as it is listed.
    pub changes: Option<Changes>,
}

/// How far a request is that a model serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is read, or its prompt is made.
    #[default]
    Preparing,
    Waiting,
    Running,
    /// It waits and is served in turns.
    InTurns,
}

impl Outcome {
    pub fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.stage_since = Some(Instant::now());
    }

    pub fn model_label(&self) -> &str {
        self.model.as_deref().unwrap_or_default()
    }

    /// Counts the request unless that was done. Gives the metrics to the caller that counted it.
    pub fn count(&mut self, outcome: &'static str) -> Option<Metrics> {
        let metrics = self.uncounted.take()?;
        metrics.request_ended(self.model_label(), outcome);
        Some(metrics)
    }
}
