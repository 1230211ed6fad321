//! What a request's run is begun with, and what it came to.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::generation::{GenerationRequest, ReplyEvent};
use crate::reader::Readers;
use crate::supervisor::Supervisor;
use crate::telemetry::Metrics;

/// A request whose turn has come.
#[derive(Debug)]
pub struct RunJob {
    /// Unique in the daemon's life.
    pub run: u64,
    pub request: GenerationRequest,
    pub events: mpsc::Sender<ReplyEvent>,
    pub submitted_at: Instant,
    /// Requests that were ahead of it when it was queued.
    pub queue_position: u32,
    /// Becomes true when the daemon stops waiting for running answers.
    pub cut_off: watch::Receiver<bool>,
}

/// What every run needs.
#[derive(Clone, Debug)]
pub struct RunServices {
    pub supervisor: Supervisor,
    /// They know the tokens of models.
    pub readers: Readers,
    pub metrics: Metrics,
}

/// What a request came to, and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub extent: Extent,
    /// How long it had a worker, or waited for another one: its reader may take longer.
    pub time: Duration,
    /// Tokens that were evaluated and made for it, as far as the runtime told.
    pub tokens: u64,
}

/// Whether a request was answered to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// Refused, lost, failed or cancelled.
    CutShort,
}
