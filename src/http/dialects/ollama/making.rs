//! `POST /api/create`, `POST /api/copy` and `DELETE /api/delete`: models that are made of installed ones by
//! requests. They share the files and the worker of what they are made of, and differ in what a request does
//! not say.

mod checked;

pub(super) use checked::go_template;
use checked::{copying, creating, deleting};

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::OllamaError;
use super::messages::OllamaMessage;
use super::options::ModelOptions;
use super::refused::NamedModel;
use crate::generation::{GenerationError, ModelId};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::plain_error;
use crate::http::dialects::ended;
use crate::http::dialects::installing::{self, FILES};
use crate::http::dialects::permission::may_load;
use crate::http::request::body::{Object, TextOrList};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::parsed::{Parse, parsed};
use crate::http::response::ndjson;
use crate::http::response::notices::add_notices;
use crate::models::{InstalledModel, Variant, VariantError};
use crate::prompt::ControlTokenPolicy;

/// What a model is made of.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateRequest {
    /// Its name, which must not be an installed model's. One that was made so before is replaced.
    #[schema(required, nullable = false, min_length = 1)]
    model: Option<String>,
    /// The older name of `model`.
    name: Option<String>,
    /// The model that it is made of, by id, alias or name.
    #[schema(required, nullable = false, min_length = 1)]
    from: Option<String>,
    /// What the model is told before a conversation that has no system's message.
    system: Option<String>,
    /// What is before each conversation, behind a system's message: texts alone.
    #[schema(value_type = Option<Vec<OllamaMessage>>)]
    messages: Option<Vec<Object<OllamaMessage>>>,
    /// Options of its runs, unless a request has others.
    #[schema(value_type = Option<ModelOptions>)]
    parameters: Option<Object<ModelOptions>>,
    /// Under which licence it may be used, one or several.
    #[schema(value_type = Option<Vec<String>>)]
    license: Option<TextOrList<String>>,
    /// Whether to answer with a stream of lines. Default true.
    stream: Option<bool>,
    /// How its conversations are written, in the place of the model's template: as of `/api/generate`, and with control
    /// tokens. A conversation with functions is refused of a model with one that has no place for them (`.Tools`).
    template: Option<String>,
    /// Not supported; null or empty.
    #[schema(value_type = Option<Object>)]
    files: Option<Outline>,
    /// Not supported; null or empty.
    #[schema(value_type = Option<Object>)]
    adapters: Option<Outline>,
    /// Not supported; null or empty.
    quantize: Option<String>,
    /// Not supported; null or empty: `from`, `system` and `parameters` say the same.
    modelfile: Option<String>,
}

/// What is to have another name as well.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CopyRequest {
    /// Id, alias or name of a model.
    #[schema(required, nullable = false, min_length = 1)]
    source: Option<String>,
    /// The name besides, which must not be an installed model's.
    #[schema(required, nullable = false, min_length = 1)]
    destination: Option<String>,
}

/// How it goes.
#[derive(Serialize, ToSchema)]
pub(crate) struct Progress {
    /// `success`.
    #[schema(example = "success")]
    status: &'static str,
}

/// A model that is to be made.
struct Made {
    variant: Variant,
    of: Arc<InstalledModel>,
    stream: bool,
    not_applied: Vec<&'static str>,
}

/// Make a model of another
///
/// It has the same files and the same worker, and a system's message and options of its own. Unless `stream`
/// is false the answer is a stream of lines.
#[utoipa::path(post, path = "/api/create", tag = "ollama", request_body(content = CreateRequest),
    responses(
        (status = 200, description = "It is made", content(
            (Progress = "application/json"),
            (Progress = "application/x-ndjson"))),
        (status = 400, description = "The request is wrong; `param` says where", body = OllamaError),
        (status = 403, description = "The key may not make models, nor may a page of another site", body = OllamaError),
        (status = 404, description = "There is no such model to make it of", body = OllamaError),
        (status = 413, description = "The body is too large", body = OllamaError),
        (status = 500, description = "It could not be written down", body = OllamaError)))]
pub(crate) async fn create(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let made = making(&state, &context, request, creating).await;
    let Made {
        stream,
        not_applied,
        ..
    } = ended(&context, made)?;
    let progress = Progress { status: "success" };
    let mut response = match stream {
        false => Json(progress).into_response(),
        true => {
            let mut line = serde_json::to_vec(&progress).unwrap_or_default();
            line.push(b'\n');
            ndjson::response(Body::from(line))
        }
    };
    add_notices(&mut response, &not_applied, &[]);
    Ok(response)
}

/// Give a model another name
#[utoipa::path(post, path = "/api/copy", tag = "ollama", request_body(content = CopyRequest),
    responses(
        (status = 200, description = "It has the name"),
        (status = 400, description = "The request is wrong; `param` says where", body = OllamaError),
        (status = 403, description = "The key may not make models, nor may a page of another site", body = OllamaError),
        (status = 404, description = "There is no such model", body = OllamaError),
        (status = 500, description = "It could not be written down", body = OllamaError)))]
pub(crate) async fn copy(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<StatusCode, RequestError> {
    let context = RequestContext::of(request.extensions());
    let made = making(&state, &context, request, copying).await;
    ended(&context, made).map(|_| StatusCode::OK)
}

/// Remove a model
///
/// One that a request has made, or one that a pull has brought: that is unloaded first, and its files go. What is
/// loading, in use or waited for stays: 409.
#[utoipa::path(delete, path = "/api/delete", tag = "ollama", request_body(content = NamedModel),
    responses(
        (status = 200, description = "It is gone"),
        (status = 400, description = "It is an installed model that no pull has brought, whose files are its administrator's", body = OllamaError),
        (status = 403, description = "The key may not remove models, nor may a page of another site", body = OllamaError),
        (status = 404, description = "There is no such model", body = OllamaError),
        (status = 409, description = "It is loading, in use or waited for, or another process removes it", body = OllamaError),
        (status = 500, description = "It could not be removed", body = OllamaError),
        (status = 503, description = "Its worker is still there although it was killed", body = OllamaError)))]
pub(crate) async fn delete(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<StatusCode, RequestError> {
    let context = RequestContext::of(request.extensions());
    let path = request.uri().path().to_owned();
    let deleted = async {
        may_load(&state, &context, &request)?;
        let model = parsed(&state, &context, request, deleting).await?;
        let Some(variant) = &model.variant else {
            return installing::remove(&state, &context, &model, path).await;
        };
        let removed = state.engine.remove_variant(ModelId::clone(&variant.name));
        removed.await.map_err(failed)?;
        context.audit("removed a model", &variant.name);
        Ok(())
    };
    let deleted = deleted.await;
    ended(&context, deleted).map(|()| StatusCode::OK)
}

async fn making(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    request: Request,
    parse: impl Parse<Made>,
) -> Result<Made, RequestError> {
    may_load(state, context, &request)?;
    let made = parsed(state, context, request, parse).await?;
    let system = made.variant.system.iter();
    let messages = made.variant.messages.iter().map(|message| &message.content);
    let texts: Vec<String> = system.chain(messages).cloned().collect();
    if state.chat.control_tokens == ControlTokenPolicy::Reject && !texts.is_empty() {
        // Else each of its requests would be refused.
        let systems = usize::from(made.variant.system.is_some());
        let policy = Some(ControlTokenPolicy::Reject);
        let checked = state.engine.plain(&made.of, texts, policy, false).await;
        checked.map_err(|error| {
            plain_error(error, |index| match index.checked_sub(systems) {
                Some(index) => format!("messages[{index}].content"),
                None => "system".to_owned(),
            })
        })?;
    }
    let saved = state.engine.save_variant(made.variant.clone());
    saved.await.map_err(failed)?;
    context.audit("made a model", &made.variant.name);
    Ok(made)
}

fn failed(error: VariantError) -> RequestError {
    match error {
        VariantError::TooMany { limit, .. } => RequestError::out_of_range(
            "model",
            format!(
                "would be one too many: `max-variants` in the [models] settings allows {limit}"
            ),
        ),
        error @ VariantError::Folder { .. } => RequestError::Generation {
            error: GenerationError::Internal(error.to_string()),
            prompt_param: "model",
        },
    }
}
