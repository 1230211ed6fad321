//! `POST /models` and `DELETE /models`: models that come from the hub and go again because an administrator says so.
//! A download goes on without its client; `/models/sse` tells how it goes, and `/models/unload` ends it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, Request, State};
use serde::Deserialize;
use utoipa::ToSchema;

use super::loading::{DONE, ModelMoved};
use super::named::NamedByQuery;
use crate::http::HttpState;
use crate::http::dialects::permission::may_load;
use crate::http::dialects::{ended, installing};
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::installed;
use crate::http::request::parsed::parsed;
use crate::http::response::error_body::ErrorBody;
use crate::hub::Reference;

/// The model that is to be brought.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModelToDownload {
    /// `OWNER/NAME` of a repository of the hub, with `@REVISION` and `:FILE` or `:VARIANT` behind it where that
    /// is wanted.
    #[schema(required, nullable = false, min_length = 1)]
    model: Option<String>,
}

/// Download a model
///
/// Answered when the download has begun, which then goes on by itself: `/models/sse` tells how far it has come, and that
/// it has finished or failed. `/models/unload` with the same name ends it. It is served without a reload.
#[utoipa::path(post, path = "/v1/models", tag = "llama-server",
    request_body(content = ModelToDownload),
    responses(
        (status = 200, description = "It has begun", body = ModelMoved),
        (status = 400, description = "The request is wrong, or nothing is pulled here; `param` says where", body = ErrorBody),
        (status = 403, description = "The key may not install models, nor may a page of another site", body = ErrorBody),
        (status = 409, description = "As many as `hub.max-pulls` go on already", body = ErrorBody)))]
pub(crate) async fn download_model(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Json<ModelMoved>, RequestError> {
    let context = RequestContext::of(request.extensions());
    let begun = async {
        may_load(&state, &context, &request)?;
        let path = request.uri().path().to_owned();
        let name = parsed(&state, &context, request, named).await?;
        let pulls = installing::pulls(&state, &context, &name, path)?;
        pulls.begin(&name)?;
        context.audit("pulls a model", &name);
        Ok(DONE)
    };
    ended(&context, begun.await)
}

/// Remove a model
///
/// One that a pull has brought: it is unloaded first, and its files go. What is loading, in use or waited for stays: 409.
#[utoipa::path(delete, path = "/v1/models", tag = "llama-server", params(NamedByQuery),
    responses(
        (status = 200, description = "It is gone", body = ModelMoved),
        (status = 400, description = "The query is wrong, or no pull has brought the model, so that its files are its administrator's", body = ErrorBody),
        (status = 403, description = "The key may not remove models, nor may a page of another site", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 409, description = "It is loading, in use or waited for, or another process removes it", body = ErrorBody),
        (status = 500, description = "It could not be removed", body = ErrorBody),
        (status = 503, description = "Its worker is still there although it was killed", body = ErrorBody)))]
pub(crate) async fn remove_model(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Json<ModelMoved>, RequestError> {
    let context = RequestContext::of(request.extensions());
    let removed = async {
        may_load(&state, &context, &request)?;
        let path = request.uri().path().to_owned();
        let (mut parts, _) = request.into_parts();
        let query: Result<Query<NamedByQuery>, QueryRejection> =
            Query::from_request_parts(&mut parts, &state).await;
        let name = NamedByQuery::name(query)?;
        let name = name.ok_or_else(|| RequestError::missing("model"))?;
        let model = installed(&state, &context, Some(&name))?;
        if model.variant.is_some() {
            return Err(RequestError::NotOffered {
                path,
                instead: "it was made of another model: `DELETE /api/delete` removes it",
            });
        }
        installing::remove(&state, &context, &model, path).await?;
        Ok(DONE)
    };
    ended(&context, removed.await)
}

fn named(_: &HttpState, _: &RequestContext, body: &[u8]) -> Result<String, RequestError> {
    let asked: ModelToDownload = fields(body)?;
    let name = asked.model.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| RequestError::missing("model"))?;
    Reference::parse(&name)?;
    Ok(name)
}
