//! `POST /v1/messages/count_tokens`: how many tokens a conversation's prompt has, rendered by the very code
//! that renders a message's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::MessageRefusals;
use super::messages::{MessagesAnswer, MessagesParameters, blamed};
use super::parameters::{Conversed, Read};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{neutralised, render_whole};
use crate::http::dialects::ended;
use crate::http::dialects::prompt_tokens::count;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::parsed;
use crate::http::request::together::Together;
use crate::http::response::notices::add_notices;
use crate::models::InstalledModel;

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
pub(crate) async fn count_tokens(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let counted = async {
        let (model, made) = parsed(&state, &context, request, asked).await?;
        let prompt = render_whole::<MessagesAnswer>(&state, &model, made.source).await;
        let prompt = prompt.map_err(blamed)?;
        let neutralised = neutralised::<MessagesAnswer>(&prompt);
        let asking = (&*state, &*context, &*model);
        let input_tokens = count(asking, prompt, "messages").await?;
        let mut response = Json(TokensCount { input_tokens }).into_response();
        let not_applied = made.thoughts.not_applied.iter();
        let not_applied = not_applied.map(|name| (*name).to_owned());
        let names: Vec<String> = not_applied.chain(made.unread).collect();
        add_notices(&mut response, &names, &neutralised);
        Ok(response)
    };
    ended(&context, counted.await)
}

fn asked(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<(Arc<InstalledModel>, Conversed), RequestError> {
    let Together(Together(shared, _), unread): Read<MessagesParameters> = fields(body)?;
    let model = shared.model(state, context)?;
    let made = shared.read(state, &model, &unread)?;
    Ok((model, made))
}
