//! The LoRA adapter that a generation is made with.

use std::sync::Arc;

/// One that its model's worker loads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapter {
    /// What runs choose it by.
    pub name: Arc<str>,
    /// Tells it from itself with another file or scale.
    pub stamp: String,
}
