//! What is installed on disk: model files, their `model.toml`, chat templates and control tokens,
//! and where each fact came from.
//!
//! Reads files only. It never loads a model and never asks a worker, so `rkllmd models` works while
//! no daemon runs. Files come from anywhere: every read is bounded, and a broken file is a problem
//! in words, never a panic.

mod catalog;
mod chat_template;
mod control_tokens;
mod conversation;
mod family;
mod gguf;
mod listing;
mod manifest;
mod model_entry;
mod model_files;
mod template_environment;
mod template_json;
mod template_source;
mod tokenizer_files;

pub use catalog::{
    Catalog, EmbeddingDefaults, InstalledModel, ModelKind, ModelProblem, SamplingDefaults,
};
pub use chat_template::{
    ChatMessage, ChatRole, ChatTemplate, RenderOptions, SpecialTokens, TemplateError,
};
pub use control_tokens::ControlTokens;
pub use family::TemplateFamily;
pub use listing::Listing;
pub use template_source::TemplateSource;
