//! What all event streams have in common.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, BytesMut};

use super::append_json::append_json;
use super::error_body::ErrorBody;
use crate::http::request::error::RequestError;

/// Their media type. They are UTF-8 by definition, but clients that are not made for them take a text
/// without a charset for ISO 8859-1.
pub(crate) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// Says that the stream goes on. No blank line after it: to a reader of events it is a part of the next one.
pub(crate) const KEEP_ALIVE: &[u8] = b": keep-alive\n";

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

/// The event that tells an error, without a name.
pub(crate) fn write_error(error: &RequestError, buffer: &mut BytesMut) {
    buffer.put_slice(b"data: ");
    append_json(buffer, &ErrorBody::of(error));
    buffer.put_slice(b"\n\n");
}
