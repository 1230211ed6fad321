//! A request's body, read and made into what its endpoint takes.

use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;

use super::context::RequestContext;
use super::error::RequestError;
use super::{body, json_weight};
use crate::generation::GenerationError;
use crate::http::HttpState;

/// A text is in memory so many times more while its prompt is made: parsed, as a message to the process
/// that renders, and as the prompt that came back.
const COPIES: usize = 3;

/// Above this size a request is parsed beside the event loop, where it cannot hold up the tokens of
/// other streams.
const INLINE_BYTES: usize = 32 * 1024;

/// Checks a body and makes something of it, and tells the context which model it is for; the
/// endpoint's own part.
pub(crate) trait Parse<T>:
    FnOnce(&HttpState, &RequestContext, &[u8]) -> Result<T, RequestError> + Send + 'static
{
}

impl<T, P> Parse<T> for P where
    P: FnOnce(&HttpState, &RequestContext, &[u8]) -> Result<T, RequestError> + Send + 'static
{
}

/// Reads a request's body and parses it.
pub(crate) async fn parsed<T: Send + 'static>(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    request: Request,
    parse: impl Parse<T>,
) -> Result<T, RequestError> {
    let (head, body) = request.into_parts();
    let http = &state.http;
    let body = body::read(
        context,
        &head.headers,
        body,
        http.body_limit_bytes,
        state.slowest_pace,
    )
    .await?;
    parsed_text(state, context, body, parse).await
}

/// Parses what has been read.
pub(crate) async fn parsed_text<T: Send + 'static>(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    body: Bytes,
    parse: impl Parse<T>,
) -> Result<T, RequestError> {
    if body.len() <= INLINE_BYTES {
        parse_charged(state, context, &body, parse)
    } else {
        parse_large(state, context, body, parse).await
    }
}

/// Parses what the request may have the memory for.
fn parse_charged<T>(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
    parse: impl Parse<T>,
) -> Result<T, RequestError> {
    context.hold(body.len() + json_weight::of(body) + COPIES * body.len())?;
    parse(state, context, body)
}

/// As many at a time as leave half of the cores to the streams.
#[expect(
    clippy::disallowed_methods,
    reason = "bounded work: the body has its limit"
)]
async fn parse_large<T: Send + 'static>(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    body: Bytes,
    parse: impl Parse<T>,
) -> Result<T, RequestError> {
    let place = Arc::clone(&state.large_requests).acquire_owned().await.ok();
    let (state, context) = (Arc::clone(state), Arc::clone(context));
    let work = move || {
        // Held by the work and not by the client that may leave while it goes on.
        let _place = place;
        parse_charged(&state, &context, &body, parse)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RequestError::Generation {
            error: GenerationError::Internal(error.to_string()),
            prompt_param: "",
        })?
}
