//! `GET /api/tags`, `GET /api/ps` and `POST /api/show`: what is installed, what is loaded, and one of them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::details::{
    Details, capabilities, context_length, digest, info, modelfile, parameters, template,
};
use super::error::OllamaError;
use super::names::listed;
use crate::http::HttpState;
use crate::http::dialects::ended;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::installed;
use crate::http::request::parsed::parsed;
use crate::http::response::clock;
use crate::http::response::model_view::expires_at;
use crate::models::InstalledModel;
use crate::supervisor::ModelStatus;

/// Of a model that no time unloads; clients need a time that lies ahead.
const NEVER: &str = "2300-01-01T00:00:00Z";

/// The installed models that the caller's key may use.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tags {
    /// In the order of their file names.
    models: Vec<Tag>,
}

/// One installed model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tag {
    /// Its id with a tag.
    #[schema(example = "qwen3:latest")]
    name: String,
    /// The same.
    #[schema(example = "qwen3:latest")]
    model: String,
    /// The model file's time, or when a request has made the model.
    #[schema(example = "2026-11-29T15:04:05Z")]
    modified_at: String,
    /// Bytes of the model file.
    size: u64,
    /// A fingerprint of the model's file, of where it lies, its size and its time; its content is not read.
    #[schema(min_length = 64, max_length = 64)]
    digest: String,
    details: Details,
    /// `completion`, `tools`, `insert` (it fills gaps) and `thinking`, as far as they are known.
    capabilities: Vec<&'static str>,
}

/// The loaded models that the caller's key may use.
#[derive(Serialize, ToSchema)]
pub(crate) struct Running {
    /// In the order of their file names.
    models: Vec<RunningModel>,
}

/// One loaded model.
#[derive(Serialize, ToSchema)]
pub(crate) struct RunningModel {
    /// Its id with a tag.
    #[schema(example = "qwen3:latest")]
    name: String,
    /// The same.
    #[schema(example = "qwen3:latest")]
    model: String,
    /// Bytes that its worker holds; absent until they were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// A fingerprint of the model's file, of where it lies, its size and its time; its content is not read.
    #[schema(min_length = 64, max_length = 64)]
    digest: String,
    details: Details,
    /// When it is unloaded unless it is used again, or where it is used now: if that ended now. Far ahead
    /// where no time unloads it.
    #[schema(example = "2026-11-29T15:04:05.123456789Z")]
    expires_at: String,
    /// Of `size`, buffers of the NPU; absent where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_vram: Option<u64>,
    /// Context in tokens.
    #[schema(example = 4096)]
    context_length: u32,
}

/// One model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Shown {
    /// How the model would be named in a file for Ollama.
    modelfile: String,
    /// The model's own defaults, a name and a value a line.
    parameters: String,
    /// What the model was made with, if a request has made it with one; else how it fills gaps: `{{ .Prompt }}` and
    /// `{{ .Suffix }}` with the model's markers around them; of a model that does.
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// What the model is told before a conversation without a system's message; of a model that a request has
    /// made.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    /// What is before each conversation, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<ShownMessage>,
    /// Under which licence it may be used, as far as a request that has made it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    details: Details,
    /// `general.architecture`, `general.basename` (the model's id) and, behind the architecture's name and a dot,
    /// what its files tell.
    #[schema(value_type = Object)]
    model_info: Map<String, Value>,
    /// `completion`, `tools`, `insert` (it fills gaps) and `thinking`, as far as they are known.
    capabilities: Vec<&'static str>,
    /// The model file's time, or when a request has made the model.
    #[schema(example = "2026-11-29T15:04:05Z")]
    modified_at: String,
}

/// A message before each conversation.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownMessage {
    /// `system`, `user` or `assistant`.
    role: &'static str,
    /// What is said.
    content: String,
}

/// Which model is to be shown.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ShowRequest {
    /// Id or alias of an installed model, with `:latest` or without, in any case.
    #[schema(required, nullable = false, min_length = 1)]
    model: Option<String>,
    /// The older name of `model`.
    name: Option<String>,
    /// Shows no more.
    #[serde(rename = "verbose")]
    _verbose: Option<bool>,
}

/// What of each model there is to tell where the caller may use it.
fn of_each<T>(
    state: &HttpState,
    context: &RequestContext,
    tell: impl Fn(&InstalledModel, Option<&ModelStatus>) -> Option<T>,
) -> Vec<T> {
    let statuses = state.engine.status().snapshot();
    let catalog = state.engine.catalog();
    let models = catalog.listed();
    models
        .filter(|model| context.caller.may_use(model))
        .filter_map(|model| tell(model, statuses.get(&model.id)))
        .collect()
}

/// List the installed models
#[utoipa::path(get, path = "/api/tags", tag = "ollama",
    responses((status = 200, description = "Those that the key may use", body = Tags)))]
pub(crate) async fn tags(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Json<Tags> {
    let models = of_each(&state, &context, |model, status| {
        Some(Tag {
            name: listed(model.name()),
            model: listed(model.name()),
            modified_at: clock::at(model.created()),
            size: model.facts.size_bytes,
            digest: digest(model),
            details: Details::of(model, status),
            capabilities: capabilities(model),
        })
    });
    Json(Tags { models })
}

/// List the loaded models
#[utoipa::path(get, path = "/api/ps", tag = "ollama",
    responses((status = 200, description = "Those that the key may use", body = Running)))]
pub(crate) async fn ps(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Json<Running> {
    let models = of_each(&state, &context, |model, status| {
        let status =
            status.filter(|status| status.phase.is_loaded() && status.has_adapter_of(model))?;
        Some(RunningModel {
            name: listed(model.name()),
            model: listed(model.name()),
            size: status.memory.map(|memory| memory.total_bytes()),
            digest: digest(model),
            details: Details::of(model, Some(status)),
            expires_at: expires_at(status).unwrap_or_else(|| NEVER.to_owned()),
            size_vram: status.memory.and_then(|memory| memory.npu_bytes),
            context_length: context_length(model, Some(status)),
        })
    });
    Json(Running { models })
}

/// Show one model
#[utoipa::path(post, path = "/api/show", tag = "ollama", request_body(content = ShowRequest),
    responses(
        (status = 200, description = "The model", body = Shown),
        (status = 400, description = "The request is wrong; `param` says where", body = OllamaError),
        (status = 403, description = "The key may not use this model", body = OllamaError),
        (status = 404, description = "There is no such model", body = OllamaError)))]
pub(crate) async fn show(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Json<Shown>, RequestError> {
    let context = RequestContext::of(request.extensions());
    let model = parsed(&state, &context, request, named).await;
    let model = ended(&context, model)?;
    let status = state.engine.status().model(&model.id);
    let parameters = parameters(&model, status.as_ref());
    let variant = model.variant.as_ref();
    let license = variant.map(|variant| variant.license.join("\n"));
    Ok(Json(Shown {
        modelfile: modelfile(&model),
        parameters,
        template: template(&model),
        system: variant.and_then(|variant| variant.system.clone()),
        messages: variant.map_or_else(Vec::new, |variant| {
            let messages = variant.messages.iter();
            let shown = messages.map(|message| ShownMessage {
                role: message.role.name(),
                content: message.content.clone(),
            });
            shown.collect()
        }),
        license: license.filter(|text| !text.is_empty()),
        details: Details::of(&model, status.as_ref()),
        model_info: info(&model, status.as_ref()),
        capabilities: capabilities(&model),
        modified_at: clock::at(model.created()),
    }))
}

fn named(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Arc<InstalledModel>, RequestError> {
    let asked: ShowRequest = fields(body)?;
    let name = asked.model.filter(|name| !name.is_empty()).or(asked.name);
    installed(state, context, name.as_deref())
}
