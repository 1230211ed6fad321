//! Whether a request sent now would be served: some model is loaded, being loaded or loadable on
//! first use, has not failed, its queue has room, and no unkillable worker blocks the NPU it needs.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::HttpState;
use crate::http::request::access::Caller;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::{look_up, refused_query};
use crate::http::response::error_body::{ErrorBody, ErrorObject};
use crate::http::response::model_view::{ModelState, Runtime};
use crate::http::status::PublicError;
use crate::models::{Catalog, InstalledModel};
use crate::supervisor::{ModelStatus, Phase};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OneModel {
    /// Look at this model only (id or alias).
    #[param(required = false, min_length = 1)]
    model: Option<String>,
}

impl OneModel {
    /// Whether the query asks for one model.
    pub fn is_named(query: &Result<Query<Self>, QueryRejection>) -> bool {
        matches!(query, Ok(Query(Self { model: Some(_) })))
    }

    /// The model asked for, or all of them.
    pub fn select(
        query: Result<Query<Self>, QueryRejection>,
        catalog: &Catalog,
    ) -> Result<Vec<Arc<InstalledModel>>, RequestError> {
        let Query(Self { model }) = query.map_err(|rejection| refused_query(&rejection))?;
        match model {
            None => Ok(catalog.models().to_vec()),
            Some(name) if name.is_empty() => Err(RequestError::out_of_range(
                "model",
                "must not be empty; without it all models are looked at",
            )),
            Some(name) => Ok(vec![Arc::clone(look_up(catalog, &name)?)]),
        }
    }
}

/// The answer of `/v1/ready`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ready` or `not-ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Why not; only with status 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
    /// The models looked at.
    models: Vec<ModelReadiness>,
}

/// One model's part of the answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelReadiness {
    /// Id of the model.
    #[schema(value_type = String)]
    id: Arc<str>,
    /// Whether a request for this model would be accepted now.
    ready: bool,
    #[serde(flatten)]
    state: ModelState,
    queue: Queue,
    /// Known once the model was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<Runtime>,
}

/// How full a model's queue is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Queue {
    /// Requests that wait for their turn.
    waiting: usize,
    /// Requests that may wait.
    capacity: usize,
}

impl ModelReadiness {
    pub(super) fn of(
        state: &HttpState,
        model: &InstalledModel,
        status: Option<&ModelStatus>,
        caller: &Caller,
    ) -> Self {
        let queue = state.engine.queue(&model.id);
        // Once the wait is over the next request tries again, so the model is loadable on demand.
        let failed = status.is_some_and(|status| {
            matches!(status.phase, Phase::Failed { retry_at, .. } if retry_at > Instant::now())
        });
        let blocked = status.and_then(|status| status.blocked.clone());
        let ready = !failed && blocked.is_none() && queue.waiting < queue.capacity;
        let mut state = ModelState::of(status, caller);
        state.reason = state
            .reason
            .or(blocked.map(|reason| caller.may_read(reason)));
        Self {
            id: Arc::clone(&model.id),
            ready,
            state,
            queue: Queue {
                waiting: queue.waiting,
                capacity: queue.capacity,
            },
            runtime: status
                .and_then(|status| status.facts.as_deref())
                .map(Runtime::of),
        }
    }

    fn obstacle(&self) -> String {
        match &self.state.reason {
            Some(reason) if self.state.retry_after.is_some() => {
                format!("`{}` failed to load: {reason}", self.id)
            }
            Some(reason) => format!("`{}`: {reason}", self.id),
            None => format!("`{}`: its queue is full", self.id),
        }
    }
}

/// Whether a request would be served now
///
/// Ready when some model is loaded, or is loaded on first use and has not failed, its queue has room,
/// and no worker that cannot be killed blocks the NPU.
#[utoipa::path(get, path = "/v1/ready", tag = "daemon", params(OneModel),
    responses(
        (status = 200, description = "Some model would serve a request", body = Readiness),
        (status = 400, description = "The query is wrong; `param` says where", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 503, description = "No model would; `error` says why", body = Readiness)))]
pub(crate) async fn ready(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    query: Result<Query<OneModel>, QueryRejection>,
) -> Result<Response, RequestError> {
    let catalog = state.engine.catalog();
    let models = OneModel::select(query, &catalog)?;
    let statuses = state.engine.status().snapshot();
    let models: Vec<ModelReadiness> = models
        .iter()
        .map(|model| {
            let status = statuses.get(&model.id);
            ModelReadiness::of(&state, model, status, &context.caller)
        })
        .collect();
    if models.iter().any(|model| model.ready) {
        let body = Readiness {
            status: "ready",
            error: None,
            models,
        };
        return Ok(Json(body).into_response());
    }
    let obstacles: Vec<String> = models.iter().map(ModelReadiness::obstacle).collect();
    let error = RequestError::NotReady {
        reason: match obstacles.is_empty() {
            false => obstacles.join("; "),
            true if catalog.is_in_part() => "the models are still being read".to_owned(),
            true => "no model is installed".to_owned(),
        },
        retry_after_s: models
            .iter()
            .filter_map(|model| model.state.retry_after)
            .min(),
    };
    let retry_after = PublicError::of(&error).retry_after_s;
    let body = Readiness {
        status: "not-ready",
        error: Some(ErrorBody::of(&error).error),
        models,
    };
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}
