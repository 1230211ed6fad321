//! `POST /apply-template` of llama.cpp's server: the prompt of a chat, read by the very code that answers one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::chat::{self, ChatAnswer};
use crate::chat::Fitted;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{neutralised, of_fields, render};
use crate::http::dialects::ended;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::parsed;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::notices::{add_notices, tell_dropped};

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
    request_body(content = super::bodies::ChatCompletionRequest),
    responses(
        (status = 200, description = "The prompt", body = RenderedPrompt),
        (status = 400, description = "The request is wrong; `param` says where", body = ErrorBody),
        (status = 403, description = "A foreign Host or Origin on a loopback listener", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody)))]
pub(crate) async fn apply_template(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let rendered = async {
        let asked = parsed(&state, &context, request, of_fields(chat::asked)).await?;
        let mut options = asked.options;
        let fitted = render::<ChatAnswer>(&state, &asked.model, asked.source, &mut options).await?;
        Ok((fitted, options.ignored))
    };
    let (
        Fitted {
            prompt, dropped, ..
        },
        ignored,
    ) = ended(&context, rendered.await)?;
    let neutralised = neutralised::<ChatAnswer>(&prompt);
    let mut response = Json(RenderedPrompt {
        prompt: prompt.text,
    })
    .into_response();
    add_notices(&mut response, &ignored, &neutralised);
    tell_dropped(&mut response, dropped);
    Ok(response)
}
