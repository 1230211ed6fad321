//! `GET /v1/models` and `GET /v1/models/{id}`: what is installed.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::HttpState;
use crate::http::request::access::Caller;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::installed::look_up;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::model_view::ModelDetails;
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
    /// What OpenAI's description has no place for.
    rkllmd: ModelDetails,
}

impl Model {
    fn of(model: &InstalledModel, statuses: &StatusSnapshot, caller: &Caller) -> Self {
        Self {
            id: Arc::clone(&model.id),
            object: "model",
            created: model.facts.created,
            owned_by: "rkllmd",
            rkllmd: ModelDetails::of(model, statuses.get(&model.id), caller),
        }
    }
}

/// List the installed models
///
/// Those that the key may use.
#[utoipa::path(get, path = "/v1/models", tag = "openai",
    responses((status = 200, description = "All installed models", body = ModelList)))]
pub(crate) async fn list_models(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Json<ModelList> {
    let statuses = state.engine.status().snapshot();
    let catalog = state.engine.catalog();
    let models = catalog
        .models()
        .iter()
        .filter(|model| context.caller.may_use(model));
    Json(ModelList {
        object: "list",
        data: models
            .map(|model| Model::of(model, &statuses, &context.caller))
            .collect(),
    })
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
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, RequestError> {
    // What is no UTF-8 is the name of no model.
    let Path(name) = name.map_err(|_| RequestError::UnknownModel {
        model: quote(uri.path().trim_start_matches("/v1/models/")),
    })?;
    let catalog = state.engine.catalog();
    let model = look_up(&catalog, &name)?;
    context.caller.check_model(model)?;
    let statuses = state.engine.status().snapshot();
    Ok(Json(Model::of(model, &statuses, &context.caller)))
}
