//! The error object every failing answer carries, in a body of its own or as an event of a stream.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_error::RequestError;
use super::status::verdict;

/// What every error answer looks like.
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

impl ErrorBody {
    pub fn of(error: &RequestError) -> Self {
        let verdict = verdict(error);
        Self {
            error: ErrorObject {
                message: error.to_string(),
                r#type: verdict.class,
                param: verdict.param,
                code: verdict.code,
            },
        }
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let verdict = verdict(&self);
        let mut response = (verdict.status, axum::Json(ErrorBody::of(&self))).into_response();
        if let Some(seconds) = verdict.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if verdict.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"rkllmd\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
