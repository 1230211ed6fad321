//! What changes which models there are. The daemon serves what lies in its models folder and changes
//! nothing there, so each of these says how it is done instead.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::error::OllamaError;
use crate::http::HttpState;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::installed;
use crate::http::request::parsed::parsed;
use crate::http::status::PublicError;

const ADD: &str = "an administrator puts models into the models folder, then reloads";
const REMOVE: &str = "an administrator removes models from the models folder, then reloads";
const ALIAS: &str = "other names of a model are `aliases` in its model.toml";

/// Which model it is about.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NamedModel {
    /// Its name.
    model: Option<String>,
    /// The older name of `model`.
    name: Option<String>,
    /// Of `/api/copy`.
    source: Option<String>,
}

/// Install a model; not offered
#[utoipa::path(post, path = "/api/pull", tag = "ollama", request_body(content = NamedModel),
    responses((status = 400, description = "This is not offered", body = OllamaError)))]
pub(crate) async fn pull(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<StatusCode, RequestError> {
    refuse(state, request, ADD).await
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

/// Make a model of another; not offered
#[utoipa::path(post, path = "/api/create", tag = "ollama", request_body(content = NamedModel),
    responses((status = 400, description = "This is not offered", body = OllamaError)))]
pub(crate) async fn create(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<StatusCode, RequestError> {
    refuse(state, request, ADD).await
}

/// Give a model another name; not offered
#[utoipa::path(post, path = "/api/copy", tag = "ollama", request_body(content = NamedModel),
    responses(
        (status = 400, description = "This is not offered", body = OllamaError),
        (status = 404, description = "There is no such model", body = OllamaError)))]
pub(crate) async fn copy(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<StatusCode, RequestError> {
    refuse_for_installed(state, request, ALIAS).await
}

/// Remove a model; not offered
#[utoipa::path(delete, path = "/api/delete", tag = "ollama", request_body(content = NamedModel),
    responses(
        (status = 400, description = "This is not offered", body = OllamaError),
        (status = 404, description = "There is no such model", body = OllamaError)))]
pub(crate) async fn delete(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<StatusCode, RequestError> {
    refuse_for_installed(state, request, REMOVE).await
}

/// Upload a part of a model; not offered
#[utoipa::path(post, path = "/api/blobs/{digest}", tag = "ollama",
    params(("digest" = String, Path, description = "Of the part")),
    responses((status = 400, description = "This is not offered", body = OllamaError)))]
pub(crate) async fn blob(request: Request) -> RequestError {
    let context = RequestContext::of(request.extensions());
    // What is sent is not read: it may be a whole model.
    let error = not_offered(&request, ADD);
    context.failed(PublicError::of(&error).code);
    error
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
    context.failed(PublicError::of(&error).code);
    Err(error)
}

/// Refuses what is about an installed model.
async fn refuse_for_installed(
    state: Arc<HttpState>,
    request: Request,
    instead: &'static str,
) -> Result<StatusCode, RequestError> {
    let context = RequestContext::of(request.extensions());
    let refusal = not_offered(&request, instead);
    let named = parsed(&state, &context, request, named).await;
    let found = named.and_then(|name| installed(&state, &context, Some(&name)));
    let error = found.map_or_else(|error| error, |_| refusal);
    context.failed(PublicError::of(&error).code);
    Err(error)
}

fn named(
    _state: &HttpState,
    _context: &RequestContext,
    body: &[u8],
) -> Result<String, RequestError> {
    let NamedModel {
        model,
        name,
        source,
    } = fields(body)?;
    let name = model.or(name).or(source).filter(|name| !name.is_empty());
    name.ok_or_else(|| RequestError::missing("model"))
}
