use std::sync::{Arc, PoisonError, RwLock};

use crate::admission::{Admission, Generation, QueueFigures};
use crate::generation::{GenerationError, GenerationRequest};
use crate::http::Engine;
use crate::models::Catalog;
use crate::supervisor::StatusBoard;
use crate::telemetry::Metrics;

/// What the HTTP layer sees of the layers below it.
pub(super) struct LocalEngine {
    pub admission: Admission,
    /// Replaced as a whole by a reload.
    catalog: RwLock<Arc<Catalog>>,
    status: StatusBoard,
    metrics: Metrics,
}

impl LocalEngine {
    pub fn new(
        admission: Admission,
        catalog: Arc<Catalog>,
        status: StatusBoard,
        metrics: Metrics,
    ) -> Self {
        Self {
            admission,
            catalog: RwLock::new(catalog),
            status,
            metrics,
        }
    }

    pub fn set_catalog(&self, catalog: Arc<Catalog>) {
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = catalog;
    }
}

impl Engine for LocalEngine {
    fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError> {
        self.admission.submit(request)
    }

    fn queue(&self, model: &str) -> QueueFigures {
        self.admission.queue(model)
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn status(&self) -> StatusBoard {
        self.status.clone()
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
