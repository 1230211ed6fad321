//! `POST /api/embed` and its older form `POST /api/embeddings`: hidden states of texts.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Begun, Figures};
use super::context::NextContext;
use super::error::EmbeddingRefusals;
use super::keep_alive;
use super::options::ModelOptions;
use super::parameters::{in_headers, keep_alive_schema};
use crate::http::HttpState;
use crate::http::dialects::embedding::input::EmbeddingInput;
use crate::http::dialects::embedding::{self, Asked, Checked, Encoding, LongInputs, checked};
use crate::http::request::body::{Object, TextOrList, fields};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::installed::installed;
use crate::http::request::together::{Together, fields_of};
use crate::http::request::unread::Unread;

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
    /// Whether of a text that is too long for the model's context its beginning is embedded. Default true.
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

/// What an endpoint takes, and the names of what it does not.
type Read<X> = Together<Together<EmbedParameters, X>, Unread>;

/// Embed texts
#[utoipa::path(post, path = "/api/embed", tag = "ollama",
    request_body(content = super::bodies::EmbedRequest),
    responses(
        (status = 200, description = "The embeddings", body = Embeddings),
        EmbeddingRefusals))]
pub(crate) async fn embed(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    embedding::answer(
        state,
        request,
        of_input,
        |begun: Begun, _, embeddings, tokens| Embeddings {
            model: Arc::clone(&begun.model),
            embeddings,
            figures: Figures::of_embedding(&begun, tokens),
        },
    )
    .await
}

/// Embed one text, in the older form
#[utoipa::path(post, path = "/api/embeddings", tag = "ollama",
    request_body(content = super::bodies::EmbeddingRequest),
    responses(
        (status = 200, description = "The embedding", body = OneEmbedding),
        EmbeddingRefusals))]
pub(crate) async fn embeddings(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let answered = embedding::answer(state, request, of_prompt, |_, _, mut embeddings, _| {
        OneEmbedding {
            embedding: embeddings.pop().unwrap_or_default(),
        }
    });
    answered.await.map_err(of_the_prompt)
}

fn of_input(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<(Begun, Checked), RequestError> {
    let Together(Together(shared, own), unread): Read<EmbedInput> = fields(body)?;
    let input = own.input.map(|input| match input {
        TextOrList::Text(text) if text.is_empty() => EmbeddingInput::NoTexts,
        TextOrList::Text(text) => EmbeddingInput::Text(text),
        TextOrList::List(texts) if texts.is_empty() => EmbeddingInput::NoTexts,
        TextOrList::List(texts) => EmbeddingInput::Texts(texts),
    });
    let long_inputs = match own.truncate {
        Some(false) => LongInputs::AreRefused,
        asked => LongInputs::AreCut {
            as_asked: asked.is_some(),
        },
    };
    shared.checked((state, context), input, own.dimensions, long_inputs, unread)
}

fn of_prompt(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<(Begun, Checked), RequestError> {
    let Together(Together(shared, own), unread): Read<EmbeddingPrompt> = fields(body)?;
    let prompt = own.prompt.map(EmbeddingInput::Text);
    shared.checked(
        (state, context),
        prompt,
        None,
        LongInputs::AreRefused,
        unread,
    )
}

impl EmbedParameters {
    fn checked(
        self,
        (state, context): (&HttpState, &RequestContext),
        input: Option<EmbeddingInput>,
        dimensions: Option<i64>,
        long_inputs: LongInputs,
        unread: Unread,
    ) -> Result<(Begun, Checked), RequestError> {
        let model = installed(state, context, self.model.as_deref())?;
        let keep_alive = keep_alive::read(self.keep_alive)?;
        let Object(options) = self.options.unwrap_or(Object(ModelOptions::default()));
        let ignored = options.not_applied(state, &model);
        let asked = Asked {
            model,
            input,
            dimensions,
            encoding: Encoding::Float,
            long_inputs,
            keep_alive,
            ignored,
            unread: in_headers(unread),
        };
        let begun = Begun {
            model: self.model.unwrap_or_default().into(),
            at: context.arrived(),
            context: NextContext::default(),
        };
        Ok((begun, checked(state, asked)?))
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
    let text = || ObjectBuilder::new().schema_type(Type::String);
    OneOfBuilder::new()
        .item(text())
        .item(ArrayBuilder::new().items(text().min_length(Some(1))))
        .description(Some(
            "A text, or texts of which none is empty. An empty text, or no texts, have no embeddings.",
        ))
        .into()
}
