//! `GET /props`: what a model is run with unless a request says otherwise.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::named::{NamedByQuery, this_or_the_only};
use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::response::error_body::ErrorBody;
use crate::models::InstalledModel;
use crate::supervisor::ModelStatus;

/// The daemon that serves, which has a version and no build number.
const BUILD_INFO: &str = concat!("rkllmd ", env!("CARGO_PKG_VERSION"));

/// One model, or without a name where there are several what serves them all.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Props {
    Model(ModelProps),
    Router(RouterProps),
}

/// How a model is run.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelProps {
    default_generation_settings: GenerationSettings,
    /// Answers that it makes at the same time: what it is loaded with, else would be. Absent where neither
    /// is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_slots: Option<u8>,
    /// Id of the model.
    #[schema(value_type = String)]
    model_alias: Arc<str>,
    modalities: Modalities,
    /// The daemon's name and version.
    build_info: &'static str,
}

/// What requests for it need not say.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationSettings {
    /// Context in tokens: what it is loaded with, else would be.
    #[schema(example = 4096)]
    n_ctx: u32,
    params: DefaultParams,
}

/// The model's own values. Where it has none the runtime's are used, which are not known, and it is absent.
#[derive(Serialize, ToSchema)]
pub(crate) struct DefaultParams {
    /// -1: as many as the context leaves.
    n_predict: i64,
    /// Randomness.
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    /// Among how many of the likeliest tokens is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<i32>,
    /// Nucleus sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    /// On tokens seen before.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_penalty: Option<f32>,
    /// On tokens that occurred at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    /// On tokens by how often they occurred.
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    /// Texts that end an answer.
    stop: Vec<String>,
}

/// What a model reads beside text.
#[derive(Serialize, ToSchema)]
pub(crate) struct Modalities {
    /// Always false.
    vision: bool,
    /// Always false.
    audio: bool,
}

/// What serves all models.
#[derive(Serialize, ToSchema)]
pub(crate) struct RouterProps {
    /// Always `router`.
    #[schema(example = "router")]
    role: &'static str,
    /// Always true: a model is loaded by the first request for it.
    models_autoload: bool,
    /// The daemon's name and version.
    build_info: &'static str,
}

impl ModelProps {
    fn of(model: &InstalledModel, status: Option<&ModelStatus>) -> Self {
        let facts = status.and_then(|status| status.facts.as_deref());
        let loaded = facts.and_then(|facts| facts.context_length);
        let slots = facts.and_then(|facts| facts.slots);
        let planned = || status.and_then(|status| status.plan).map(|plan| plan.slots);
        let sampling = model.usual_sampling();
        Self {
            default_generation_settings: GenerationSettings {
                n_ctx: loaded.unwrap_or_else(|| model.facts.context_tokens()),
                params: DefaultParams {
                    n_predict: model.usual_budget().unwrap_or(-1),
                    temperature: sampling.temperature,
                    top_k: sampling.top_k,
                    top_p: sampling.top_p,
                    repeat_penalty: sampling.repeat_penalty,
                    presence_penalty: sampling.presence_penalty,
                    frequency_penalty: sampling.frequency_penalty,
                    stop: model.usual_stops().cloned().collect(),
                },
            },
            total_slots: slots.or_else(planned),
            model_alias: Arc::clone(model.name()),
            modalities: Modalities {
                vision: false,
                audio: false,
            },
            build_info: BUILD_INFO,
        }
    }
}

/// What a model is run with
///
/// Nothing is loaded for it. Without a name the only model is shown, or, where there are several, what
/// serves them all.
#[utoipa::path(get, path = "/props", tag = "llama-server", params(NamedByQuery),
    responses(
        (status = 200, description = "As far as it is known", body = Props),
        (status = 403, description = "The key may not use this model", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody)))]
pub(crate) async fn props(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    query: Result<Query<NamedByQuery>, QueryRejection>,
) -> Result<Response, RequestError> {
    let name = NamedByQuery::name(query)?;
    let is_alone = state.engine.catalog().models().len() == 1;
    let props = match name.is_some() || is_alone {
        true => {
            let model = this_or_the_only(&state, &context, name.as_deref())?;
            let status = state.engine.status().model(&model.id);
            Props::Model(ModelProps::of(&model, status.as_ref()))
        }
        false => Props::Router(RouterProps {
            role: "router",
            models_autoload: true,
            build_info: BUILD_INFO,
        }),
    };
    context.ended();
    Ok(Json(props).into_response())
}
