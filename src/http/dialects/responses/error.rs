//! Errors in OpenAI's shape, which name fields as responses do.

use axum::response::{IntoResponse, Response};

use crate::http::request::error::RequestError;
use crate::http::response::error_body::{ErrorBody, add_headers};
use crate::http::status::PublicError;

/// The error object of an error, whose field may have another name in other dialects.
pub(in crate::http) fn body(error: &RequestError) -> ErrorBody {
    let mut body = ErrorBody::of(error);
    body.error.param = body.error.param.map(|param| match param.as_str() {
        "messages" => "input".to_owned(),
        "response_format" => "text.format".to_owned(),
        "logprobs" => "include".to_owned(),
        _ => param,
    });
    body
}

/// The answer that carries it.
pub(in crate::http) fn response(error: &RequestError) -> Response {
    let public = PublicError::of(error);
    let mut response = (public.status, axum::Json(body(error))).into_response();
    add_headers(response.headers_mut(), &public);
    response
}
