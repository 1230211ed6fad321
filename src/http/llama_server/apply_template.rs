//! `POST /apply-template`: the prompt of a conversation, made by the very code that makes a chat's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::HttpState;
use crate::http::error_body::ErrorBody;
use crate::http::openai::chat;
use crate::http::openai::generate::{self, Prompted};
use crate::http::request_context::RequestContext;
use crate::http::request_error::RequestError;

/// A conversation as the runtime would get it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RenderedPrompt {
    /// Rendered by the model's chat template. Control tokens in messages are handled as
    /// `chat.control-tokens` says.
    pub prompt: String,
}

/// Render a conversation
///
/// Takes the body of a chat request and answers the text that the runtime would get for it. Nothing
/// is run and no model is loaded.
#[utoipa::path(post, path = "/apply-template", tag = "llama-server",
    request_body(content = crate::http::openapi::ChatCompletionRequest),
    responses(
        (status = 200, description = "The prompt", body = RenderedPrompt),
        (status = 400, description = "The request is wrong; `param` says where", body = ErrorBody),
        (status = 403, description = "A foreign Host or Origin on a loopback listener", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody)))]
pub(crate) async fn apply_template(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Json<RenderedPrompt>, RequestError> {
    let context = RequestContext::of(request.extensions());
    let prompted = generate::parsed(&state, &context, request, chat::prompt).await;
    let Prompted { prompt, .. } = super::ended(&context, prompted)?;
    Ok(Json(RenderedPrompt { prompt }))
}
