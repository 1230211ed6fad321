//! The OpenAI dialect: its requests become a `GenerationRequest`, its answers are made of token
//! events. What OpenAI knows and this daemon does not do is refused by name; what it does
//! not know either is ignored; null and neutral values count as absent.

pub(crate) mod answer;
mod anthropic_models;
pub(crate) mod apply_template;
pub(crate) mod bodies;
pub(crate) mod chat;
pub(crate) mod chunk;
mod chunk_schema;
pub(crate) mod completions;
pub(crate) mod embedding_answer;
pub(crate) mod embeddings;
mod logprobs;
pub(crate) mod messages;
pub(crate) mod models;

use std::sync::Arc;

use axum::routing::{get, post};

use crate::http::HttpState;
use crate::http::request::endpoints::Endpoints;

pub(crate) fn routes() -> Endpoints<Arc<HttpState>> {
    Endpoints::new()
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/apply-template", post(apply_template::apply_template))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list_models))
        .route("/v1/models/{*id}", get(models::retrieve_model))
}
