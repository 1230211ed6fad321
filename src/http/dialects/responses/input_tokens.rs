//! `POST /v1/responses/input_tokens`: how many tokens a conversation's prompt has, rendered by the very code that
//! renders a response's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::create::{CreateParameters, ResponseAnswer};
use super::parameters::{Context, Read, blamed};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{neutralised, render_whole};
use crate::http::dialects::ended;
use crate::http::dialects::prompt_tokens::count;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::parsed;
use crate::http::request::together::Together;
use crate::http::response::error_body::AnswerRefusals;
use crate::http::response::notices::add_notices;
use crate::models::InstalledModel;

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
pub(crate) async fn input_tokens(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let counted = async {
        let (model, made) = parsed(&state, &context, request, asked).await?;
        let prompt = render_whole::<ResponseAnswer>(&state, &model, made.source).await;
        let prompt = prompt.map_err(blamed)?;
        let neutralised = neutralised::<ResponseAnswer>(&prompt);
        let asking = (&*state, &*context, &*model);
        let input_tokens = count(asking, prompt, "input").await?;
        let mut response = Json(InputTokens {
            object: "response.input_tokens",
            input_tokens,
        })
        .into_response();
        let not_applied = made.not_applied.iter();
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
) -> Result<(Arc<InstalledModel>, Context), RequestError> {
    let Together(Together(shared, _), unread): Read<CreateParameters> = fields(body)?;
    let model = shared.model(state, context)?;
    let made = shared.read(state, context, &model, &unread)?;
    Ok((model, made))
}
