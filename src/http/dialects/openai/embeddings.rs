//! `POST /v1/embeddings`: hidden states of texts or tokens, pooled to one row an input. A row that is
//! not a finite, non-zero vector is an error: neither null nor zeros stand for what is not there.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use utoipa::ToSchema;

use super::embedding_answer::{EmbeddingList, list};
use crate::http::HttpState;
use crate::http::dialects::embedding::input::{self, EmbeddingInput};
use crate::http::dialects::embedding::{self, Asked, Checked, Encoding, LongInputs, checked};
use crate::http::dialects::ignored::Ignored;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::installed::installed;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::error_body::ErrorBody;

/// What is to be embedded, and how.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct EmbeddingParameters {
    /// Id or alias of an installed model, with `:latest` or without, in any case.
    #[schema(required, nullable = false)]
    model: Option<String>,
    #[schema(schema_with = input::schema, required)]
    input: Option<EmbeddingInput>,
    /// `float` or `base64`, the latter little-endian 32-bit floats. Default `float`.
    #[schema(example = "float")]
    encoding_format: Option<String>,
    /// Dimensions to cut each embedding to; at most the model's. Default: the model's.
    #[schema(minimum = 1)]
    dimensions: Option<i64>,
}

fields_of!(EmbeddingParameters {
    model,
    input,
    encoding_format,
    dimensions
});

/// Embed texts
///
/// The model's hidden states of each input, pooled and normalised as its `model.toml` says: by default
/// the last token's, scaled to the length 1. Inputs are evaluated one after the other, each alone.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai",
    request_body(content = EmbeddingParameters),
    responses(
        (status = 200, description = "The embeddings", body = EmbeddingList),
        (status = 400, description = "The request is wrong, or the model gives no hidden states", body = ErrorBody),
        (status = 403, description = "A foreign Host or Origin on a loopback listener", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "The model's queue is full; see Retry-After", body = ErrorBody),
        (status = 500, description = "The model's hidden states hold what is no number", body = ErrorBody),
        (status = 503, description = "The model cannot be loaded, or its worker failed", body = ErrorBody)))]
pub(crate) async fn embeddings(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    embedding::answer(state, request, asked, |(), checked, vectors, tokens| {
        list(checked, vectors, tokens)
    })
    .await
}

/// From a body to what the runtime gets.
fn asked(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<((), Checked), RequestError> {
    let Together(request, ignored): Together<EmbeddingParameters, Ignored> = fields(body)?;
    let ignored = ignored.names();
    let model = installed(state, context, request.model.as_deref())?;
    let encoding = match request.encoding_format.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(other) => {
            return Err(RequestError::out_of_range(
                "encoding_format",
                format!("must be `float` or `base64`, not `{}`", quote(other)),
            ));
        }
    };
    let asked = Asked {
        model,
        input: request.input,
        dimensions: request.dimensions,
        encoding,
        long_inputs: LongInputs::AreRefused,
        keep_alive: None,
        ignored,
        unread: Vec::new(),
    };
    Ok(((), checked(state, asked)?))
}
