//! `POST /api/embed` and its older form `POST /api/embeddings`: hidden states of texts, as OpenAI's
//! endpoint gives them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Begun, Figures};
use super::error::OllamaError;
use super::keep_alive::{self, KeepAlive};
use super::options::ModelOptions;
use super::parameters::keep_alive_schema;
use crate::http::HttpState;
use crate::http::dialects::openai::embedding_answer::{Encoding, vectors};
use crate::http::dialects::openai::embedding_input::EmbeddingInput;
use crate::http::dialects::openai::embeddings::{self, Asked, Checked, bytes_of};
use crate::http::request::aside::aside;
use crate::http::request::body::{Object, TextOrList, fields};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::installed::installed;
use crate::http::request::parsed::{Parse, parsed};
use crate::http::request::together::{Together, fields_of};
use crate::http::response::notices::add_notices;
use crate::http::status::PublicError;

/// What both endpoints take.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct EmbedParameters {
    /// Id or alias of an installed model, with `:latest` or without, in any case.
    #[schema(required, nullable = false)]
    model: Option<String>,
    /// Options of the run, of which none is applied.
    #[schema(value_type = Option<ModelOptions>)]
    options: Option<Object<ModelOptions>>,
    /// For how long the model is to stay loaded.
    #[schema(schema_with = keep_alive_schema)]
    keep_alive: Option<Outline>,
}

fields_of!(EmbedParameters {
    model,
    options,
    keep_alive
});

/// What only `/api/embed` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct EmbedInput {
    #[schema(schema_with = input_schema, required)]
    input: Option<TextOrList<String>>,
    /// Whether to cut what is too long; only false is applied.
    truncate: Option<bool>,
    /// Dimensions to cut each embedding to; at most the model's. Default: the model's.
    #[schema(minimum = 1)]
    dimensions: Option<i64>,
}

fields_of!(EmbedInput {
    input,
    truncate,
    dimensions
});

/// What only `/api/embeddings` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct EmbeddingPrompt {
    /// The text.
    #[schema(required, nullable = false, min_length = 1)]
    prompt: Option<String>,
}

fields_of!(EmbeddingPrompt { prompt });

/// The embeddings, in the order of the inputs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Embeddings {
    /// As the request named it.
    #[schema(value_type = String)]
    model: Arc<str>,
    /// A row for each input.
    embeddings: Vec<Vec<f32>>,
    #[serde(flatten)]
    figures: Figures,
}

/// The embedding of one text.
#[derive(Serialize, ToSchema)]
pub(crate) struct OneEmbedding {
    /// The row of the text.
    embedding: Vec<f32>,
}

/// A checked request.
struct Embedding {
    begun: Begun,
    checked: Checked,
}

/// Embed texts
#[utoipa::path(post, path = "/api/embed", tag = "ollama",
    request_body(content = super::bodies::EmbedRequest),
    responses(
        (status = 200, description = "The embeddings", body = Embeddings),
        (status = 400, description = "The request is wrong, or the model gives no hidden states", body = OllamaError),
        (status = 404, description = "There is no such model", body = OllamaError),
        (status = 413, description = "The body is too large", body = OllamaError),
        (status = 429, description = "The model's queue is full; see Retry-After", body = OllamaError),
        (status = 500, description = "The model's hidden states hold what is no number", body = OllamaError),
        (status = 503, description = "The model cannot be loaded, or its worker failed", body = OllamaError)))]
pub(crate) async fn embed(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    answer(state, request, of_input, |begun, embeddings, tokens| {
        Embeddings {
            model: Arc::clone(&begun.model),
            embeddings,
            figures: Figures::of_embedding(begun, tokens),
        }
    })
    .await
}

/// Embed one text, in the older form
#[utoipa::path(post, path = "/api/embeddings", tag = "ollama",
    request_body(content = super::bodies::EmbeddingRequest),
    responses(
        (status = 200, description = "The embedding", body = OneEmbedding),
        (status = 400, description = "The request is wrong, or the model gives no hidden states", body = OllamaError),
        (status = 404, description = "There is no such model", body = OllamaError),
        (status = 413, description = "The body is too large", body = OllamaError),
        (status = 429, description = "The model's queue is full; see Retry-After", body = OllamaError),
        (status = 500, description = "The model's hidden states hold what is no number", body = OllamaError),
        (status = 503, description = "The model cannot be loaded, or its worker failed", body = OllamaError)))]
pub(crate) async fn embeddings(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let answered = answer(state, request, of_prompt, |_, mut embeddings, _| {
        OneEmbedding {
            embedding: embeddings.pop().unwrap_or_default(),
        }
    });
    answered.await.map_err(of_the_prompt)
}

async fn answer<A: Serialize>(
    state: Arc<HttpState>,
    request: Request,
    parse: Parse<Embedding>,
    told: impl FnOnce(&Begun, Vec<Vec<f32>>, Option<u32>) -> A,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let answered = async {
        let Embedding { begun, mut checked } = parsed(&state, &context, request, parse).await?;
        let (rows, neutralised) = embeddings::rows(&state, &context, &mut checked).await?;
        let tokens = rows.prompt_tokens;
        let bytes = bytes_of(&rows);
        let vectors = aside(bytes, || vectors(&checked, rows))?;
        let answer = told(&begun, vectors, tokens);
        let mut response = aside(bytes, || Json(answer).into_response());
        let neutralised = Vec::from_iter(neutralised.then_some("input"));
        add_notices(&mut response, &checked.ignored, &neutralised);
        Ok((tokens, response))
    };
    let answered = answered.await;
    match &answered {
        Ok((tokens, _)) => context.embedded(*tokens),
        Err(RequestError::ClientLeft) => {}
        Err(error) => context.failed(PublicError::of(error).code),
    }
    answered.map(|(_, response)| response)
}

fn of_input(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Embedding, RequestError> {
    let Together(shared, own): Together<EmbedParameters, EmbedInput> = fields(body)?;
    let input = own.input.map(|input| match input {
        TextOrList::Text(text) => EmbeddingInput::Text(text),
        TextOrList::List(texts) if texts.is_empty() => EmbeddingInput::Nothing,
        TextOrList::List(texts) => EmbeddingInput::Texts(texts),
    });
    let truncates = (own.truncate == Some(true)).then_some("truncate");
    shared.checked(state, context, input, own.dimensions, truncates)
}

fn of_prompt(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Embedding, RequestError> {
    let Together(shared, own): Together<EmbedParameters, EmbeddingPrompt> = fields(body)?;
    shared.checked(
        state,
        context,
        own.prompt.map(EmbeddingInput::Text),
        None,
        None,
    )
}

impl EmbedParameters {
    fn checked(
        self,
        state: &HttpState,
        context: &RequestContext,
        input: Option<EmbeddingInput>,
        dimensions: Option<i64>,
        not_applied: Option<&'static str>,
    ) -> Result<Embedding, RequestError> {
        let model = installed(state, context, self.model.as_deref())?;
        let keep_alive = keep_alive::read(self.keep_alive)?;
        let Object(options) = self.options.unwrap_or(Object(ModelOptions::default()));
        let mut ignored = options.not_applied(state, &model);
        ignored.extend(not_applied);
        if keep_alive.is_some_and(|it| it != KeepAlive::ForEver) {
            ignored.push("keep_alive");
        }
        let asked = Asked {
            model,
            input,
            dimensions,
            encoding: Encoding::Float,
            ignored,
        };
        Ok(Embedding {
            begun: Begun {
                model: self.model.unwrap_or_default().into(),
                at: context.arrived(),
            },
            checked: embeddings::checked(state, asked)?,
        })
    }
}

/// The same error, of a text that is called `prompt` here.
fn of_the_prompt(error: RequestError) -> RequestError {
    use RequestError as E;
    let renamed = |param: String| match param.as_str() {
        "input" => "prompt".to_owned(),
        _ => param,
    };
    match error {
        E::Missing { param } => E::missing(renamed(param)),
        E::OutOfRange { param, requirement } => E::out_of_range(renamed(param), requirement),
        E::ControlToken { param, token } => E::ControlToken {
            param: renamed(param),
            token,
        },
        E::Embedding { error, param } => E::Embedding {
            error,
            param: renamed(param),
        },
        E::NoEmbedding { param, reason } => E::NoEmbedding {
            param: renamed(param),
            reason,
        },
        other => other,
    }
}

fn input_schema() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
    let text = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
    };
    OneOfBuilder::new()
        .item(text())
        .item(ArrayBuilder::new().items(text()).min_items(Some(1)))
        .description(Some("A text or texts; none of them empty."))
        .into()
}
