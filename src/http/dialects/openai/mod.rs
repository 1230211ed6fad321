//! The OpenAI dialect: its requests become a `GenerationRequest`, its answers are made of token
//! events. What OpenAI knows and this daemon does not do is refused by name; what it does
//! not know either is ignored; null and neutral values count as absent.

pub(crate) mod answer;
pub(crate) mod bodies;
pub(crate) mod chat;
mod chunk;
mod chunk_schema;
pub(crate) mod completions;
pub(crate) mod embedding_answer;
pub(crate) mod embedding_input;
pub(crate) mod embeddings;
mod ignored;
mod logit_bias;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod parameters;
pub(crate) mod reasoning;
mod response_format;
pub(crate) mod tools;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::http::HttpState;

pub(crate) fn routes() -> Router<Arc<HttpState>> {
    Router::new()
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list_models))
        .route("/v1/models/{*id}", get(models::retrieve_model))
}
