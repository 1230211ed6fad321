//! Endpoints that OpenAI does not have and llama.cpp's server does, in that server's shapes: texts
//! as tokens, texts that go on, and which models are loaded. `model` is what its router has, because several are
//! served. What is not known is absent. What a chat becomes before it is run is told beside OpenAI's chats, whose
//! bodies it takes.

pub(crate) mod bodies;
pub(crate) mod completion;
pub(crate) mod downloads;
pub(crate) mod infill;
pub(crate) mod loading;
pub(crate) mod model_events;
mod named;
mod probabilities;
mod prompt_input;
pub(crate) mod props;
pub(crate) mod rerank;
mod rerank_input;
pub(crate) mod slots;
pub(crate) mod tokens;

use std::sync::Arc;

use axum::routing::{get, post};

use crate::http::HttpState;
use crate::http::request::endpoints::Endpoints;

pub(crate) fn routes() -> Endpoints<Arc<HttpState>> {
    Endpoints::new()
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/completion", post(completion::completion))
        .route("/infill", post(infill::infill))
        .route("/v1/rerank", post(rerank::rerank))
        .route(
            "/v1/models",
            post(downloads::download_model).delete(downloads::remove_model),
        )
        .route("/models/load", post(loading::load))
        .route("/models/unload", post(loading::unload))
        .route("/models/sse", get(model_events::follow))
        .route("/props", get(props::props))
        .route("/slots", get(slots::slots))
}
