//! What all event streams have in common.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// Their media type. They are UTF-8 by definition, but clients that are not made for them take a text
/// without a charset for ISO 8859-1.
pub(crate) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// An answer whose body is a stream of events that no proxy may store or hold back.
pub(crate) fn response(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, body).into_response()
}
