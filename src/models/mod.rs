//! What is installed on disk: model files, their `model.toml`, chat templates and control tokens,
//! and where each fact came from.
//!
//! Reads files only. It never loads a model and never asks a worker, so `rkllmd models` works while
//! no daemon runs.

mod catalog;
mod chat_template;

pub use catalog::{Catalog, InstalledModel, ModelKind, ModelProblem, SamplingDefaults};
pub use chat_template::{ChatMessage, ChatRole, ChatTemplate, RenderOptions, TemplateError};
