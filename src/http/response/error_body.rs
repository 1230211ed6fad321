//! The error object of OpenAI's API, in a body of its own or as an event of a stream.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::http::request::content_coding;
use crate::http::request::error::RequestError;
use crate::http::status::PublicError;

/// What an error answer looks like.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub error: ErrorObject,
}

/// The error. All four keys are always there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorObject {
    /// What was attempted, on what, and what to do about it.
    pub message: String,
    /// The coarse class: `invalid_request_error`, `rate_limit_error` or `server_error`.
    #[schema(example = "invalid_request_error")]
    pub r#type: &'static str,
    /// The field of the request that is to blame; null where none is.
    #[schema(required, example = "messages[0].content")]
    pub param: Option<String>,
    /// Stable and machine-readable.
    #[schema(example = "invalid_value")]
    pub code: &'static str,
}

/// Errors of what a model answers.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the API's description is made of it")]
pub(crate) enum AnswerRefusals {
    /// The request is wrong, or asks for what the model cannot do; `param` says where
    #[response(status = 400)]
    Wrong(ErrorBody),
    /// The key may not use this model; or a foreign Host or Origin
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such model
    #[response(status = 404)]
    NoModel(ErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The model's queue is full; see Retry-After
    #[response(status = 429)]
    QueueFull(ErrorBody),
    /// The model cannot be loaded, or its worker failed
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

impl ErrorBody {
    pub fn of(error: &RequestError) -> Self {
        let public = PublicError::of(error);
        Self {
            error: ErrorObject {
                message: error.to_string(),
                r#type: public.class,
                param: public.param,
                code: public.code,
            },
        }
    }
}

/// The answer that carries an error object.
pub(super) fn response(error: &RequestError) -> Response {
    let public = PublicError::of(error);
    let mut response = (public.status, axum::Json(ErrorBody::of(error))).into_response();
    add_headers(response.headers_mut(), &public);
    response
}

/// What goes with an error beside its body, whatever shape that has.
pub(in crate::http) fn add_headers(headers: &mut HeaderMap, error: &PublicError) {
    if let Some(seconds) = error.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    match error.status {
        StatusCode::UNAUTHORIZED => {
            let scheme = HeaderValue::from_static("Bearer realm=\"rkllmd\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            let codings = HeaderValue::from_static(content_coding::ACCEPTED);
            headers.insert(header::ACCEPT_ENCODING, codings);
        }
        _ => {}
    }
}
