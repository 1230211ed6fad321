//! `POST /v1/completions`: a text that the model continues, without a chat template.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::Schema;

use super::Endpoint;
use super::answer::TextCompletion;
use super::chunk::TextChunk;
use super::generate::{self, Prompted};
use super::messages::refuse_nul;
use super::parameters::{SharedParameters, is_empty, is_false, neutral, string_or_strings};
use crate::http::HttpState;
use crate::http::error_body::ErrorBody;
use crate::http::request_body::{TextOrList, fields};
use crate::http::request_context::RequestContext;
use crate::http::request_error::{RequestError, quote};
use crate::models::ControlTokens;
use crate::settings::ControlTokenPolicy;

/// OpenAI's own default for this endpoint.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// What only `/v1/completions` takes.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TextParameters {
    /// The text to continue: a string, or an array of one string.
    #[schema(schema_with = prompt_schema, required)]
    prompt: Option<TextOrList<String>>,
    /// Not supported; null or false.
    #[schema(value_type = Option<bool>)]
    echo: Option<Value>,
    /// Not supported; null or empty.
    #[schema(value_type = Option<String>)]
    suffix: Option<Value>,
    /// Only 1.
    #[schema(value_type = Option<i64>)]
    best_of: Option<Value>,
    /// Not supported; null.
    #[schema(value_type = Option<i64>)]
    logprobs: Option<Value>,
}

fn prompt_schema() -> Schema {
    string_or_strings("The text to continue: a string, or an array of one string.")
}

impl TextParameters {
    fn refuse_unsupported(&self) -> Result<(), RequestError> {
        neutral("echo", &self.echo, is_false, "only false")?;
        neutral("suffix", &self.suffix, is_empty, "only \"\"")?;
        neutral(
            "best_of",
            &self.best_of,
            |n| n.as_f64() == Some(1.0),
            "only 1",
        )?;
        neutral("logprobs", &self.logprobs, is_false, "only false")
    }

    fn prompt(self) -> Result<String, RequestError> {
        match self.prompt {
            None => Err(RequestError::missing("prompt")),
            Some(TextOrList::Text(prompt)) => Ok(prompt),
            Some(TextOrList::List(mut prompts)) => match (prompts.pop(), prompts.is_empty()) {
                (Some(prompt), true) => Ok(prompt),
                (None, _) => Err(RequestError::out_of_range(
                    "prompt",
                    "must hold a string to continue",
                )),
                (Some(_), false) => Err(RequestError::unsupported(
                    "prompt",
                    "one prompt a request is answered",
                )),
            },
        }
    }
}

/// Continue a text
///
/// With `stream: true` the answer is a stream of `data:` lines, each a TextChunk, the last one
/// `[DONE]`; an error after the stream has begun is a `data:` line with an error object and ends it.
#[utoipa::path(post, path = "/v1/completions", tag = "openai",
    request_body(content = super::super::openapi::CompletionRequest),
    responses(
        (status = 200, description = "The continuation", content(
            (TextCompletion = "application/json"),
            (TextChunk = "text/event-stream"))),
        (status = 400, description = "The request is wrong; `param` says where", body = ErrorBody),
        (status = 403, description = "The key may not use this model; or a foreign Host or Origin on a loopback listener", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "The model's queue is full; see Retry-After", body = ErrorBody),
        (status = 503, description = "The model cannot be loaded, or its worker failed", body = ErrorBody)))]
pub(crate) async fn completions(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    generate::answer(state, request, Endpoint::Text, prompt).await
}

fn prompt(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Prompted, RequestError> {
    let shared: SharedParameters = fields(body)?;
    let own: TextParameters = fields(body)?;
    let model = generate::find_model(state, context, &shared)?;
    context.for_model(&model.id);
    shared.refuse_unsupported()?;
    own.refuse_unsupported()?;
    let prompt = own.prompt()?;
    refuse_nul(&prompt, || "prompt".to_owned())?;
    let prompt = if state.chat.raw_completions {
        prompt
    } else {
        plain_text(prompt, &model.control_tokens, state.chat.control_tokens)?
    };
    let max_new_tokens = Some(shared.max_tokens()?.unwrap_or(DEFAULT_MAX_TOKENS));
    Ok(Prompted {
        model,
        prompt,
        max_new_tokens,
        shared,
    })
}

/// A prompt whose every character stays text when it is tokenised.
fn plain_text(
    prompt: String,
    tokens: &ControlTokens,
    policy: ControlTokenPolicy,
) -> Result<String, RequestError> {
    match (policy, tokens.find(&prompt)) {
        (_, None) => Ok(prompt),
        (ControlTokenPolicy::Neutralise, Some(_)) => Ok(tokens.neutralise(&prompt).into_owned()),
        (ControlTokenPolicy::Reject, Some(token)) => Err(RequestError::ControlToken {
            param: "prompt".to_owned(),
            token: quote(token),
        }),
    }
}
