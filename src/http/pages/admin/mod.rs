//! What administrators see and change over HTTP. Each change leaves a line in the log that says who made it, of
//! what, and from where.

pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod requests;

use std::sync::Arc;

use axum::routing::{delete, get};

use crate::http::HttpState;
use crate::http::request::endpoints::Endpoints;

pub(in crate::http) fn routes() -> Endpoints<Arc<HttpState>> {
    Endpoints::new()
        .route("/v1/doctor", get(doctor::examine))
        .route(
            "/v1/admin/keys",
            get(keys::list_keys).post(keys::create_key),
        )
        .route("/v1/admin/keys/{name}", delete(keys::revoke_key))
        .route("/v1/admin/requests", get(requests::list_requests))
        .route("/v1/admin/requests/{id}", delete(requests::abort_request))
        .route("/v1/admin/logs", get(logs::recent_logs))
        .route("/v1/admin/events", get(events::follow_events))
}
