//! `GET /v1/models` and `GET /v1/models/{id}`: what is installed.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::anthropic_models;
use crate::http::HttpState;
use crate::http::request::access::Caller;
use crate::http::request::anthropic_version;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::installed::look_up;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::model_view::{LoadStatus, ModelDetails};
use crate::models::InstalledModel;
use crate::supervisor::StatusSnapshot;

/// The installed models that the caller's key may use.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// In the order of their file names.
    data: Vec<Model>,
}

/// One installed model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model {
    /// What requests name as `model`.
    #[schema(value_type = String)]
    id: Arc<str>,
    /// Always `model`.
    #[schema(example = "model")]
    object: &'static str,
    /// The model file's time, in seconds since the epoch.
    created: u64,
    /// Always `rkllmd`.
    #[schema(example = "rkllmd")]
    owned_by: &'static str,
    /// As llama.cpp's server tells it.
    status: LoadStatus,
    /// What it reads and writes, likewise.
    architecture: Architecture,
    /// What its files tell, likewise.
    meta: Meta,
    /// What neither has a place for.
    rkllmd: ModelDetails,
}

/// What a model reads and writes.
#[derive(Serialize, ToSchema)]
pub(crate) struct Architecture {
    /// Always text.
    #[schema(value_type = Vec<String>)]
    input_modalities: [&'static str; 1],
    /// Always text.
    #[schema(value_type = Vec<String>)]
    output_modalities: [&'static str; 1],
}

/// A model's measures. What its files do not tell is absent.
#[derive(Serialize, ToSchema)]
pub(crate) struct Meta {
    /// Bytes of the model file.
    size: u64,
    /// Tokens of its vocabulary.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_vocab: Option<u32>,
    /// Numbers of an embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_embd: Option<u32>,
    /// The longest context that it was made for, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx_train: Option<u32>,
}

impl Model {
    fn of(model: &InstalledModel, statuses: &StatusSnapshot, caller: &Caller) -> Self {
        let status = statuses.get(&model.id);
        Self {
            id: Arc::clone(model.name()),
            object: "model",
            created: model.created(),
            owned_by: "rkllmd",
            status: LoadStatus::of(status),
            architecture: Architecture {
                input_modalities: ["text"],
                output_modalities: ["text"],
            },
            meta: Meta {
                size: model.facts.size_bytes,
                n_vocab: model.facts.shape.vocabulary_tokens,
                n_embd: model.facts.shape.embedding_columns,
                n_ctx_train: model.facts.context_limit,
            },
            rkllmd: ModelDetails::of(model, status, caller),
        }
    }
}

/// List the installed models
///
/// Those that the key may use. With a header `anthropic-version` in that API's shape.
#[utoipa::path(get, path = "/v1/models", tag = "openai",
    responses((status = 200, description = "All installed models", body = ModelList)))]
pub(crate) async fn list_models(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    headers: HeaderMap,
) -> Response {
    let statuses = state.engine.status().snapshot();
    let catalog = state.engine.catalog();
    let models = catalog
        .listed()
        .filter(|model| context.caller.may_use(model));
    if anthropic_version::is_named(&headers) {
        return Json(anthropic_models::List::of(models)).into_response();
    }
    let list = ModelList {
        object: "list",
        data: models
            .map(|model| Model::of(model, &statuses, &context.caller))
            .collect(),
    };
    Json(list).into_response()
}

/// Describe one model
#[utoipa::path(get, path = "/v1/models/{id}", tag = "openai",
    params(("id" = String, Path, description = "Id or alias; may contain slashes")),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 403, description = "The key may not use this model", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody)))]
pub(crate) async fn retrieve_model(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, RequestError> {
    // What is no UTF-8 is the name of no model.
    let Path(name) = name.map_err(|_| RequestError::UnknownModel {
        model: quote(uri.path().trim_start_matches("/v1/models/")),
    })?;
    let catalog = state.engine.catalog();
    let model = look_up(&catalog, &name)?;
    context.caller.check_model(model)?;
    if anthropic_version::is_named(&headers) {
        return Ok(Json(anthropic_models::Model::of(model)).into_response());
    }
    let statuses = state.engine.status().snapshot();
    Ok(Json(Model::of(model, &statuses, &context.caller)).into_response())
}
