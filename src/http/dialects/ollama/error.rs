//! The error object of Ollama's API, in a body of its own or as a line of a stream. `code` and `param`
//! are the daemon's own and say what OpenAI's errors say by those names.

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

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
