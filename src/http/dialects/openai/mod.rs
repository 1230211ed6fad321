//! The OpenAI dialect: its requests become a `GenerationRequest`, its answers are made of token
//! events. What OpenAI knows and this daemon does not do is refused by name; what it does
//! not know either is ignored; null and neutral values count as absent.

pub(crate) mod answer;
mod anthropic_models;
pub(crate) mod bodies;
pub(crate) mod chat;
pub(crate) mod chunk;
mod chunk_schema;
pub(crate) mod completions;
pub(crate) mod embedding_answer;
pub(crate) mod embeddings;
pub(crate) mod format_fields;
pub(crate) mod ignored;
mod logit_bias;
pub(crate) mod logprobs;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod parameters;
pub(crate) mod reasoning;
mod response_format;
mod tool_choice;
pub(crate) mod tools;

use std::sync::Arc;

use axum::routing::{get, post};

use crate::http::HttpState;
use crate::http::request::endpoints::Endpoints;

pub(crate) fn routes() -> Endpoints<Arc<HttpState>> {
    Endpoints::new()
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list_models))
        .route("/v1/models/{*id}", get(models::retrieve_model))
}
