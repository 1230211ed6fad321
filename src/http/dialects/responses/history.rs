//! The conversation that a request goes on from.

use std::sync::Arc;

use super::last_response::LastResponse;
use super::parameters::{COPIES, PREVIOUS};
use crate::http::HttpState;
use crate::http::dialects::kept_items::Item;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};

/// The conversation of the response that is gone on from, be it the connection's `last` one, and its bytes, which are
/// charged to the request.
pub(super) fn history(
    previous: Option<&str>,
    state: &HttpState,
    context: &RequestContext,
    last: Option<&LastResponse>,
) -> Result<(Vec<Arc<Item>>, usize), RequestError> {
    let Some(previous) = previous else {
        return Ok((Vec::new(), 0));
    };
    let client = context.client.name();
    // Before the kept ones: it is kept before it is in the background no more.
    let in_background = state.background_responses.find(client, previous);
    let found = last.and_then(|last| last.take(previous));
    let found = found.or_else(|| state.kept_responses.find(client, previous));
    let Some(found) = found else {
        return Err(match in_background {
            Some(response) if !response.is_over() => RequestError::out_of_range(
                PREVIOUS,
                "must be of a response that has ended, and this one is still made",
            ),
            _ => RequestError::UnknownResponse {
                id: quote(previous),
                param: Some(PREVIOUS),
            },
        });
    };
    if !found.is_answered {
        return Err(RequestError::out_of_range(
            PREVIOUS,
            "must be of a response with an answer, and this one has failed or was cancelled",
        ));
    }
    let bytes: usize = found.items.iter().map(|item| item.bytes()).sum();
    context.hold(context.held() + COPIES * bytes)?;
    Ok((found.items.clone(), bytes))
}
