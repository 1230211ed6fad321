use std::sync::Arc;

use crate::admission::{Generation, QueueFigures};
use crate::generation::{GenerationError, GenerationRequest};
use crate::models::Catalog;
use crate::supervisor::{StatusBoard, Supervisor};
use crate::telemetry::Metrics;

/// Everything HTTP needs from the layers below it. The daemon implements it over admission and the
/// supervisor; the tests of this layer implement it with scripted events.
pub trait Engine: Send + Sync + 'static {
    /// Queues a request; dropping the `Generation` cancels it.
    fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError>;

    /// How full the queue of a model is.
    fn queue(&self, model: &str) -> QueueFigures;

    /// The models installed now.
    fn catalog(&self) -> Arc<Catalog>;

    /// Where each model's worker is in its life.
    fn status(&self) -> StatusBoard;

    /// Where the daemon counts; all layers share it.
    fn metrics(&self) -> &Metrics;

    /// Opens handles of the vendor's API. `None`: there are no workers below.
    fn supervisor(&self) -> Option<Supervisor> {
        None
    }
}
