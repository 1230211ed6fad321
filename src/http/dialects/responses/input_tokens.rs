//! `POST /v1/responses/input_tokens`: how many tokens a conversation's prompt has, rendered by the very code that
//! renders a response's.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::create::ResponseAnswer;
use super::create_parameters::CreateParameters;
use super::parameters::{Read, blamed};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::Asking;
use crate::http::dialects::prompt_tokens::{ToCount, answer};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::together::Together;
use crate::http::response::error_body::AnswerRefusals;

/// What a prompt comes to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InputTokens {
    /// Always `response.input_tokens`.
    #[schema(example = "response.input_tokens")]
    object: &'static str,
    /// Tokens of the prompt, those of functions and instructions included.
    input_tokens: usize,
}

/// Count the tokens of a conversation of items
///
/// Takes the body of a response's request; what of it is not about the prompt makes no difference. Nothing is run and no
/// model is loaded. Needs the model's `tokenizer.json` beside its file.
#[utoipa::path(post, path = "/v1/responses/input_tokens", tag = "openai",
    request_body(content = super::parameters::ContextParameters),
    responses(
        (status = 200, description = "The count", body = InputTokens),
        AnswerRefusals))]
pub(crate) async fn input_tokens(asking: Asking) -> Result<Response, RequestError> {
    let body = |input_tokens| InputTokens {
        object: "response.input_tokens",
        input_tokens,
    };
    answer::<ResponseAnswer, _, _>(asking, asked, blamed, body).await
}

fn asked(
    state: &HttpState,
    context: &RequestContext,
    Together(Together(shared, _), unread): Read<CreateParameters>,
) -> Result<ToCount, RequestError> {
    let model = shared.model(state, context)?;
    let made = shared.read(state, context, &model, &unread)?;
    Ok(ToCount {
        model,
        source: made.source,
        not_applied: made.not_applied,
        unread: made.unread,
    })
}
