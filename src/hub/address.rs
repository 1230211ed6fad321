//! Where a download may be led to: to addresses of the public network, and to those that the settings name.
//! What a name means is looked up once, judged, and then connected to, so that no second answer of a name
//! server leads elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::url::Url;

/// A host that leads into a network of one's own.
#[derive(Debug)]
pub(super) struct Forbidden {
    pub host: String,
    pub reason: String,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.reason)
    }
}

impl std::error::Error for Forbidden {}

pub(super) fn reason(what: impl fmt::Display) -> String {
    format!(
        "{what}, where no download is led unless `redirect-hosts` in the [hub] settings names the host"
    )
}

/// Who says where a download may be led.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    /// The endpoint, or the proxy: the author of the settings chose it.
    pub chosen: Url,
    pub redirect_hosts: Vec<String>,
}

impl Judge {
    /// Refuses an address, or the name that it was found by.
    pub fn judge(&self, url: &Url, address: IpAddr) -> Result<(), Forbidden> {
        if self.chosen.is_same_origin(url)
            || is_public(address)
            || url.is_among(&self.redirect_hosts)
        {
            return Ok(());
        }
        Err(Forbidden {
            host: url.host.clone(),
            reason: reason(format!("whose address {address} is no public one")),
        })
    }
}

/// Looks names up as the machine does, and has it judged where they lead.
#[derive(Debug)]
pub(super) struct JudgingResolver {
    inner: DefaultResolver,
    judge: Judge,
}

impl JudgingResolver {
    pub fn new(judge: Judge) -> Self {
        Self {
            inner: DefaultResolver::default(),
            judge,
        }
    }
}

impl Resolver for JudgingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let is_https = uri.scheme_str() == Some("https");
        let url = Url {
            is_https,
            host: uri.host().unwrap_or_default().to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            path: "/".to_owned(),
        };
        // Of several addresses none may be another kind: the next connection might take that one.
        for address in found.iter() {
            let judged = self.judge.judge(&url, address.ip());
            judged.map_err(|forbidden| ureq::Error::Other(Box::new(forbidden)))?;
        }
        Ok(found)
    }
}

/// Whether an address is one of the public network, in whichever way it is written.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_kept_back = matches!(
        (a, b, c),
        // This network, shared by a provider, protocols, tests between networks, and what is reserved.
        (0, ..)
            | (100, 64..=127, _)
            | (192, 0, 0)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (240.., ..)
    );
    !(is_kept_back
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let embedded = |high: u16, low: u16| {
        let bytes = [high.to_be_bytes(), low.to_be_bytes()].concat();
        is_public_v4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    };
    match parts {
        // An address of version 4, plain or translated.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // Tunnels, and what is for documents.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] => false,
        // All else that is routed begins with these three bits.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ones_own_network_are_known_in_every_spelling() {
        for own in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2001:0:1::",
            "2001:db8::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(!is_public(own.parse().unwrap()), "{own}");
        }
        for public in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "18.66.0.1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2600:9000::1",
            "2a00:1450::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn a_name_is_judged_by_where_it_leads() {
        let judge = |redirect_hosts| Judge {
            chosen: Url::parse("http://hub.lan/").unwrap(),
            redirect_hosts,
        };
        let resolved = |judge| {
            let uri: Uri = "http://localhost:81/".parse().unwrap();
            let config = ureq::Agent::config_builder().build();
            JudgingResolver::new(judge).resolve(&uri, &config, NextTimeout::default())
        };
        let refused = resolved(judge(Vec::new()));
        let Err(ureq::Error::Other(error)) = refused else {
            panic!("{refused:?}");
        };
        let forbidden = error.downcast::<Forbidden>().expect("why it is refused");
        assert_eq!(forbidden.host, "localhost");
        assert!(resolved(judge(vec!["localhost:81".to_owned()])).is_ok());
        assert!(resolved(judge(vec!["localhost:82".to_owned()])).is_err());
    }

    #[test]
    fn who_wrote_the_settings_chose_the_first_host_and_those_named() {
        let url = |text| Url::parse(text).unwrap();
        let own: IpAddr = "192.168.1.2".parse().unwrap();
        let hub = url("http://hub.lan:8000/");
        let judging = Judge {
            chosen: hub.clone(),
            redirect_hosts: vec!["cdn.lan".to_owned()],
        };
        assert!(judging.judge(&hub, own).is_ok());
        assert!(judging.judge(&url("http://hub.lan:8001/"), own).is_err());
        assert!(judging.judge(&url("https://cdn.lan/"), own).is_ok());
        assert!(judging.judge(&url("https://cdn.example/"), own).is_err());
        let public = "1.1.1.1".parse().unwrap();
        assert!(judging.judge(&url("https://cdn.example/"), public).is_ok());
    }
}
