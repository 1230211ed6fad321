//! An origin whose pages may read answers, as browsers send it, or `*`.

use std::fmt;
use std::str::FromStr;

use super::as_text::as_text;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CorsOrigin {
    /// `*`.
    All,
    /// Scheme, host and port, in the one spelling that browsers have for them.
    One(String),
}

impl CorsOrigin {
    /// Whether an `Origin` header names it.
    pub fn admits(&self, origin: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(own) => own == origin || normal(origin).is_some_and(|origin| *own == origin),
        }
    }
}

/// Lower case and without the scheme's own port; `None` for what is no origin.
fn normal(text: &str) -> Option<String> {
    let (scheme, authority) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = authority.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = authority.strip_suffix(port).unwrap_or(&authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let is_host = if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']');
        address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
    } else {
        !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
    };
    (is_scheme && is_host && is_port).then(|| format!("{scheme}://{authority}"))
}

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "*",
            Self::One(origin) => origin,
        })
    }
}

impl FromStr for CorsOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        normal(text).map(Self::One).ok_or_else(|| {
            format!(
                "`{text}` is no origin: write it as browsers send it, scheme://host or \
                 scheme://host:port without a path, such as \"https://ui.lan\" or \
                 \"http://localhost:3000\", or \"*\" for the pages of all sites"
            )
        })
    }
}

as_text!(CorsOrigin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_admitted_in_whichever_spelling() {
        for (own, origin, admitted) in [
            ("https://ui.lan", "https://ui.lan", true),
            ("HTTPS://UI.lan:443", "https://ui.lan", true),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://localhost", "http://localhost:3000", false),
            ("http://ui.lan", "https://ui.lan", false),
            ("https://ui.lan", "https://ui.lan.evil.example", false),
            (
                "https://ui.lan",
                "https://evil.example#https://ui.lan",
                false,
            ),
            ("https://ui.lan", "null", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            (
                "chrome-extension://abcdef",
                "chrome-extension://abcdef",
                true,
            ),
            ("app://obsidian.md", "app://obsidian.md", true),
            ("*", "https://evil.example", true),
            ("*", "null", true),
        ] {
            let own: CorsOrigin = own.parse().unwrap();
            assert_eq!(own.admits(origin), admitted, "{own} {origin}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused_with_its_form() {
        for text in [
            "",
            "null",
            "ui.lan",
            "https://",
            "https://ui.lan/",
            "https://ui.lan/app",
            "https://*.ui.lan",
            "https://a@ui.lan",
            "https://ui.lan:x",
            "https://ui.lan:99999",
            "http://[::1",
            "ht tp://a",
        ] {
            let error = text.parse::<CorsOrigin>().unwrap_err();
            assert!(error.contains("scheme://host:port"), "{error}");
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
