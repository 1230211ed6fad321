//! The sizes of the loaded model: what its files tell, and what its results have shown since.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rkllm_sys::Matrix;

use crate::library_calls::ModelShape;

/// Cheap to clone; callbacks learn while the NPU thread reads.
#[derive(Clone, Debug)]
pub struct KnownShape {
    told: ModelShape,
    /// 0: not seen yet.
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    vocabulary_tokens: AtomicU32,
    embedding_columns: AtomicU32,
}

impl KnownShape {
    pub fn new(told: ModelShape) -> Self {
        Self {
            told,
            seen: Arc::default(),
        }
    }

    pub fn get(&self) -> ModelShape {
        let seen = |size: &AtomicU32| Some(size.load(Ordering::Relaxed)).filter(|&size| size > 0);
        ModelShape {
            vocabulary_tokens: (self.told.vocabulary_tokens)
                .or_else(|| seen(&self.seen.vocabulary_tokens)),
            embedding_columns: (self.told.embedding_columns)
                .or_else(|| seen(&self.seen.embedding_columns)),
            ..self.told
        }
    }

    /// Hidden states are as wide as embeddings, and logits have a number for each token.
    pub fn learn(&self, hidden_states: Option<&Matrix<'_>>, logits: Option<&Matrix<'_>>) {
        for (matrix, size) in [
            (hidden_states, &self.seen.embedding_columns),
            (logits, &self.seen.vocabulary_tokens),
        ] {
            if let Some(columns) = matrix.and_then(|matrix| u32::try_from(matrix.columns).ok()) {
                size.store(columns, Ordering::Relaxed);
            }
        }
    }
}
