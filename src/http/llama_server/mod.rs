//! Endpoints that OpenAI does not have and llama.cpp's server does, in that server's shapes: what a
//! chat becomes before it is run, and texts as tokens. `model` is added, because several are served.
//! Nothing here uses the NPU or waits for it.

pub(crate) mod apply_template;
pub(crate) mod tokens;

use super::request_context::RequestContext;
use super::request_error::RequestError;
use super::status::verdict;

/// Writes down how a request ended that asked for no generation.
fn ended<T>(context: &RequestContext, result: Result<T, RequestError>) -> Result<T, RequestError> {
    match &result {
        Ok(_) => context.ended(),
        Err(RequestError::ClientLeft) => {}
        Err(error) => context.failed(verdict(error).code),
    }
    result
}
