//! Endpoints that OpenAI does not have and llama.cpp's server does, in that server's shapes: what a
//! chat becomes before it is run, and texts as tokens. `model` is added, because several are served.
//! Nothing here uses the NPU or waits for it.

pub(crate) mod apply_template;
pub(crate) mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::status::PublicError;

pub(crate) fn routes() -> Router<Arc<HttpState>> {
    Router::new()
        .route("/apply-template", post(apply_template::apply_template))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
}

/// Writes down how a request ended that asked for no generation.
fn ended<T>(context: &RequestContext, result: Result<T, RequestError>) -> Result<T, RequestError> {
    match &result {
        Ok(_) => context.ended(),
        Err(RequestError::ClientLeft) => {}
        Err(error) => context.failed(PublicError::of(error).code),
    }
    result
}
