//! What a client is told of its request beside the answer, in headers.

use std::borrow::Borrow;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

static X_NOT_APPLIED: HeaderName = HeaderName::from_static("x-rkllmd-not-applied");
static X_NEUTRALISED: HeaderName = HeaderName::from_static("x-rkllmd-neutralised");

/// `not_applied` are parameters that were asked for in vain; `neutralised` is the field whose control
/// tokens were made plain text.
pub(crate) fn add_notices(
    response: &mut Response,
    not_applied: &[impl Borrow<str>],
    neutralised: Option<&'static str>,
) {
    let headers = response.headers_mut();
    if !not_applied.is_empty()
        && let Ok(value) = HeaderValue::from_str(&not_applied.join(", "))
    {
        headers.insert(X_NOT_APPLIED.clone(), value);
    }
    if let Some(field) = neutralised {
        headers.insert(X_NEUTRALISED.clone(), HeaderValue::from_static(field));
    }
}
