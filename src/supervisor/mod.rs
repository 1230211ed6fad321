//! Owns the workers: their processes, their state, their deadlines.

mod process_figures;
mod status;

pub use status::{LoadProgress, ModelStatus, Phase, RuntimeFacts, StatusBoard, StatusSnapshot};
