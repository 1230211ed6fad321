//! `POST /v1/messages/count_tokens`: how many tokens a conversation's prompt has, rendered by the very code
//! that renders a message's.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::MessageRefusals;
use super::messages::{MessagesAnswer, MessagesParameters, blamed};
use super::parameters::Read;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::Asking;
use crate::http::dialects::prompt_tokens::{ToCount, answer};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::together::Together;

/// What a prompt comes to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokensCount {
    /// Tokens of the prompt, those of tools and of the system's text included.
    input_tokens: usize,
}

/// Count the tokens of a conversation
///
/// Takes the body of a message's request; what of it is not about the prompt makes no difference. Nothing is
/// run and no model is loaded. Needs the model's `tokenizer.json` beside its file.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "anthropic",
    request_body(content = super::parameters::ConversationParameters),
    responses(
        (status = 200, description = "The count", body = TokensCount),
        MessageRefusals))]
pub(crate) async fn count_tokens(asking: Asking) -> Result<Response, RequestError> {
    let body = |input_tokens| TokensCount { input_tokens };
    answer::<MessagesAnswer, _, _>(asking, asked, blamed, body).await
}

fn asked(
    state: &HttpState,
    context: &RequestContext,
    Together(Together(shared, _), unread): Read<MessagesParameters>,
) -> Result<ToCount, RequestError> {
    let model = shared.model(state, context)?;
    let made = shared.read(state, &model, &unread)?;
    Ok(ToCount {
        model,
        source: made.source,
        not_applied: made.thoughts.not_applied,
        unread: made.unread,
    })
}
