//! `POST /v1/chat/completions`: a conversation, rendered with the model's chat template.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Endpoint;
use super::answer::ChatCompletion;
use super::chunk::ChatChunk;
use super::generate::{self, Prompted};
use super::messages::{Message, conversation, refuse_nul};
use super::parameters::{
    SharedParameters, is_empty, is_false, is_no_choice, neutral, token_budget,
};
use crate::http::HttpState;
use crate::http::error_body::ErrorBody;
use crate::http::request_body::{Object, fields};
use crate::http::request_context::RequestContext;
use crate::http::request_error::RequestError;
use crate::models::{InstalledModel, RenderOptions, TemplateError};

/// What only `/v1/chat/completions` takes.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ChatParameters {
    /// The conversation, oldest first. A last message of the assistant is continued.
    #[schema(value_type = Vec<Message>, required, nullable = false, min_items = 1)]
    messages: Option<Vec<Object<Message>>>,
    /// The newer name of `max_tokens`.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<i64>,
    /// Variables for the chat template, such as `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Not supported; null or an empty array.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Value>,
    /// Without tools: null, `none` or `auto`.
    #[schema(value_type = Option<String>)]
    tool_choice: Option<Value>,
    /// Not supported; null or an empty array.
    #[schema(value_type = Option<Vec<Object>>)]
    functions: Option<Value>,
    /// Without functions: null, `none` or `auto`.
    #[schema(value_type = Option<String>)]
    function_call: Option<Value>,
    /// Not supported; null or false.
    #[schema(value_type = Option<bool>)]
    logprobs: Option<Value>,
    /// Not supported; null or 0.
    #[schema(value_type = Option<i64>)]
    top_logprobs: Option<Value>,
    /// Null or `{"type":"text"}`.
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    /// Null or `["text"]`.
    #[schema(value_type = Option<Vec<String>>)]
    modalities: Option<Value>,
    /// Not supported; null.
    #[schema(value_type = Option<Object>)]
    audio: Option<Value>,
    /// Not supported; null.
    #[schema(value_type = Option<Object>)]
    web_search_options: Option<Value>,
}

impl ChatParameters {
    fn refuse_unsupported(&self) -> Result<(), RequestError> {
        let is_text_format = |value: &Value| value.get("type").is_some_and(|kind| kind == "text");
        let is_only_text = |value: &Value| matches!(value.as_array().map(Vec::as_slice), Some([one]) if one == "text");
        neutral("tools", &self.tools, is_empty, "only []")?;
        neutral(
            "tool_choice",
            &self.tool_choice,
            is_no_choice,
            "without tools, only `none`, `auto`",
        )?;
        neutral("functions", &self.functions, is_empty, "only []")?;
        neutral(
            "function_call",
            &self.function_call,
            is_no_choice,
            "without functions, only `none`, `auto`",
        )?;
        neutral("logprobs", &self.logprobs, is_false, "only false")?;
        neutral(
            "top_logprobs",
            &self.top_logprobs,
            |n| n.as_u64() == Some(0),
            "only 0",
        )?;
        neutral(
            "response_format",
            &self.response_format,
            is_text_format,
            "only {\"type\":\"text\"}",
        )?;
        neutral(
            "modalities",
            &self.modalities,
            is_only_text,
            "only [\"text\"]",
        )?;
        neutral("audio", &self.audio, |_| false, "only its absence")?;
        neutral(
            "web_search_options",
            &self.web_search_options,
            |_| false,
            "only its absence",
        )
    }

    fn max_tokens(&self, shared: &SharedParameters) -> Result<Option<u32>, RequestError> {
        let old = shared.max_tokens()?;
        let new = token_budget("max_completion_tokens", self.max_completion_tokens)?;
        match (old, new) {
            (Some(old), Some(new)) if old != new => Err(RequestError::out_of_range(
                "max_tokens",
                "is another name of `max_completion_tokens` and must not differ from it",
            )),
            _ => Ok(new.or(old)),
        }
    }
}

/// Answer a conversation
///
/// With `stream: true` the answer is a stream of `data:` lines, each a ChatChunk, the last one
/// `[DONE]`; an error after the stream has begun is a `data:` line with an error object and ends it.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai",
    request_body(content = super::super::openapi::ChatCompletionRequest),
    responses(
        (status = 200, description = "The answer", content(
            (ChatCompletion = "application/json"),
            (ChatChunk = "text/event-stream"))),
        (status = 400, description = "The request is wrong; `param` says where", body = ErrorBody),
        (status = 403, description = "The key may not use this model; or a foreign Host or Origin on a loopback listener", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "The model's queue is full; see Retry-After", body = ErrorBody),
        (status = 503, description = "The model cannot be loaded, or its worker failed", body = ErrorBody)))]
pub(crate) async fn chat_completions(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    generate::answer(state, request, Endpoint::Chat, prompt).await
}

/// From a body to the text the runtime gets.
fn prompt(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Prompted, RequestError> {
    let shared: SharedParameters = fields(body)?;
    let own: ChatParameters = fields(body)?;
    let model = generate::find_model(state, context, &shared)?;
    context.for_model(&model.id);
    shared.refuse_unsupported()?;
    own.refuse_unsupported()?;
    let max_new_tokens = own.max_tokens(&shared)?.or(model.max_new_tokens);
    let messages = conversation(own.messages)?;
    let options = RenderOptions {
        kwargs: own.chat_template_kwargs.unwrap_or_default(),
        control_tokens: state.chat.control_tokens,
        now: None,
    };
    let template = model
        .template
        .as_ref()
        .ok_or_else(|| RequestError::NoChatTemplate {
            model: model.id.to_string(),
        })?;
    let prompt = template
        .render(&messages, &options)
        .map_err(|error| template_error(error, &model))?;
    // Variables of the template can hold one as well.
    refuse_nul(&prompt, || "chat_template_kwargs".to_owned())?;
    Ok(Prompted {
        model,
        prompt,
        max_new_tokens,
        shared,
    })
}

fn template_error(error: TemplateError, model: &InstalledModel) -> RequestError {
    match error {
        TemplateError::Raised(_) => RequestError::TemplateRefused {
            reason: error.to_string(),
        },
        TemplateError::ControlToken { index, token } => RequestError::ControlToken {
            param: format!("messages[{index}].content"),
            token,
        },
        TemplateError::ReservedVariable(name) => RequestError::out_of_range(
            format!("chat_template_kwargs.{name}"),
            "is a variable of the template's own and cannot be set",
        ),
        TemplateError::NotContinuable => RequestError::TemplateRefused {
            reason: error.to_string(),
        },
        TemplateError::Broken(reason) => RequestError::TemplateBroken {
            model: model.id.to_string(),
            reason,
        },
    }
}
