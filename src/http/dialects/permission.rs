//! Which requests may decide for how long models stay loaded.

use axum::extract::Request;

use crate::generation::KeepAlive;
use crate::http::HttpState;
use crate::http::request::access::{self, Rule};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;

/// The field that says for how long.
const KEEP_ALIVE: &str = "keep_alive";

/// Whether a request may decide which models are loaded.
pub(super) fn may_load(
    state: &HttpState,
    context: &RequestContext,
    request: &Request,
) -> Result<(), RequestError> {
    // The router says it for every request.
    let rule = request.extensions().get().copied().unwrap_or(Rule::Keys);
    access::may_load((rule, &context.caller), &state.http)
}

/// Leaves it to the model's setting how long it stays, where a request wants to have it for ever that may
/// not decide that.
pub(super) fn permit(
    may_load: &Result<(), RequestError>,
    keep_alive: &mut Option<KeepAlive>,
    not_applied: &mut Vec<&'static str>,
) {
    if may_load.is_err() && *keep_alive == Some(KeepAlive::ForEver) {
        *keep_alive = None;
        not_applied.push(KEEP_ALIVE);
    }
}
