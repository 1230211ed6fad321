//! Whether a connection lasts beyond an answer, and how long: clients that pool connections read it and
//! send no request into one that is being closed.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Whether the client will use its connection again.
pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if request.version() >= Version::HTTP_11 {
        !names(headers, "close")
    } else {
        names(headers, "keep-alive") && !names(headers, "close")
    }
}

fn names(headers: &HeaderMap, option: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|named| named.trim().eq_ignore_ascii_case(option))
}

/// In whole seconds, as the header counts.
pub(super) fn announce<B>(answer: &mut Response<B>, timeout: Duration) {
    if let Ok(value) = HeaderValue::from_str(&format!("timeout={}", timeout.as_secs())) {
        answer.headers_mut().insert(KEEP_ALIVE.clone(), value);
    }
}

/// The connection lasts no longer than this answer.
pub(super) fn end<B>(answer: &mut Response<B>) {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_unless_the_client_says_otherwise() {
        for (version, connection, kept) in [
            (Version::HTTP_11, None, true),
            (Version::HTTP_11, Some("Close"), false),
            (Version::HTTP_11, Some("keep-alive, TE, close"), false),
            (Version::HTTP_11, Some("closed"), true),
            (Version::HTTP_10, None, false),
            (Version::HTTP_10, Some("Keep-Alive"), true),
        ] {
            let mut request = Request::builder().version(version);
            if let Some(connection) = connection {
                request = request.header("connection", connection);
            }
            let request = request.body(()).unwrap();
            assert_eq!(is_wanted(&request), kept, "{version:?} {connection:?}");
        }
    }
}
