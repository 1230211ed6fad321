//! Where models are pulled from, and what a pull may take.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::optional::{bytes_or_empty, empty_as_none};
use super::violation::{Found, RATES, SHORTEST, ZERO};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HubSettings {
    /// Scheme and host, and what paths begin with there. The only host that a client's request leads to.
    pub endpoint: String,
    /// Holds the token that `endpoint`, and no other host, is shown.
    #[serde(deserialize_with = "empty_as_none")]
    pub token_file: Option<PathBuf>,
    /// Hosts that `endpoint` may lead to although they are in a network of one's own.
    pub redirect_hosts: Vec<String>,
    /// Certificates that are trusted instead of the machine's. `None`: those of the machine.
    #[serde(deserialize_with = "empty_as_none")]
    pub ca_file: Option<PathBuf>,
    /// `None`: that of the environment.
    #[serde(deserialize_with = "empty_as_none")]
    pub proxy: Option<String>,
    /// Nothing is pulled.
    pub offline: bool,
    /// Most bytes of all that lies in the models folder. `None`: as many as fit.
    #[serde(deserialize_with = "bytes_or_empty")]
    pub quota_bytes: Option<u64>,
    /// Bytes that a pull leaves free on the disk.
    pub keep_free_bytes: u64,
    /// Pulls at the same time, and of the router's downloads that go on without a client.
    pub max_pulls: usize,
    /// Tries in a row that bring nothing, after which a pull ends.
    pub max_tries: u32,
    /// The wait before the second try; doubled for each further one.
    #[serde(with = "humantime_serde")]
    pub retry_wait: Duration,
    /// Finding and reaching a host.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// A connection that brings nothing for so long is given up.
    #[serde(with = "humantime_serde")]
    pub stall_timeout: Duration,
    /// Nor one that brings less on the whole.
    pub slowest_bytes_per_second: u32,
}

/// A proxy, and the hosts that are reached without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubProxy {
    pub url: Option<String>,
    pub without: Vec<String>,
}

impl HubSettings {
    /// The proxy to be used: the setting's, else the environment's.
    pub fn proxy(&self) -> HubProxy {
        self.proxy_of(|name| std::env::var(name).ok())
    }

    fn proxy_of(&self, variable: impl Fn(&str) -> Option<String>) -> HubProxy {
        // Programs do not agree on their case.
        let either = |name: &str| {
            let found = variable(&name.to_lowercase()).or_else(|| variable(name));
            found.filter(|value| !value.trim().is_empty())
        };
        let scheme = match self.endpoint.starts_with("http:") {
            true => "HTTP_PROXY",
            false => "HTTPS_PROXY",
        };
        let own = self.proxy.clone();
        let without = either("NO_PROXY").unwrap_or_default();
        HubProxy {
            url: own
                .or_else(|| either(scheme))
                .or_else(|| either("ALL_PROXY")),
            without: without
                .split(',')
                .map(|host| host.trim().to_lowercase())
                .filter(|host| !host.is_empty())
                .collect(),
        }
    }
}

pub(super) fn check(hub: &HubSettings, found: &mut Found) {
    if let Err(reason) = check_endpoint(&hub.endpoint) {
        found.push("hub.endpoint", reason);
    }
    if let Some(Err(reason)) = hub.proxy.as_deref().map(check_proxy) {
        found.push("hub.proxy", reason);
    }
    for host in &hub.redirect_hosts {
        if let Err(reason) = check_host(host) {
            found.push("hub.redirect-hosts", reason);
        }
    }
    found.repeated("hub.redirect-hosts", &hub.redirect_hosts);
    found.range("hub.max-pulls", hub.max_pulls, 1..=16);
    found.range("hub.max-tries", hub.max_tries, 1..=1000);
    let rate = hub.slowest_bytes_per_second;
    found.range("hub.slowest-bytes-per-second", rate, RATES);
    found.duration("hub.retry-wait", hub.retry_wait, ZERO);
    found.duration("hub.connect-timeout", hub.connect_timeout, SHORTEST);
    found.duration("hub.stall-timeout", hub.stall_timeout, SHORTEST);
}

/// Whether a text is scheme, host and perhaps a path, which a hub's paths are put behind.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let rest = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err("must begin with https:// or http://".to_owned());
    };
    let host = rest.split('/').next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_graphic() && !"?#@\\\"<>^`{|}".contains(c);
    if host.is_empty() || host.starts_with(':') || !rest.chars().all(is_plain) {
        return Err("must be scheme and host, such as https://huggingface.co".to_owned());
    }
    Ok(())
}

/// Whether a text may be a proxy's address.
fn check_proxy(proxy: &str) -> Result<(), String> {
    let is_spoken = proxy.starts_with("http://") || proxy.starts_with("https://");
    match is_spoken && !proxy.contains(char::is_whitespace) {
        true => Ok(()),
        false => Err("must be http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

/// Whether a text is a host, with its port or for all of them.
fn check_host(host: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    match !host.is_empty() && host.chars().all(is_plain) {
        true => Ok(()),
        false => Err(format!("`{host}` is no host: write HOST or HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_and_a_host() {
        for right in [
            "https://huggingface.co",
            "http://127.0.0.1:8000",
            "https://hub.lan/mirror/",
            "http://[::1]:80",
        ] {
            assert_eq!(check_endpoint(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "huggingface.co",
            "ftp://hub.lan",
            "https://",
            "https:///x",
            "https://:80",
            "https://user:secret@hub.lan",
            "https://hub.lan/?x",
            "https://hub lan",
        ] {
            assert!(check_endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_setting_goes_before_the_environment() {
        let environment = |name: &str| match name {
            "https_proxy" => Some("http://lower:1".to_owned()),
            "HTTPS_PROXY" => Some("http://upper:1".to_owned()),
            "HTTP_PROXY" => Some("http://plain:1".to_owned()),
            "NO_PROXY" => Some("LAN, .local,,".to_owned()),
            _ => None,
        };
        let mut hub = HubSettings::default();
        let url = |hub: &HubSettings| hub.proxy_of(environment).url;
        assert_eq!(url(&hub).as_deref(), Some("http://lower:1"));
        assert_eq!(hub.proxy_of(environment).without, ["lan", ".local"]);
        hub.endpoint = "http://hub.lan".to_owned();
        assert_eq!(url(&hub).as_deref(), Some("http://plain:1"));
        hub.proxy = Some("http://own:1".to_owned());
        assert_eq!(url(&hub).as_deref(), Some("http://own:1"));
        assert_eq!(
            HubSettings::default().proxy_of(|_| None),
            HubProxy::default()
        );
    }
}
