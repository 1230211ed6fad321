//! The error object of Anthropic's API, in a body of its own or as an event of a stream. `code` and `param`
//! are the daemon's own and say what OpenAI's errors say by those names.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::generation::{GenerationError, RequestId};
use crate::http::request::error::RequestError;
use crate::http::response::error_body::add_headers;
use crate::http::status::PublicError;

/// What an error answer looks like.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnthropicError {
    /// Always `error`.
    #[schema(example = "error")]
    r#type: &'static str,
    error: AnthropicErrorObject,
    /// Also in the headers `request-id` and `x-request-id`; null where no request could be read.
    #[schema(required, value_type = Option<String>, example = "req_5a0c7d1e93b24f6ab8d01c2f")]
    request_id: Option<Arc<str>>,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnthropicErrorObject {
    /// The class: `invalid_request_error`, `authentication_error`, `permission_error`, `not_found_error`,
    /// `request_too_large`, `rate_limit_error`, `timeout_error`, `overloaded_error` or `api_error`.
    #[schema(example = "invalid_request_error")]
    r#type: &'static str,
    /// What was attempted, on what, and what to do about it.
    message: String,
    /// Stable and machine-readable.
    #[schema(example = "invalid_value")]
    code: &'static str,
    /// The field of the request that is to blame; absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "messages[0].content")]
    param: Option<String>,
}

/// Errors of messages.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the API's description is made of it")]
pub(crate) enum MessageRefusals {
    /// The request is wrong; `param` says where
    #[response(status = 400)]
    Wrong(AnthropicError),
    /// The key may not use this model; or a foreign Host or Origin on a loopback listener
    #[response(status = 403)]
    Forbidden(AnthropicError),
    /// There is no such model
    #[response(status = 404)]
    NoModel(AnthropicError),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(AnthropicError),
    /// The model's queue is full; see Retry-After
    #[response(status = 429)]
    QueueFull(AnthropicError),
    /// The model cannot be loaded, or its worker failed
    #[response(status = 503)]
    Unavailable(AnthropicError),
}

impl AnthropicError {
    pub fn of(error: &RequestError, id: Option<&RequestId>) -> Self {
        let public = PublicError::of(error);
        Self {
            r#type: "error",
            error: AnthropicErrorObject {
                r#type: class(&public),
                message: message(error),
                code: public.code,
                param: public.param.map(|param| match param.as_str() {
                    "response_format" => "output_config.format".to_owned(),
                    _ => param,
                }),
            },
            request_id: id.map(|id| Arc::clone(&id.0)),
        }
    }
}

/// In the words by which clients know that they have to shorten the conversation.
fn message(error: &RequestError) -> String {
    let RequestError::Generation { error: cause, .. } = error else {
        return error.to_string();
    };
    match cause {
        GenerationError::ContextLengthExceeded {
            prompt_tokens,
            limit_tokens,
        } => {
            // The answer's first token needs a place as well.
            let most = limit_tokens.saturating_sub(1);
            format!("prompt is too long: {prompt_tokens} tokens > {most} maximum")
        }
        GenerationError::PromptTooLong {
            prompt_bytes,
            limit_tokens,
        } => format!(
            "prompt is too long: {prompt_bytes} bytes, which are more than {limit_tokens} tokens maximum"
        ),
        cause => cause.to_string(),
    }
}

fn class(error: &PublicError) -> &'static str {
    match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => match error.code {
            "deadline_exceeded" => "timeout_error",
            "run_refused" | "run_failed" | "worker_died" | "answer_interrupted"
            | "model_failed" => "api_error",
            _ => "overloaded_error",
        },
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => "invalid_request_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    }
}

/// The answer that carries an error object.
pub(in crate::http) fn response(error: &RequestError, id: &RequestId) -> Response {
    let public = PublicError::of(error);
    let body = AnthropicError::of(error, Some(id));
    let mut response = (public.status, axum::Json(body)).into_response();
    add_headers(response.headers_mut(), &public);
    response
}

/// The error object's text, of what is no request.
pub(in crate::http) fn text(error: &RequestError) -> String {
    serde_json::to_string(&AnthropicError::of(error, None)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_too_long_is_refused_in_the_words_that_clients_know() {
        for (error, expected) in [
            (
                GenerationError::ContextLengthExceeded {
                    prompt_tokens: 4096,
                    limit_tokens: 4096,
                },
                "prompt is too long: 4096 tokens > 4095 maximum",
            ),
            (
                GenerationError::PromptTooLong {
                    prompt_bytes: 9_000_000,
                    limit_tokens: 4096,
                },
                "prompt is too long: 9000000 bytes, which are more than 4096 tokens maximum",
            ),
        ] {
            let error = RequestError::Generation {
                error,
                prompt_param: "messages",
            };
            let told = AnthropicError::of(&error, None);
            assert_eq!(told.error.message, expected);
            assert_eq!(told.error.r#type, "invalid_request_error");
            assert_eq!(told.error.param.as_deref(), Some("messages"));
        }
    }
}
