//! The error object of Ollama's API, in a body of its own or as a line of a stream. `code` and `param`
//! are the daemon's own and say what OpenAI's errors say by those names.

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::parameters::FORMAT;
use crate::http::request::error::RequestError;
use crate::http::response::error_body::add_headers;
use crate::http::status::PublicError;

/// What an error answer looks like.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaError {
    /// What was attempted, on what, and what to do about it.
    error: String,
    /// Stable and machine-readable.
    #[schema(example = "invalid_value")]
    code: &'static str,
    /// The field of the request that is to blame; absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "messages[0].content")]
    param: Option<String>,
}

/// Errors of chats and texts.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the API's description is made of it")]
pub(crate) enum AnswerRefusals {
    /// The request is wrong; `param` says where
    #[response(status = 400)]
    Wrong(OllamaError),
    /// The key may not use this model, or not load it without a question, nor may a page of another site; or a
    /// foreign Host or Origin on a loopback listener
    #[response(status = 403)]
    Forbidden(OllamaError),
    /// There is no such model
    #[response(status = 404)]
    NoModel(OllamaError),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(OllamaError),
    /// The model's queue is full; see Retry-After
    #[response(status = 429)]
    QueueFull(OllamaError),
    /// The model cannot be loaded, or its worker failed
    #[response(status = 503)]
    Unavailable(OllamaError),
}

/// Errors of embeddings.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the API's description is made of it")]
pub(crate) enum EmbeddingRefusals {
    /// The request is wrong, or the model gives no hidden states
    #[response(status = 400)]
    Wrong(OllamaError),
    /// There is no such model
    #[response(status = 404)]
    NoModel(OllamaError),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(OllamaError),
    /// The model's queue is full; see Retry-After
    #[response(status = 429)]
    QueueFull(OllamaError),
    /// The model's hidden states hold what is no number
    #[response(status = 500)]
    NotFinite(OllamaError),
    /// The model cannot be loaded, or its worker failed
    #[response(status = 503)]
    Unavailable(OllamaError),
}

impl OllamaError {
    pub fn of(error: &RequestError) -> Self {
        let public = PublicError::of(error);
        Self {
            error: match error {
                // In the words by which clients know that they may install it.
                RequestError::UnknownModel { model } => format!("model '{model}' not found"),
                error => error.to_string(),
            },
            code: public.code,
            param: public.param.map(|param| match param.as_str() {
                "response_format" => FORMAT.to_owned(),
                _ => param,
            }),
        }
    }
}

/// The answer that carries an error object.
pub(in crate::http) fn response(error: &RequestError) -> Response {
    let public = PublicError::of(error);
    let mut response = (public.status, axum::Json(OllamaError::of(error))).into_response();
    add_headers(response.headers_mut(), &public);
    response
}

/// The error object's text.
pub(in crate::http) fn text(error: &RequestError) -> String {
    serde_json::to_string(&OllamaError::of(error)).unwrap_or_default()
}
