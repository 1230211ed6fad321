//! The body that an error has, by the path that was asked for: a client of JSON-RPC reads JSON-RPC and
//! one of Ollama's API that API's, also where its request never reached them. A handler's error has no
//! body of its own; the router gives it its path's.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::error_body::{self, ErrorBody};
use crate::http::dialects::ollama::error as ollama_error;
use crate::http::request::error::RequestError;
use crate::http::rpc;
use crate::http::status::PublicError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum ErrorShape {
    OpenAi,
    Ollama,
    JsonRpc,
}

impl ErrorShape {
    /// Of a path without its query.
    pub fn of(path: &str) -> Self {
        match path.trim_end_matches('/') {
            "/rpc" | "/rpc/ws" => Self::JsonRpc,
            path if path == "/api" || path.starts_with("/api/") => Self::Ollama,
            _ => Self::OpenAi,
        }
    }

    pub fn response(self, error: RequestError) -> Response {
        match self {
            Self::OpenAi => error_body::response(&error),
            Self::Ollama => ollama_error::response(&error),
            Self::JsonRpc => rpc::refused(&error),
        }
    }

    /// The answer of a handler, in this shape where it is an error.
    pub fn shaped(self, mut answer: Response) -> Response {
        match answer.extensions_mut().remove::<RequestError>() {
            Some(error) => self.response(error),
            None => answer,
        }
    }

    /// An answer's bytes, for a connection that no request could be read from.
    pub fn raw(self, error: &RequestError) -> Vec<u8> {
        let status = PublicError::of(error).status;
        let body = match self {
            Self::OpenAi => serde_json::to_string(&ErrorBody::of(error)).unwrap_or_default(),
            Self::Ollama => ollama_error::text(error),
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
