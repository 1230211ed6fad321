use std::sync::Arc;

use super::variants::Served;
use crate::admission::{Admission, EmbeddingError, EmbeddingRequest, Generation, QueueFigures};
use crate::board::{BoardSample, BoardWatch};
use crate::chat::{Answering, Engine};
use crate::constraint::{Compiled, Limits, Wanted};
use crate::generation::{GenerationError, GenerationRequest, ModelId, RequestId};
use crate::ipc::Prompt;
use crate::library_calls::PooledRows;
use crate::models::{Catalog, InstalledModel, Variant, VariantError};
use crate::prompt::{ControlTokenPolicy, RenderRequest};
use crate::reader::{Encoded, Encoding, ReaderError, Readers};
use crate::supervisor::{StatusBoard, Supervisor};
use crate::telemetry::Metrics;

/// What the HTTP layer sees of the layers below it.
pub(super) struct LocalEngine {
    pub admission: Admission,
    pub metrics: Metrics,
    pub readers: Readers,
    pub models: Arc<Served>,
    status: StatusBoard,
    supervisor: Supervisor,
    board: Option<BoardWatch>,
}

impl LocalEngine {
    pub fn new(
        admission: Admission,
        readers: Readers,
        models: Served,
        status: StatusBoard,
        metrics: Metrics,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            admission,
            metrics,
            readers,
            models: Arc::new(models),
            status,
            supervisor,
            board: None,
        }
    }

    /// With what is known of the board.
    #[must_use]
    pub fn watching(self, board: BoardWatch) -> Self {
        Self {
            board: Some(board),
            ..self
        }
    }
}

impl Engine for LocalEngine {
    fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError> {
        self.admission.submit(request)
    }

    fn embed(&self, request: EmbeddingRequest) -> Answering<'_, PooledRows, EmbeddingError> {
        Box::pin(self.admission.embed(request))
    }

    fn render<'a>(
        &'a self,
        model: &'a InstalledModel,
        request: &'a RenderRequest,
    ) -> Answering<'a, Prompt, ReaderError> {
        Box::pin(self.readers.render(model, request))
    }

    fn plain<'a>(
        &'a self,
        model: &'a InstalledModel,
        texts: Vec<String>,
        policy: Option<ControlTokenPolicy>,
        with_tokens: bool,
    ) -> Answering<'a, Vec<Prompt>, ReaderError> {
        Box::pin(self.readers.plain(model, texts, policy, with_tokens))
    }

    fn encode<'a>(
        &'a self,
        model: &'a InstalledModel,
        text: String,
        how: Encoding,
    ) -> Answering<'a, Encoded, ReaderError> {
        Box::pin(self.readers.encode(model, text, how))
    }

    fn decode<'a>(
        &'a self,
        model: &'a InstalledModel,
        tokens: Vec<u32>,
    ) -> Answering<'a, String, ReaderError> {
        Box::pin(self.readers.decode(model, tokens))
    }

    fn constrain<'a>(
        &'a self,
        model: &'a InstalledModel,
        wanted: Wanted,
        limits: Limits,
    ) -> Answering<'a, Compiled, ReaderError> {
        Box::pin(self.readers.constrain(model, wanted, limits))
    }

    fn save_variant(&self, variant: Variant) -> Answering<'_, (), VariantError> {
        Box::pin(self.models.save(variant))
    }

    fn remove_variant(&self, name: ModelId) -> Answering<'_, (), VariantError> {
        Box::pin(self.models.remove(name.to_string()))
    }

    fn queue(&self, model: &str) -> QueueFigures {
        self.admission.queue(model)
    }

    fn waiting(&self, model: &str) -> Vec<Option<RequestId>> {
        self.admission.waiting(model)
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.models.catalog()
    }

    fn status(&self) -> StatusBoard {
        self.status.clone()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn board(&self) -> Option<Arc<BoardSample>> {
        self.board.as_ref()?.latest()
    }

    fn readers(&self) -> Option<Readers> {
        Some(self.readers.clone())
    }

    fn supervisor(&self) -> Option<Supervisor> {
        Some(self.supervisor.clone())
    }
}
