//! Which requests may decide for how long models stay loaded, and write control tokens.

use axum::extract::Request;

use crate::auth::Role;
use crate::generation::KeepAlive;
use crate::http::HttpState;
use crate::http::request::access::{self, Caller, Rule};
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

/// Whether texts and ids of control tokens in a request are those tokens: as it asks by `special`, else as is set.
pub(super) fn may_control(
    state: &HttpState,
    context: &RequestContext,
    special: Option<bool>,
) -> Result<bool, RequestError> {
    let is_set = state.chat.raw_completions;
    let is_admin = match &context.caller {
        Caller::Key(key) => key.role == Role::Admin,
        Caller::Trusted => true,
        Caller::Stranger => false,
    };
    match special {
        Some(true) if !is_set && !is_admin => Err(RequestError::out_of_range(
            "special",
            "can only be true with an administrator's key, or with `raw-completions` in the [chat] \
             settings",
        )),
        asked => Ok(asked.unwrap_or(is_set)),
    }
}
