//! Anthropic's API: messages of blocks, answered whole or as named events, and counted before they are
//! sent. What a request asks for in a form that is not known here, be it a block, a tool or a field, is told
//! in `x-rkllmd-not-applied`, because its clients send what their newest server knows; what would change the
//! answer's meaning, such as an image, is refused by its field's name.
//!
//! Functions, sampling values and wishes to think are OpenAI's by other names, so those are checked where
//! OpenAI's are.

mod answer;
pub(crate) mod blocks;
pub(crate) mod bodies;
pub(crate) mod conversation;
pub(crate) mod count_tokens;
pub(crate) mod error;
mod event_writer;
pub(crate) mod messages;
pub(crate) mod output;
pub(crate) mod parameters;
pub(crate) mod thinking;
pub(crate) mod tools;

use std::sync::Arc;

use axum::routing::post;

use crate::http::HttpState;
use crate::http::request::endpoints::Endpoints;

pub(crate) fn routes() -> Endpoints<Arc<HttpState>> {
    Endpoints::new()
        .route("/v1/messages", post(messages::messages))
        .route(
            "/v1/messages/count_tokens",
            post(count_tokens::count_tokens),
        )
}
