//! Refuses what a browser sends to a loopback listener for a foreign site (DNS rebinding): on a
//! connection whose own address is loopback, `Host` and `Origin` must name this machine or a name
//! that the settings admit.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version, header};

use crate::http::request::error::{RequestError, quote};
use crate::http::transport::cors;
use crate::settings::HttpSettings;

/// `local` is the connection's own address, `None` for a Unix socket, which no browser reaches.
/// The settings' `allowed_hosts` are extra names; `*` admits every name. The origins whose pages may
/// read answers may ask as well.
pub(crate) fn check(
    local: Option<IpAddr>,
    (version, uri, headers): (Version, &Uri, &HeaderMap),
    settings: &HttpSettings,
) -> Result<(), RequestError> {
    let allowed = &settings.allowed_hosts;
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(RequestError::BadHost {
            reason: "a request has one `host` header",
        });
    }
    if host.is_none() && version >= Version::HTTP_11 {
        return Err(RequestError::BadHost {
            reason: "an HTTP/1.1 request needs a `host` header",
        });
    }
    let Some(local) = local.filter(|local| local.to_canonical().is_loopback()) else {
        return Ok(());
    };
    if allowed.iter().any(|name| name == "*") {
        return Ok(());
    }
    let foreign = |header, value: String| RequestError::ForeignHost {
        header,
        value: quote(&value),
        address: local,
    };
    if let Some(host) = host
        && !host.to_str().is_ok_and(|host| is_local(host, allowed))
    {
        return Err(foreign(
            "host",
            String::from_utf8_lossy(host.as_bytes()).into_owned(),
        ));
    }
    // An absolute request target overrides `host`.
    if let Some(authority) = uri.authority()
        && !is_local(authority.as_str(), allowed)
    {
        return Err(foreign("host", authority.to_string()));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let local_origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, authority)| is_local(authority, allowed));
        if !local_origin && !cors::admits(&settings.cors_origins, origin) {
            return Err(foreign(
                "origin",
                String::from_utf8_lossy(origin.as_bytes()).into_owned(),
            ));
        }
    }
    Ok(())
}

fn is_local(authority: &str, allowed: &[String]) -> bool {
    let Ok(parsed) = Authority::from_str(authority) else {
        return false;
    };
    if authority.contains('@') {
        return false;
    }
    // What follows the host must be a port and nothing else.
    let after_host = authority.strip_prefix(parsed.host()).unwrap_or(authority);
    if !(after_host.is_empty() || parsed.port_u16().is_some()) {
        return false;
    }
    let host = parsed.host();
    let name = host.strip_suffix('.').unwrap_or(host);
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || IpAddr::from_str(address).is_ok_and(|address| address.to_canonical().is_loopback())
        || allowed.iter().any(|allowed| {
            allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(authority)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_local() {
        for name in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1:8080",
            "127.3.2.1",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_local(name, &[]), "{name}");
        }
    }

    #[test]
    fn other_names_are_foreign() {
        for name in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:8080",
            "user@localhost",
            "localhost:evil",
            "192.168.1.2",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!is_local(name, &[]), "{name}");
        }
    }

    #[test]
    fn the_settings_admit_names() {
        let allowed = ["board.lan".to_owned(), "other.lan:81".to_owned()];
        assert!(is_local("Board.lan:8080", &allowed));
        assert!(is_local("other.lan:81", &allowed));
        assert!(!is_local("other.lan:82", &allowed));
    }
}
