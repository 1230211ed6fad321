//! `POST /v1/completions`: a text that the model continues, without a chat template.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use utoipa::ToSchema;
use utoipa::openapi::Schema;

use super::answer::TextCompletion;
use super::chunk::{TextWriter, UsageChunk};
use super::chunk_schema::TextChunk;
use super::ignored::Ignored;
use super::parameters::{SharedParameters, is_empty, is_false, neutral, string_or_strings};
use crate::chat::{PromptSource, WholeReply};
use crate::generation::Completion;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{self, Asked, ChatDialect, Identity};
use crate::http::request::body::{TextOrList, fields};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::installed::installed;
use crate::http::request::nul::refuse_nul;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::error_body::ErrorBody;
use crate::http::response::sse;

/// OpenAI's own default for this endpoint.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// What only `/v1/completions` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct TextParameters {
    /// The text to continue: a string, or an array of one string.
    #[schema(schema_with = prompt_schema, required)]
    prompt: Option<TextOrList<String>>,
    /// Not supported; null or false.
    #[schema(value_type = Option<bool>)]
    echo: Option<Outline>,
    /// Not supported; null or empty.
    #[schema(value_type = Option<String>)]
    suffix: Option<Outline>,
    /// Only 1.
    #[schema(value_type = Option<i64>)]
    best_of: Option<Outline>,
    /// Not supported; null.
    #[schema(value_type = Option<i64>)]
    logprobs: Option<Outline>,
}

fields_of!(TextParameters {
    prompt,
    echo,
    suffix,
    best_of,
    logprobs
});

/// How a text is continued.
pub(crate) struct TextAnswer {
    usage: UsageChunk,
}

impl ChatDialect for TextAnswer {
    const PROMPT_PARAM: &'static str = "prompt";
    type Writer = TextWriter;

    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&TextCompletion::of(identity, reply, completion))
    }

    fn writer(&self, identity: &Identity) -> TextWriter {
        TextWriter::new(identity, self.usage)
    }

    fn stream(body: Body) -> Response {
        sse::response(body)
    }
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
            Some(TextOrList::Text(prompt)) => not_empty(prompt, "prompt"),
            Some(TextOrList::List(mut prompts)) => match (prompts.pop(), prompts.is_empty()) {
                (Some(prompt), true) => not_empty(prompt, "prompt[0]"),
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

/// A model continues what it is given, and runtimes refuse to run on nothing.
fn not_empty(prompt: String, param: &'static str) -> Result<String, RequestError> {
    if prompt.is_empty() {
        return Err(RequestError::out_of_range(param, "must not be empty"));
    }
    Ok(prompt)
}

/// Continue a text
///
/// With `stream: true` the answer is a stream of `data:` lines, each a TextChunk, the last one
/// `[DONE]`; an error after the stream has begun is a `data:` line with an error object and ends it.
#[utoipa::path(post, path = "/v1/completions", tag = "openai",
    request_body(content = super::bodies::CompletionRequest),
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
    chat_dialect::answer(state, request, asked).await
}

fn asked(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Asked<TextAnswer>, RequestError> {
    let Together(shared, Together(own, ignored)): Together<
        SharedParameters,
        Together<TextParameters, Ignored>,
    > = fields(body)?;
    let model = installed(state, context, shared.model.as_deref())?;
    shared.refuse_unsupported()?;
    own.refuse_unsupported()?;
    let prompt = own.prompt()?;
    refuse_nul(&prompt, || "prompt".to_owned())?;
    let policy = (!state.chat.raw_completions).then_some(state.chat.control_tokens);
    let max_new_tokens = shared.max_tokens()?.unwrap_or(DEFAULT_MAX_TOKENS);
    let options = shared.options(state, &model, Some(max_new_tokens), ignored)?;
    Ok(Asked {
        model,
        source: PromptSource::Text {
            text: prompt,
            policy,
        },
        options,
        reading: None,
        dialect: TextAnswer {
            usage: shared.usage_chunk(),
        },
    })
}
