//! Ollama's API: lines of JSON by default, calls with objects as arguments, durations in nanoseconds that
//! were measured, names with and without `:latest` in any case. What the daemon does not do is refused by
//! its field's name, or told in `x-rkllmd-not-applied` where an answer is none the worse for it.
//!
//! Functions, sampling values and embeddings are OpenAI's by other names, so those are read and checked
//! where OpenAI's are.

mod answer;
pub(crate) mod bodies;
pub(crate) mod chat;
pub(crate) mod context;
mod details;
pub(crate) mod embed;
pub(crate) mod error;
pub(crate) mod generate;
mod keep_alive;
mod line_writer;
mod loading;
pub(crate) mod making;
pub(crate) mod messages;
pub(crate) mod models;
mod names;
pub(crate) mod options;
pub(crate) mod parameters;
pub(crate) mod pulling;
pub(crate) mod refused;
pub(crate) mod text_parameters;
mod told_calls;
pub(crate) mod version;

use std::sync::Arc;

use axum::routing::{delete, get, post};

use crate::http::HttpState;
use crate::http::request::endpoints::Endpoints;

pub(crate) fn routes() -> Endpoints<Arc<HttpState>> {
    Endpoints::new()
        .route("/", get(version::root))
        .route("/api/version", get(version::version))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::ps))
        .route("/api/show", post(models::show))
        .route("/api/chat", post(chat::chat))
        .route("/api/generate", post(generate::generate))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embeddings))
        .route("/api/pull", post(pulling::pull))
        .route("/api/push", post(refused::push))
        .route("/api/create", post(making::create))
        .route("/api/copy", post(making::copy))
        .route("/api/delete", delete(making::delete))
        .route(
            "/api/blobs/{digest}",
            post(refused::blob).head(refused::no_blob),
        )
}
