//! Addresses of HTTP, as far as a redirect needs to be judged. Pure.

use std::fmt;
use std::net::IpAddr;

use super::PullError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub is_https: bool,
    /// Lower case; an address of version 6 stands in brackets.
    pub host: String,
    pub port: u16,
    /// With the query.
    pub path: String,
}

impl Url {
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // A URL with a user hides a host, or shows a secret.
        if authority.contains(['@', '\\']) {
            return None;
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port.filter(|port| !port.is_empty()) {
            Some(port) => port
                .parse::<u16>()
                .ok()
                .filter(|_| !port.starts_with('+'))?,
            None if is_https => 443,
            None => 80,
        };
        let path = path.split('#').next().unwrap_or_default();
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        let url = Self {
            is_https,
            host: host.to_ascii_lowercase(),
            port,
            path,
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_name = url.host.chars().all(is_plain) && !ends_in_number(&url.host);
        let is_host = !url.host.is_empty() && (url.ip().is_some() || is_name);
        let is_path = url.path.bytes().all(|byte| byte.is_ascii_graphic());
        (is_host && is_path).then_some(url)
    }

    /// Where a `location` leads from here.
    pub fn join(&self, location: &str) -> Option<Self> {
        // A query may have an address in it.
        let is_word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let scheme = location.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| scheme.chars().all(is_word)) {
            return Self::parse(location);
        }
        let scheme = self.scheme();
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        if location.is_empty() {
            return None;
        }
        Self::parse(&format!("{}{}", self.origin(), self.path_of(location)))
    }

    /// Of a reference without a host, as RFC 3986 (5.2) has it.
    fn path_of(&self, location: &str) -> String {
        let own = self.path.split('?').next().unwrap_or_default();
        let end = location.find(['?', '#']).unwrap_or(location.len());
        let (path, query) = location.split_at(end);
        let folder = own.rsplit_once('/').map_or("", |(folder, _)| folder);
        let joined = match path {
            "" => own.to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("{folder}/{path}"),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in joined.split('/').skip(1) {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        // A folder stays one.
        if matches!(joined.rsplit('/').next(), Some("." | "..")) {
            parts.push("");
        }
        format!("/{}{query}", parts.join("/"))
    }

    fn scheme(&self) -> &'static str {
        match self.is_https {
            true => "https",
            false => "http",
        }
    }

    pub fn origin(&self) -> String {
        let usual = if self.is_https { 443 } else { 80 };
        let scheme = self.scheme();
        // As signatures of addresses have it, which `host` is a part of.
        match self.port == usual {
            true => format!("{scheme}://{}", self.host),
            false => format!("{scheme}://{}:{}", self.host, self.port),
        }
    }

    /// Whether a token for one may be shown to the other.
    pub fn is_same_origin(&self, other: &Self) -> bool {
        (self.is_https, &self.host, self.port) == (other.is_https, &other.host, other.port)
    }

    /// The address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        let plain = self.host.trim_start_matches('[').trim_end_matches(']');
        plain.parse().ok()
    }

    /// Whether one of these names it, as HOST or HOST:PORT.
    pub fn is_among(&self, hosts: &[String]) -> bool {
        let with_port = format!("{}:{}", self.host, self.port);
        hosts.iter().any(|host| {
            host.eq_ignore_ascii_case(&self.host) || host.eq_ignore_ascii_case(&with_port)
        })
    }

    /// Whether it is reached without the proxy.
    pub fn is_without_proxy(&self, without: &[String]) -> bool {
        without.iter().any(|entry| {
            let name = entry.trim_start_matches("*.").trim_start_matches('.');
            let is_inner = self
                .host
                .strip_suffix(name)
                .is_some_and(|rest| rest.ends_with('.'));
            entry == "*" || self.host == name || is_inner
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

/// Whether it is an address of version 4 in another spelling, such as `0x7f.1` or `2130706433`, which no name is.
fn ends_in_number(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next();
    let last = last.unwrap_or_default();
    last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x")
}

/// The endpoint, and what its paths begin with.
pub(super) fn endpoint(text: &str) -> Result<Url, PullError> {
    Url::parse(text.trim_end_matches('/')).ok_or_else(|| PullError::Settings {
        what: "hub.endpoint".to_owned(),
        reason: format!("`{text}` is no address of a hub"),
    })
}

/// Why a download may not be led there by a redirect, apart from where its name leads.
pub(super) fn why_not(from: &Url, to: &Url, redirect_hosts: &[String]) -> Option<String> {
    if from.is_https && !to.is_https {
        return Some("without encryption: only https is followed from https".to_owned());
    }
    let host = to.host.trim_end_matches('.');
    let is_own = host == "localhost" || host.ends_with(".localhost");
    if is_own && !to.is_among(redirect_hosts) {
        return Some(super::address::reason("a name of this very machine"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn an_address_is_taken_apart() {
        let found = url("HTTPS://Hub.Lan/a/b?c=d#e");
        assert_eq!(found.to_string(), "https://hub.lan/a/b?c=d");
        assert_eq!(url("http://[::1]:8080").to_string(), "http://[::1]:8080/");
        assert_eq!(url("http://127.0.0.1?x").path, "/?x");
        assert!(url("http://127.0.0.1/").ip().is_some());
        for wrong in [
            "",
            "a/b",
            "ftp://a/",
            "https://",
            "https://user@a/",
            "https://a:b@c/",
            "https://a:99999/",
            "https://a b/",
            "https://a/ b",
            "https://a/\u{e4}",
            "https://a\\@b/",
            "https://a:+80/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://127.1/",
            "https://127.0.0.1./",
            "https://./",
        ] {
            assert_eq!(Url::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_location_leads_from_where_it_is_said() {
        let from = url("https://hub.lan:444/a/b");
        for (location, to) in [
            ("https://cdn.lan/x?y", "https://cdn.lan/x?y"),
            ("//cdn.lan/x", "https://cdn.lan/x"),
            ("/c/d?e", "https://hub.lan:444/c/d?e"),
            ("/c?next=http://d/", "https://hub.lan:444/c?next=http://d/"),
            ("x", "https://hub.lan:444/a/x"),
            ("x/y?z=/../w", "https://hub.lan:444/a/x/y?z=/../w"),
            ("../x", "https://hub.lan:444/x"),
            ("../../../x", "https://hub.lan:444/x"),
            ("./", "https://hub.lan:444/a/"),
            ("/c/./d/../e", "https://hub.lan:444/c/e"),
            ("?y", "https://hub.lan:444/a/b?y"),
            ("c?next=http://d/", "https://hub.lan:444/a/c?next=http://d/"),
        ] {
            let found = from.join(location).map(|it| it.to_string());
            assert_eq!(found.as_deref(), Some(to), "{location}");
        }
        assert_eq!(from.join("file:///etc/passwd"), None);
        assert_eq!(from.join(""), None);
        assert_eq!(from.join("x y"), None);
    }

    #[test]
    fn no_redirect_leaves_encryption_or_finds_this_machine() {
        let (safe, plain) = (url("https://hub.lan/"), url("http://hub.lan/"));
        assert!(why_not(&safe, &plain, &[]).is_some());
        assert_eq!(why_not(&plain, &safe, &[]), None);
        assert_eq!(why_not(&plain, &url("http://cdn.lan/"), &[]), None);
        let own = url("https://localhost/");
        assert!(why_not(&safe, &own, &[]).is_some());
        assert_eq!(why_not(&safe, &own, &["localhost:443".to_owned()]), None);
        assert!(why_not(&safe, &own, &["localhost:444".to_owned()]).is_some());
        for own in [
            "https://localhost./",
            "https://a.localhost/",
            "https://LOCALHOST/",
        ] {
            assert!(why_not(&safe, &url(own), &[]).is_some(), "{own}");
        }
    }

    #[test]
    fn a_token_is_for_one_origin() {
        let hub = url("https://hub.lan/");
        assert!(hub.is_same_origin(&url("https://HUB.lan:443/x")));
        for other in [
            "http://hub.lan/",
            "https://hub.lan:8443/",
            "https://a.hub.lan/",
        ] {
            assert!(!hub.is_same_origin(&url(other)), "{other}");
        }
    }

    #[test]
    fn some_hosts_are_reached_without_a_proxy() {
        let without = ["lan", ".local", "10.0.0.1"].map(str::to_owned);
        for (host, is_without) in [
            ("https://hub.lan/", true),
            ("https://lan/", true),
            ("https://plan/", false),
            ("https://a.local/", true),
            ("http://10.0.0.1/", true),
            ("https://huggingface.co/", false),
        ] {
            assert_eq!(url(host).is_without_proxy(&without), is_without, "{host}");
        }
        assert!(url("https://a/").is_without_proxy(&["*".to_owned()]));
    }
}
