//! The dialects that clients speak, a folder each, and what all of them do with a request for a reply
//! (`chat_dialect`) or for embeddings (`embedding`). No dialect knows another: what several of them read or write in one form
//! stands here. No other part of the daemon knows a dialect, but for the router, the shape of errors and the API's
//! description.

pub(crate) mod anthropic;
pub(crate) mod background_responses;
pub(crate) mod calls;
pub(crate) mod chat_dialect;
mod described_body;
pub(crate) mod embedding;
pub(crate) mod format;
pub(crate) mod format_fields;
pub(crate) mod functions;
mod ignored;
mod installing;
pub(crate) mod kept_items;
pub(crate) mod kept_responses;
pub(crate) mod llama_server;
mod logprobs;
mod named_items;
pub(crate) mod ollama;
pub(crate) mod openai;
pub(crate) mod parameters;
mod permission;
mod prompt_tokens;
mod reasoning;
pub(crate) mod responses;
mod templates;
mod timings;
mod tool_choice;
pub(crate) mod tools;
mod variants;
mod whole_calls;

use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::status::PublicError;

/// Writes down how a request ended that asked for no generation.
fn ended<T>(context: &RequestContext, result: Result<T, RequestError>) -> Result<T, RequestError> {
    let result = result.map_err(|error| failed(context, error))?;
    context.ended();
    Ok(result)
}

/// Writes down that a request has failed. One whose client has left is counted when its connection lets go of it.
fn failed(context: &RequestContext, error: RequestError) -> RequestError {
    if !matches!(error, RequestError::ClientLeft) {
        context.failed(PublicError::of(&error).code);
    }
    error
}
