//! What a client is told of its request beside the answer, in headers.

use std::borrow::Borrow;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

static X_NOT_APPLIED: HeaderName = HeaderName::from_static("x-rkllmd-not-applied");
static X_NEUTRALISED: HeaderName = HeaderName::from_static("x-rkllmd-neutralised");

/// `not_applied` are parameters that were asked for in vain; `neutralised` are the fields whose
/// control tokens were made plain text.
pub(crate) fn add_notices(
    response: &mut Response,
    not_applied: &[impl Borrow<str>],
    neutralised: &[&'static str],
) {
    let headers = response.headers_mut();
    for (name, listed) in [
        (&X_NOT_APPLIED, not_applied.join(", ")),
        (&X_NEUTRALISED, neutralised.join(", ")),
    ] {
        if !listed.is_empty()
            && let Ok(value) = HeaderValue::from_str(&listed)
        {
            headers.insert(name.clone(), value);
        }
    }
}
