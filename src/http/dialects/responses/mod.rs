//! OpenAI's responses: items in, items out, whole or as numbered events, and kept for requests that go on from them. What a
//! request asks for in a form that is not known here, be it an item, a tool or a field, is told in
//! `x-rkllmd-not-applied`, because its clients send what their newest server knows; what would change the answer's
//! meaning, such as an image, is refused by its field's name.
//!
//! Sampling values and log probabilities are those of OpenAI's chats, so they are checked where those are.

mod answer;
pub(crate) mod background;
pub(crate) mod bodies;
pub(crate) mod compact;
pub(crate) mod create;
pub(crate) mod create_parameters;
mod echo;
pub(crate) mod error;
mod event_bodies;
mod event_writer;
pub(crate) mod events;
mod follow;
mod history;
pub(crate) mod input;
pub(crate) mod input_tokens;
pub(crate) mod kept;
mod last_response;
mod open_item;
mod output;
pub(crate) mod parameters;
pub(crate) mod reasoning;
pub(crate) mod socket;
pub(crate) mod text_format;
pub(crate) mod tools;

use std::sync::Arc;

use axum::routing::{get, post};

use crate::http::HttpState;
use crate::http::request::endpoints::Endpoints;

pub(crate) fn routes() -> Endpoints<Arc<HttpState>> {
    Endpoints::new()
        .route("/v1/responses", post(create::create).get(socket::open))
        .route(
            "/v1/responses/input_tokens",
            post(input_tokens::input_tokens),
        )
        .route("/v1/responses/compact", post(compact::compact))
        .route(
            "/v1/responses/{id}",
            get(kept::retrieve).delete(kept::delete),
        )
        .route("/v1/responses/{id}/input_items", get(kept::input_items))
        .route("/v1/responses/{id}/cancel", post(background::cancel))
}
