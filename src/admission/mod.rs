//! Accepts, orders or refuses requests. Between `submit` and the first event a request waits in a
//! bounded queue; dropping its `Generation` frees its place at once, wherever it is.

mod generation_stream;

pub use generation_stream::Generation;

use crate::generation::{GenerationError, GenerationRequest};

/// The front door to all models.
#[derive(Debug)]
pub struct Admission {}

impl Admission {
    /// Queues a request. Fails at once when the model is unknown, the queue is full or the daemon
    /// is shutting down; every later failure arrives as an event.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError> {
        Err(GenerationError::UnknownModel {
            model: request.model.to_string(),
        })
    }

    /// Requests waiting for a model, and how many may wait.
    pub fn queue(&self, _model: &str) -> QueueFigures {
        QueueFigures {
            waiting: 0,
            capacity: 0,
        }
    }
}

/// How full a model's queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFigures {
    pub waiting: usize,
    pub capacity: usize,
}
