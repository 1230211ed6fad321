//! What publishes models, and installs them by their parts. Neither is done here, so each of these says how it
//! is done instead.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::error::OllamaError;
use crate::http::HttpState;
use crate::http::dialects::failed;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::parsed;

const ADD: &str =
    "an administrator puts models into the models folder, then reloads, or pulls them by /api/pull";

/// Which model it is about.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NamedModel {
    /// Its name.
    model: Option<String>,
    /// The older name of `model`.
    name: Option<String>,
}

impl NamedModel {
    pub(super) fn new(model: Option<String>, name: Option<String>) -> Self {
        Self { model, name }
    }

    /// The one that is given.
    pub(super) fn into_name(self) -> Option<String> {
        let name = self.model.filter(|name| !name.is_empty()).or(self.name);
        name.filter(|name| !name.is_empty())
    }
}

/// Publish a model; not offered
#[utoipa::path(post, path = "/api/push", tag = "ollama", request_body(content = NamedModel),
    responses((status = 400, description = "This is not offered", body = OllamaError)))]
pub(crate) async fn push(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<StatusCode, RequestError> {
    refuse(state, request, "no model leaves this machine").await
}

/// Upload a part of a model; not offered
#[utoipa::path(post, path = "/api/blobs/{digest}", tag = "ollama",
    params(("digest" = String, Path, description = "Of the part")),
    responses((status = 400, description = "This is not offered", body = OllamaError)))]
pub(crate) async fn blob(request: Request) -> RequestError {
    let context = RequestContext::of(request.extensions());
    // What is sent is not read: it may be a whole model.
    failed(&context, not_offered(&request, ADD))
}

/// Whether a part of a model is there: none is.
pub(crate) async fn no_blob() -> StatusCode {
    StatusCode::NOT_FOUND
}

fn not_offered(request: &Request, instead: &'static str) -> RequestError {
    RequestError::NotOffered {
        path: request.uri().path().to_owned(),
        instead,
    }
}

/// Refuses what names a model, installed or not.
async fn refuse(
    state: Arc<HttpState>,
    request: Request,
    instead: &'static str,
) -> Result<StatusCode, RequestError> {
    let context = RequestContext::of(request.extensions());
    let refusal = not_offered(&request, instead);
    let named = parsed(&state, &context, request, named).await;
    let error = named.map_or_else(|error| error, |_| refusal);
    Err(failed(&context, error))
}

fn named(
    _state: &HttpState,
    _context: &RequestContext,
    body: &[u8],
) -> Result<String, RequestError> {
    let named: NamedModel = fields(body)?;
    named
        .into_name()
        .ok_or_else(|| RequestError::missing("model"))
}
