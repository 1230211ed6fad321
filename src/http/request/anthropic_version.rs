use axum::http::{HeaderMap, HeaderName};

static VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// Whether a client is one of Anthropic's API, whichever version of it it names.
pub(crate) fn is_named(headers: &HeaderMap) -> bool {
    headers.contains_key(&VERSION)
}
