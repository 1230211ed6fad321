//! `POST /models/load` and `/models/unload`: models that come and go because an administrator says so. Both
//! are answered when it is done, and say why where it cannot be.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::dialects::{ended, installing};
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::installed;
use crate::http::request::parsed::parsed;
use crate::http::response::error_body::ErrorBody;
use crate::models::InstalledModel;
use crate::supervisor::{Supervisor, Unloaded};

/// The model that is to come or go.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModelToLoad {
    /// Id or alias of an installed model.
    #[schema(required, nullable = false, min_length = 1)]
    model: Option<String>,
}

/// It is done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelMoved {
    /// Always true.
    #[schema(example = true)]
    success: bool,
}

pub(super) const DONE: Json<ModelMoved> = Json(ModelMoved { success: true });

/// Load a model
///
/// As a request for it would, and no longer than one may wait for a worker. Answered when it is loaded.
#[utoipa::path(post, path = "/models/load", tag = "llama-server",
    request_body(content = ModelToLoad),
    responses(
        (status = 200, description = "It is loaded", body = ModelMoved),
        (status = 400, description = "The request is wrong; `param` says where", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 503, description = "It cannot be loaded, or no place became free in time", body = ErrorBody)))]
pub(crate) async fn load(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Json<ModelMoved>, RequestError> {
    let context = RequestContext::of(request.extensions());
    let loaded = async {
        let model = parsed(&state, &context, request, named).await?;
        // Who leaves does not wait for it.
        context.client_bound().bind();
        let supervisor = supervisor(&state)?;
        let loading = supervisor.load(context.client.clone(), Arc::clone(&model.id), None);
        let loaded = loading.await;
        loaded.map_err(|error| failed(context.caller.may_read_error(error)))?;
        context.audit("loaded a model", &model.id);
        Ok(DONE)
    };
    ended(&context, loaded.await)
}

/// Unload a model
///
/// Answered when its worker has ended. A model that is loading, in use or waited for stays: 409. A download of this name
/// ends instead, unless a client follows it elsewhere; what has come is kept.
#[utoipa::path(post, path = "/models/unload", tag = "llama-server",
    request_body(content = ModelToLoad),
    responses(
        (status = 200, description = "It is not loaded", body = ModelMoved),
        (status = 400, description = "The request is wrong; `param` says where", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 409, description = "It is loading, in use or waited for", body = ErrorBody),
        (status = 503, description = "Its worker is still there although it was killed", body = ErrorBody)))]
pub(crate) async fn unload(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Json<ModelMoved>, RequestError> {
    let context = RequestContext::of(request.extensions());
    let unloaded = async {
        let model = match parsed(&state, &context, request, downloaded_or_named).await? {
            Left::Download => return Ok(DONE),
            Left::Model(model) => model,
        };
        let unloaded = supervisor(&state)?.unload(Arc::clone(&model.id)).await;
        match unloaded.map_err(failed)? {
            Unloaded::Yes => {
                context.audit("unloaded a model", &model.id);
                Ok(DONE)
            }
            Unloaded::StillWanted => Err(RequestError::ModelInUse {
                model: model.id.to_string(),
            }),
            Unloaded::Unkillable => Err(failed(GenerationError::ModelUnavailable {
                model: model.id.to_string(),
                reason: "its worker is still there although it was killed".to_owned(),
                retry_after: None,
            })),
        }
    };
    ended(&context, unloaded.await)
}

/// What is to be left.
enum Left {
    /// It was, and goes on no more.
    Download,
    Model(Arc<InstalledModel>),
}

fn downloaded_or_named(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Left, RequestError> {
    let asked: ModelToLoad = fields(body)?;
    if let (Some(pulls), Some(name)) = (state.engine.pulls(), asked.model.as_deref())
        && installing::check_key(context, name).is_ok()
        && pulls.cancel(name)
    {
        context.audit("ended a pull", name);
        return Ok(Left::Download);
    }
    let model = installed(state, context, asked.model.as_deref())?;
    Ok(Left::Model(model))
}

fn named(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Arc<InstalledModel>, RequestError> {
    let asked: ModelToLoad = fields(body)?;
    installed(state, context, asked.model.as_deref())
}

fn supervisor(state: &HttpState) -> Result<Supervisor, RequestError> {
    let none = || GenerationError::Internal("there are no workers here".to_owned());
    state.engine.supervisor().ok_or_else(|| failed(none()))
}

fn failed(error: GenerationError) -> RequestError {
    RequestError::Generation {
        error,
        prompt_param: "model",
    }
}
