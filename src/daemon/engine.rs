use std::sync::{Arc, PoisonError, RwLock};

use crate::admission::{Admission, EmbeddingError, EmbeddingRequest, Generation, QueueFigures};
use crate::generation::{GenerationError, GenerationRequest};
use crate::http::{Answering, Engine};
use crate::library_calls::PooledRows;
use crate::models::Catalog;
use crate::supervisor::{StatusBoard, Supervisor};
use crate::telemetry::Metrics;
use crate::tokenizers::{Encoded, Encoding, TokenizerError, Tokenizers};

/// What the HTTP layer sees of the layers below it.
pub(super) struct LocalEngine {
    pub admission: Admission,
    pub metrics: Metrics,
    /// Replaced as a whole by a reload.
    models: RwLock<Models>,
    status: StatusBoard,
    supervisor: Supervisor,
}

/// What is on disk, and what was started for it.
#[derive(Clone)]
struct Models {
    catalog: Arc<Catalog>,
    tokenizers: Tokenizers,
}

impl LocalEngine {
    pub fn new(
        admission: Admission,
        tokenizers: Tokenizers,
        catalog: Arc<Catalog>,
        status: StatusBoard,
        metrics: Metrics,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            admission,
            metrics,
            models: RwLock::new(Models {
                catalog,
                tokenizers,
            }),
            status,
            supervisor,
        }
    }

    pub fn set_models(&self, catalog: Arc<Catalog>, tokenizers: Tokenizers) {
        *self.models.write().unwrap_or_else(PoisonError::into_inner) = Models {
            catalog,
            tokenizers,
        };
    }

    fn models(&self) -> Models {
        self.models
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Engine for LocalEngine {
    fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError> {
        self.admission.submit(request)
    }

    fn embed(&self, request: EmbeddingRequest) -> Answering<'_, PooledRows, EmbeddingError> {
        Box::pin(self.admission.embed(request))
    }

    fn encode<'a>(
        &'a self,
        model: &'a str,
        text: String,
        how: Encoding,
    ) -> Answering<'a, Encoded, TokenizerError> {
        let tokenizers = self.models().tokenizers;
        Box::pin(async move { tokenizers.encode(model, text, how).await })
    }

    fn decode<'a>(
        &'a self,
        model: &'a str,
        tokens: Vec<u32>,
    ) -> Answering<'a, String, TokenizerError> {
        let tokenizers = self.models().tokenizers;
        Box::pin(async move { tokenizers.decode(model, tokens).await })
    }

    fn queue(&self, model: &str) -> QueueFigures {
        self.admission.queue(model)
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.models().catalog
    }

    fn status(&self) -> StatusBoard {
        self.status.clone()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn supervisor(&self) -> Option<Supervisor> {
        Some(self.supervisor.clone())
    }
}
