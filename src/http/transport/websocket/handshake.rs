//! What a client must say to get a WebSocket (RFC 6455, section 4.2.1), and the answer to it.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tungstenite::handshake::derive_accept_key;

/// The one version of the protocol.
const VERSION: HeaderValue = HeaderValue::from_static("13");
const KEY_BYTES: usize = 16;

/// Why a request is not answered with a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHandshake {
    #[error("this path is a WebSocket: ask with `Connection: Upgrade` and `Upgrade: websocket`")]
    NotAsked,
    #[error("`Sec-WebSocket-Version` must be 13")]
    Version,
    #[error("`Sec-WebSocket-Key` must be 16 bytes in base64")]
    Key,
}

impl NoHandshake {
    /// What the refusal's header says beside it.
    pub fn add_headers(self, headers: &mut HeaderMap) {
        if self != Self::Key {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
        }
    }
}

/// Checks the request; gives the value of `Sec-WebSocket-Accept`.
pub(super) fn accepted(headers: &HeaderMap) -> Result<HeaderValue, NoHandshake> {
    let asked = lists(headers, header::CONNECTION, "upgrade")
        && lists(headers, header::UPGRADE, "websocket");
    if !asked {
        return Err(NoHandshake::NotAsked);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(NoHandshake::Version);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(NoHandshake::Key);
    };
    let bytes = STANDARD.decode(key).map_err(|_| NoHandshake::Key)?;
    if bytes.len() != KEY_BYTES {
        return Err(NoHandshake::Key);
    }
    let accept = derive_accept_key(key.as_bytes());
    HeaderValue::try_from(accept).map_err(|_| NoHandshake::Key)
}

/// Whether a header that is a list holds `token`.
fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

pub(super) fn response(accept: HeaderValue) -> Response {
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    fn asked() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn with(name: &'static str, value: &'static str) -> Result<HeaderValue, NoHandshake> {
        let mut headers = asked();
        headers.insert(name, HeaderValue::from_static(value));
        accepted(&headers)
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        assert_eq!(accepted(&asked()).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_handshake_is_refused_by_its_fault() {
        assert_eq!(with("connection", "close"), Err(NoHandshake::NotAsked));
        assert_eq!(with("upgrade", "h2c"), Err(NoHandshake::NotAsked));
        assert_eq!(
            with("sec-websocket-version", "8"),
            Err(NoHandshake::Version)
        );
        for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZQ=="] {
            assert_eq!(
                with("sec-websocket-key", key),
                Err(NoHandshake::Key),
                "{key}"
            );
        }
        let mut twice = asked();
        let key = twice["sec-websocket-key"].clone();
        twice.append("sec-websocket-key", key);
        assert_eq!(accepted(&twice), Err(NoHandshake::Key));
        let mut none = asked();
        none.remove("sec-websocket-key");
        assert_eq!(accepted(&none), Err(NoHandshake::Key));
    }
}
