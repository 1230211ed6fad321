use std::pin::Pin;
use std::sync::Arc;

use crate::admission::{EmbeddingError, EmbeddingRequest, Generation, QueueFigures};
use crate::board::BoardSample;
use crate::constraint::{Compiled, Limits, Wanted};
use crate::generation::{GenerationError, GenerationRequest, ModelId, RequestId};
use crate::hub::Pulls;
use crate::ipc::Prompt;
use crate::library_calls::PooledRows;
use crate::models::{Catalog, InstalledModel, Variant, VariantError};
use crate::prompt::{ControlTokenPolicy, RenderRequest};
use crate::reader::{Encoded, Encoding, ReaderError, Readers};
use crate::supervisor::{StatusBoard, Supervisor};
use crate::telemetry::Metrics;

/// An answer that is being made; dropping it means that it is not wanted any more.
pub type Answering<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Everything that chats and HTTP need from the layers below them. The daemon implements it over
/// admission and the supervisor; the tests of these layers implement it with scripted events.
pub trait Engine: Send + Sync + 'static {
    /// Queues a request; dropping the `Generation` cancels it.
    fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError>;

    /// Queues a request for hidden states and waits for them; dropping the future cancels it.
    fn embed(&self, request: EmbeddingRequest) -> Answering<'_, PooledRows, EmbeddingError>;

    /// The prompt of a conversation.
    fn render<'a>(
        &'a self,
        model: &'a InstalledModel,
        request: &'a RenderRequest,
    ) -> Answering<'a, Prompt, ReaderError>;

    /// Prompts of plain texts, in which control tokens stay text, or are refused, as `policy` says;
    /// without one they are control tokens.
    fn plain<'a>(
        &'a self,
        model: &'a InstalledModel,
        texts: Vec<String>,
        policy: Option<ControlTokenPolicy>,
        with_tokens: bool,
    ) -> Answering<'a, Vec<Prompt>, ReaderError>;

    /// The tokens of `text`. Waits for no run.
    fn encode<'a>(
        &'a self,
        model: &'a InstalledModel,
        text: String,
        how: Encoding,
    ) -> Answering<'a, Encoded, ReaderError>;

    /// The text of `tokens`. Waits for no run.
    fn decode<'a>(
        &'a self,
        model: &'a InstalledModel,
        tokens: Vec<u32>,
    ) -> Answering<'a, String, ReaderError>;

    /// The grammar of what an answer is to be. Waits for no run.
    fn constrain<'a>(
        &'a self,
        model: &'a InstalledModel,
        wanted: Wanted,
        limits: Limits,
    ) -> Answering<'a, Compiled, ReaderError>;

    /// Makes a model of an installed one, or replaces one that was made so, for good. The client's leaving
    /// takes nothing back.
    fn save_variant(&self, variant: Variant) -> Answering<'_, (), VariantError> {
        let name = variant.name.to_string();
        Box::pin(async move { Err(VariantError::nowhere(name)) })
    }

    /// Removes one for good.
    fn remove_variant(&self, name: ModelId) -> Answering<'_, (), VariantError> {
        let name = name.to_string();
        Box::pin(async move { Err(VariantError::nowhere(name)) })
    }

    /// How full the queue of a model is.
    fn queue(&self, model: &str) -> QueueFigures;

    /// The requests that wait for a model, in the order of their turns; `None` for one that is not known by its id.
    fn waiting(&self, _model: &str) -> Vec<Option<RequestId>> {
        Vec::new()
    }

    /// The models installed now.
    fn catalog(&self) -> Arc<Catalog>;

    /// Where each model's worker is in its life.
    fn status(&self) -> StatusBoard;

    /// Where the daemon counts; all layers share it.
    fn metrics(&self) -> &Metrics;

    /// What the board's sensors told last. `None`: the daemon has not looked.
    fn board(&self) -> Option<Arc<BoardSample>> {
        None
    }

    /// The processes that read models' files. `None`: there are none below.
    fn readers(&self) -> Option<Readers> {
        None
    }

    /// Brings models from a hub. `None`: none are installed below.
    fn pulls(&self) -> Option<Pulls> {
        None
    }

    /// Opens handles of the vendor's API. `None`: there are no workers below.
    fn supervisor(&self) -> Option<Supervisor> {
        None
    }
}
