use std::pin::Pin;
use std::sync::Arc;

use crate::admission::{EmbeddingError, EmbeddingRequest, Generation, QueueFigures};
use crate::generation::{GenerationError, GenerationRequest};
use crate::library_calls::PooledRows;
use crate::models::Catalog;
use crate::supervisor::{StatusBoard, Supervisor};
use crate::telemetry::Metrics;
use crate::tokenizers::{Encoded, Encoding, TokenizerError};

/// An answer that is being made; dropping it means that nobody wants it any more.
pub type Answering<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Everything HTTP needs from the layers below it. The daemon implements it over admission and the
/// supervisor; the tests of this layer implement it with scripted events.
pub trait Engine: Send + Sync + 'static {
    /// Queues a request; dropping the `Generation` cancels it.
    fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError>;

    /// Queues a request for hidden states and waits for them; dropping the future cancels it.
    fn embed(&self, request: EmbeddingRequest) -> Answering<'_, PooledRows, EmbeddingError>;

    /// The tokens of `text`. Waits for no run.
    fn encode<'a>(
        &'a self,
        model: &'a str,
        text: String,
        how: Encoding,
    ) -> Answering<'a, Encoded, TokenizerError>;

    /// The text of `tokens`. Waits for no run.
    fn decode<'a>(
        &'a self,
        model: &'a str,
        tokens: Vec<u32>,
    ) -> Answering<'a, String, TokenizerError>;

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
