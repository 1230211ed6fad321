//! Pages of foreign sites. A browser lets any page open a WebSocket to any address, and sends a simple
//! POST anywhere, but it says who asks: of an `Origin` that is not the host that was called, whatever may
//! change something is refused, on every listener. Other clients send none.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::http::request::error::{RequestError, quote};
use crate::http::transport::cors;
use crate::settings::HttpSettings;

/// Refuses what comes from a page of another site.
pub(crate) fn check(headers: &HeaderMap, settings: &HttpSettings) -> Result<(), RequestError> {
    if is_own(headers, settings) {
        return Ok(());
    }
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    Err(RequestError::ForeignPage {
        origin: quote(&String::from_utf8_lossy(origin.unwrap_or_default())),
    })
}

/// Whether the request is no browser's, or of a page of this very host or of an allowed one: by its
/// host, or as an origin whose pages may read answers.
pub(crate) fn is_own(headers: &HeaderMap, settings: &HttpSettings) -> bool {
    let allowed = &settings.allowed_hosts;
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        if cors::admits(&settings.cors_origins, origin) {
            return true;
        }
        let Some(authority) = origin
            .to_str()
            .ok()
            .and_then(|origin| Some(origin.split_once("://")?.1))
        else {
            return false;
        };
        let name = authority
            .parse::<Authority>()
            .ok()
            .map(|authority| authority.host().to_owned());
        host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            || allowed.iter().any(|allowed| {
                allowed == "*"
                    || allowed.eq_ignore_ascii_case(authority)
                    || name
                        .as_deref()
                        .is_some_and(|name| allowed.eq_ignore_ascii_case(name))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(host: &str, origin: Option<&str>, allowed: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let settings = HttpSettings {
            allowed_hosts: allowed.iter().map(|name| (*name).to_owned()).collect(),
            cors_origins: vec!["https://page.lan".parse().unwrap()],
            ..HttpSettings::default()
        };
        is_own(&headers, &settings)
    }

    #[test]
    fn only_pages_of_this_host_or_an_allowed_one_may_call() {
        assert!(own("board:8080", None, &[]));
        assert!(own("board:8080", Some("http://board:8080"), &[]));
        assert!(own("board:8080", Some("https://ui.lan"), &["ui.lan"]));
        assert!(own("board:8080", Some("https://ui.lan:81"), &["ui.lan"]));
        assert!(own("board:8080", Some("https://ui.lan"), &["*"]));
        assert!(own("board:8080", Some("https://page.lan"), &[]));
        for foreign in [
            "http://page.lan",
            "http://evil.example",
            "http://board:81",
            "null",
            "http://board:8080.evil",
        ] {
            assert!(!own("board:8080", Some(foreign), &["ui.lan"]), "{foreign}");
        }
    }
}
