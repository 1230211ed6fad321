//! The body that an error has, by the path that was asked for: a client of JSON-RPC reads JSON-RPC and
//! one of Ollama's or Anthropic's API that API's, also where its request never reached them. A handler's error has no
//! body of its own; the router gives it its path's.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::error_body::{self, ErrorBody};
use crate::generation::RequestId;
use crate::http::dialects::anthropic::error as anthropic_error;
use crate::http::dialects::ollama::error as ollama_error;
use crate::http::dialects::responses::error as responses_error;
use crate::http::request::anthropic_version;
use crate::http::request::error::RequestError;
use crate::http::request::id::REQUEST_ID;
use crate::http::rpc;
use crate::http::status::PublicError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum ErrorShape {
    OpenAi,
    /// OpenAI's with the names of another path's fields.
    Responses,
    Ollama,
    Anthropic,
    JsonRpc,
}

impl ErrorShape {
    /// Of a path without its query.
    pub fn of(path: &str) -> Self {
        match path.trim_end_matches('/') {
            "/rpc" | "/rpc/ws" => Self::JsonRpc,
            path if path == "/api" || path.starts_with("/api/") => Self::Ollama,
            path if path == "/v1/messages" || path.starts_with("/v1/messages/") => Self::Anthropic,
            path if path == "/v1/responses" || path.starts_with("/v1/responses/") => {
                Self::Responses
            }
            _ => Self::OpenAi,
        }
    }

    /// Of a request, whose header may say which API's client has sent it to a path that several have.
    pub fn of_request(path: &str, headers: &HeaderMap) -> Self {
        let is_shared = path == "/v1/models" || path.starts_with("/v1/models/");
        match is_shared && anthropic_version::is_named(headers) {
            true => Self::Anthropic,
            false => Self::of(path),
        }
    }

    pub fn response(self, error: RequestError, id: &RequestId) -> Response {
        match self {
            Self::OpenAi => error_body::response(&error),
            Self::Responses => responses_error::response(&error),
            Self::Ollama => ollama_error::response(&error),
            Self::Anthropic => anthropic_error::response(&error, id),
            Self::JsonRpc => rpc::refused(&error),
        }
    }

    /// The answer of a handler, in this shape where it is an error.
    pub fn shaped(self, mut answer: Response, id: &RequestId) -> Response {
        match answer.extensions_mut().remove::<RequestError>() {
            Some(error) => self.response(error, id),
            None => answer,
        }
    }

    /// The header that tells a request's id to clients that do not look for `x-request-id`.
    pub fn id_header(self) -> Option<HeaderName> {
        (self == Self::Anthropic).then_some(REQUEST_ID)
    }

    /// An answer's bytes, for a connection that no request could be read from.
    pub fn raw(self, error: &RequestError) -> Vec<u8> {
        let status = PublicError::of(error).status;
        let body = match self {
            Self::OpenAi => serde_json::to_string(&ErrorBody::of(error)).unwrap_or_default(),
            Self::Responses => {
                serde_json::to_string(&responses_error::body(error)).unwrap_or_default()
            }
            Self::Ollama => ollama_error::text(error),
            Self::Anthropic => anthropic_error::text(error),
            Self::JsonRpc => rpc::refusal_text(&error.to_string()),
        };
        raw(status, &body)
    }
}

/// What a handler gives up with, on its way to `shaped`.
impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let mut response = PublicError::of(&self).status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

fn raw(status: StatusCode, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
    .into_bytes()
}
