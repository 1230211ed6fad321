//! `POST /api/create`, `POST /api/copy` and `DELETE /api/delete`: models that are made of installed ones by
//! requests. They share the files and the worker of what they are made of, and differ in what a request does
//! not say.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::OllamaError;
use super::messages::{OllamaMessage, conversation};
use super::options::ModelOptions;
use super::refused::NamedModel;
use crate::conversation::{Message, Role};
use crate::generation::{GenerationError, ModelId};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Without, plain_error};
use crate::http::dialects::ended;
use crate::http::dialects::installing::{self, FILES};
use crate::http::dialects::openai::parameters::is_empty;
use crate::http::dialects::permission::may_load;
use crate::http::request::body::{Object, TextOrList, fields};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::installed::installed;
use crate::http::request::nul::refuse_nul;
use crate::http::request::parsed::{Parse, parsed};
use crate::http::response::ndjson;
use crate::http::response::notices::add_notices;
use crate::models::{InstalledModel, LATEST, Variant, VariantError, VariantValues};
use crate::prompt::{ChatMessage, ChatRole, ControlTokenPolicy};
use crate::reader::check_name;

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
    /// Not supported; null or empty: Ollama's templates are Go's, which are not run here. The model's own is used.
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
    parse: Parse<Made>,
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

fn creating(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Made, RequestError> {
    let asked: CreateRequest = fields(body)?;
    asked.refuse_unsupported()?;
    let named = NamedModel::new(asked.model, asked.name);
    let name = free_name(state, context, named.into_name(), "model")?;
    let from = asked.from.filter(|name| !name.is_empty());
    let from = from.ok_or_else(|| RequestError::missing("from"))?;
    let of = installed(state, context, Some(&from))?;
    let mut variant = copied(&of, name);
    if let Some(system) = asked.system.filter(|text| !text.is_empty()) {
        refuse_nul(&system, || "system".to_owned())?;
        variant.system = Some(system);
    }
    if let Some(messages) = asked.messages.filter(|messages| !messages.is_empty()) {
        let messages = conversation(messages, &of)?.into_iter().enumerate();
        variant.messages = messages
            .map(|(index, message)| plain_message(index, message))
            .collect::<Result<_, _>>()?;
    }
    let mut not_applied = Vec::new();
    if let Some(Object(options)) = asked.parameters {
        let asked = options.read(state, &of).map_err(among_parameters)?;
        not_applied = asked.not_applied;
        // What it is made without it does not have of the model that it is made of either.
        let Without { seed, stop } = asked.without;
        let of = &mut variant.values;
        of.seed = of.seed.filter(|_| !seed);
        if stop {
            of.stop.clear();
        }
        let mut values = VariantValues {
            sampling: asked.sampling,
            top_k_is_implied: asked.implied.contains(&"top_k") && asked.sampling.top_k.is_some(),
            seed: asked.draws.seed,
            min_p: asked.draws.min_p,
            max_new_tokens: asked.max_new_tokens,
            stop: asked.stop,
        };
        std::mem::swap(&mut values, &mut variant.values);
        variant.values.fill_in(values);
    }
    if let Some(license) = asked.license {
        variant.license = match license {
            TextOrList::Text(text) => vec![text],
            TextOrList::List(texts) => texts,
        };
        variant.license.retain(|text| !text.is_empty());
    }
    let limit = of.longest_prompt_bytes();
    if variant.bytes() > limit {
        return Err(RequestError::out_of_range(
            "system",
            format!(
                "must, with all other texts, have no more than {limit} bytes: no more fits the model's context"
            ),
        ));
    }
    Ok(Made {
        variant,
        of,
        stream: asked.stream != Some(false),
        not_applied,
    })
}

/// Why a request brings no template.
pub(super) const TEMPLATE: &str = "templates of Ollama's models are Go's, which are not run here; the model's own is \
    used, which its administrator can replace by `template-file` in its model.toml";

impl CreateRequest {
    fn refuse_unsupported(&self) -> Result<(), RequestError> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let holds =
            |value: &Option<Outline>| value.as_ref().is_some_and(|Outline(it)| !is_empty(it));
        let refused = [
            ("template", given(&self.template), TEMPLATE),
            ("files", holds(&self.files), FILES),
            ("adapters", holds(&self.adapters), FILES),
            (
                "quantize",
                given(&self.quantize),
                "no model is converted here",
            ),
            (
                "modelfile",
                given(&self.modelfile),
                "`from`, `system`, `messages` and `parameters` say the same",
            ),
        ];
        match refused.into_iter().find(|(_, is_given, _)| *is_given) {
            Some((param, _, reason)) => Err(RequestError::unsupported(param, reason)),
            None => Ok(()),
        }
    }
}

fn copying(state: &HttpState, context: &RequestContext, body: &[u8]) -> Result<Made, RequestError> {
    let asked: CopyRequest = fields(body)?;
    let source = asked.source.filter(|name| !name.is_empty());
    let source = source.ok_or_else(|| RequestError::missing("source"))?;
    let of = installed(state, context, Some(&source))?;
    let name = free_name(state, context, asked.destination, "destination")?;
    Ok(Made {
        variant: copied(&of, name),
        of,
        stream: false,
        not_applied: Vec::new(),
    })
}

fn deleting(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Arc<InstalledModel>, RequestError> {
    let named: NamedModel = fields(body)?;
    installed(state, context, named.into_name().as_deref())
}

/// The same by another name.
fn copied(of: &InstalledModel, name: ModelId) -> Variant {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let created = now.map_or(0, |since| since.as_secs());
    match &of.variant {
        Some(variant) => Variant {
            name,
            created,
            ..Variant::clone(variant)
        },
        None => Variant {
            name,
            from: ModelId::clone(&of.id),
            created,
            system: None,
            messages: Vec::new(),
            values: VariantValues::default(),
            license: Vec::new(),
        },
    }
}

/// A name that no installed model answers to, or that of a made one which this client may replace.
fn free_name(
    state: &HttpState,
    context: &RequestContext,
    name: Option<String>,
    param: &'static str,
) -> Result<ModelId, RequestError> {
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| RequestError::missing(param))?;
    let name = name.strip_suffix(LATEST).unwrap_or(&name);
    if check_name(name).is_err() {
        return Err(RequestError::out_of_range(
            param,
            "must be a name of 1 to 200 bytes without characters that steer a terminal",
        ));
    }
    match state.engine.catalog().look_up(name) {
        Ok(model) if model.variant.is_none() => Err(RequestError::out_of_range(
            param,
            "is the name of an installed model, which stays as it is",
        )),
        // It is replaced, which is no less than to delete it. However it is spelled now.
        Ok(model) => {
            context.caller.check_model(model)?;
            Ok(ModelId::clone(model.name()))
        }
        Err(_) => Ok(name.into()),
    }
}

fn plain_message(index: usize, message: Message) -> Result<ChatMessage, RequestError> {
    let role = match message.role {
        Role::System | Role::Developer => ChatRole::System,
        Role::User => ChatRole::User,
        Role::Assistant => ChatRole::Assistant,
        Role::Tool => ChatRole::Tool,
    };
    let is_plain = message.tool_calls.is_empty() && message.reasoning.is_none();
    if role == ChatRole::Tool || !is_plain {
        return Err(RequestError::unsupported(
            format!("messages[{index}]"),
            "what a model is made with are texts, no calls, results or thoughts",
        ));
    }
    Ok(ChatMessage::new(role, message.parts.concat()))
}

/// The same error, of a field in `parameters`.
fn among_parameters(error: RequestError) -> RequestError {
    match error {
        RequestError::OutOfRange { param, requirement } => RequestError::OutOfRange {
            param: param.replacen("options", "parameters", 1),
            requirement,
        },
        other => other,
    }
}
